"""A conditional denoiser as a classifier: the class whose model predicts the noise best."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from diffusion.precision import at_least_single, sum_rows


class Classified(NamedTuple):
  """log_prob: [B, classes], normalised over the classes; evaluations: network calls of each example."""

  log_prob: jnp.ndarray
  evaluations: int

  @property
  def label(self):
    """The most probable class, [B]."""
    return jnp.argmax(self.log_prob, axis=1)


def classify(denoiser, x, num_classes: int, key, times, *, weight=None) -> Classified:
  """p(c | x) from the denoising errors of every class at the same times and noises (arXiv:2303.16203, algorithm 1).

  log p(c | x) is minus the sum over draws of w(t) ||eps - eps_hat(x_t, c)||^2 / 2, normalised over c. Classes share their
  draws, which takes most of the noise out of the differences. With the weights of the likelihood and many times it is the
  posterior under the evidence bounds; the paper's uniform weights rank classes better in practice.

  Args:
    denoiser: conditional on {'label': int}.
    x: [B, ...] data in units of the model.
    num_classes: C.
    key: typed key; example i, draw n have noise of their own from it.
    times: [N] noise times, one a draw; see `log_snr_times` of the likelihood for a spread in log-SNR.
    weight: (process, t [N]) -> [N], as in `losses`; None for uniform weights on the noise's error.

  Raises:
    ValueError: fewer than two classes, or times that are no list.

  >>> from diffusion import oracles, processes
  >>> data = oracles.gaussian_mixture(processes.edm(), None, [[-1.0, 0.0], [1.0, 0.0]], 0.1, labels=[0, 1])
  >>> found = classify(data, jnp.array([[0.9, 0.0], [-1.2, 0.1]]), 2, jax.random.key(0), jnp.array([0.5, 1.0, 2.0]))
  >>> found.label.tolist(), found.evaluations
  ([1, 0], 6)
  """
  times = jnp.asarray(times)
  if num_classes < 2 or times.ndim != 1 or not times.size:
    raise ValueError(f"classify needs two classes or more and a list of times, got {num_classes} and times of shape {list(times.shape)}")
  factor = jnp.ones_like(times) if weight is None else weight(denoiser.process, times)
  return Classified(jax.nn.log_softmax(-0.5 * _errors(denoiser, x, times, factor, key, jnp.arange(num_classes)), axis=1), num_classes * times.size)


@jax.jit
def _errors(denoiser, x, times, factor, key, labels):
  """Weighted squared errors summed over draws, [B, C]."""
  keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(x.shape[0]))

  def draw(total, row):
    number, time, w = row
    eps = jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, number), x.shape[1:], x.dtype))(keys)
    t = jnp.full(x.shape[0], time, x.dtype)
    x_t = denoiser.process.perturb(x, eps, t)

    def error(label):
      found = denoiser(x_t, t, {"label": jnp.full(x.shape[0], label)}, views=("eps",)).eps
      return sum_rows(jnp.square(found - eps))
    return total + w.astype(total.dtype) * jax.lax.map(error, labels).T, None
  start = jnp.zeros((x.shape[0], labels.shape[0]), at_least_single(x.dtype))
  return jax.lax.scan(draw, start, (jnp.arange(times.shape[0]), times, factor))[0]
