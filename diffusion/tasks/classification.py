"""A conditional denoiser as a classifier: the class whose model predicts the noise best."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from diffusion.math.precision import at_least_single, sum_rows
from diffusion.processes.base import GaussianProcess


class Classified(NamedTuple):
  """What the denoising errors say.

  Attributes:
    log_prob: [B, classes], normalised over the classes; -inf for those that were given up on the way.
    evaluations: network calls of each example.
    errors: [B, classes] weighted squared errors, summed over the draws that a class took part in.
  """

  log_prob: jax.Array
  evaluations: int
  errors: jax.Array

  @property
  def label(self) -> jax.Array:
    """The most probable class, [B]."""
    return jnp.argmax(self.log_prob, axis=1)


def classify(
  denoiser: Any,
  x: jax.Array,
  num_classes: int,
  key: jax.Array,
  times: ArrayLike,
  *,
  weight: Callable[[GaussianProcess, jax.Array], jax.Array] | None = None,
  rounds: Sequence[tuple[int, int]] = (),
) -> Classified:
  """The class probabilities p(c | x) from the denoising errors of every class.

  The classes are judged at the same times and noises (arXiv:2303.16203, algorithm 1).

  log p(c | x) is minus the sum over draws of w(t) ||eps - eps_hat(x_t, c)||^2 / 2, normalised over c. Classes
  share their draws, which takes most of the noise out of the differences. With the weights of the likelihood
  and many times it is the posterior under the evidence bounds; the paper's uniform weights rank classes
  better in practice.

  Args:
    denoiser: conditional on {'label': int}.
    x: [B, ...] data in units of the model.
    num_classes: C.
    key: typed key, from which example i, draw n have noise of their own; or [B] of them, one an example.
    times: [N] noise times, one a draw, such as `strata(process, 30)`; see `log_snr_times` of the likelihood
      for the whole range.
    weight: (process, t [N]) -> [N], as in `losses`; None for uniform weights on the noise's error.
    rounds: ((draws, kept), ...): after so many draws in all, each example goes on with its so many best
      classes alone (the paper's algorithm 2). The times should then come in an order of which each beginning
      covers the levels: see `strata`.

  Raises:
    ValueError: fewer than two classes, times that are no list, keys for another number of examples, or rounds
      that do not grow in draws and shrink in classes.

  >>> from diffusion import oracles, processes
  >>> data = oracles.gaussian_mixture(processes.edm(), None, [[-1.0, 0.0], [1.0, 0.0]], 0.1, labels=[0, 1])
  >>> x, levels = jnp.array([[0.9, 0.0], [-1.2, 0.1]]), jnp.array([0.5, 1.0, 2.0])
  >>> found = classify(data, x, 2, jax.random.key(0), levels)
  >>> found.label.tolist(), found.evaluations
  ([1, 0], 6)
  """
  times = jnp.asarray(times)
  if num_classes < 2 or times.ndim != 1 or not times.size:
    raise ValueError(
      f"classify needs two classes or more and a list of times, got {num_classes} and times of shape "
      f"{list(times.shape)}"
    )
  counts = [(0, num_classes), *rounds, (times.size, 1)]
  grows, shrinks = zip(*counts[:-1])
  if any(b <= a for a, b in zip(grows, (*grows[1:], times.size))) or any(
    b >= a or b < 2 for a, b in itertools.pairwise(shrinks)
  ):
    raise ValueError(
      f"rounds={rounds}: each is (draws so far, classes kept), with more draws than the one before and fewer "
      f"than {times.size}, "
      f"and fewer classes than the one before ({num_classes} at first) and two at least"
    )
  keys = key if jnp.ndim(key) else jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(x.shape[0]))
  if keys.shape != x.shape[:1]:
    raise ValueError(
      f"classify takes one key for all or one an example, got {list(keys.shape)} of them for {x.shape[0]} "
      "examples"
    )
  factor = jnp.ones_like(times) if weight is None else weight(denoiser.process, times)
  labels = jnp.broadcast_to(jnp.arange(num_classes)[None], (x.shape[0], num_classes))
  errors = jnp.zeros(labels.shape, at_least_single(x.dtype))
  final, evaluations = errors, 0
  for (first, kept), (last, _) in itertools.pairwise(counts):
    if kept < labels.shape[1]:
      best = jnp.argsort(errors, axis=1)[:, :kept]
      labels, errors = (jnp.take_along_axis(part, best, axis=1) for part in (labels, errors))
    part = slice(first, last)
    errors = errors + _errors(denoiser, x, times[part], factor[part], keys, labels, jnp.arange(first, last))
    final = jnp.put_along_axis(final, labels, errors, axis=1, inplace=False)
    evaluations += (last - first) * kept
  here = jnp.put_along_axis(
    jnp.zeros(final.shape, bool), labels, jnp.ones(labels.shape, bool), axis=1, inplace=False
  )
  return Classified(jax.nn.log_softmax(jnp.where(here, -0.5 * final, -jnp.inf), axis=1), evaluations, final)


def strata(process: GaussianProcess, draws: int, low: float = 0.2, high: float = 2.0) -> np.ndarray:
  """Noise times for `classify`, in an order whose beginnings cover the range.

  They are the middles of strata of equal length in log(sigma/alpha). The default range is where classes of
  data of unit size differ: with less noise every class is right, with more none knows.

  Args:
    process: the Gaussian process.
    draws: how many.
    low, high: sigma/alpha at the ends of the range.

  Returns:
    [draws] float64 times.

  Raises:
    ValueError: no draw, or a range that does not lie within the process.

  >>> from diffusion import processes
  >>> strata(processes.edm(), 3, 1.0, 8.0).round(3).tolist()
  [1.414, 5.657, 2.828]
  """
  ends = [float(process.marginal(float(t)).noise_to_signal) for t in (process.t_min, process.t_max)]
  if draws < 1 or not ends[0] * (1 - 1e-6) <= low < high <= ends[1] * (1 + 1e-6):
    raise ValueError(
      f"strata need a draw or more and noise levels low < high of the process, {ends[0]:g} to {ends[1]:g}; "
      f"got {draws} draws from {low} to {high}"
    )
  places = (np.arange(draws) + 0.5) / draws
  # The order of a van der Corput sequence: bits of the number reversed.
  bits = max((draws - 1).bit_length(), 1)
  order = sorted(range(draws), key=lambda i: int(f"{i:0{bits}b}"[::-1], 2))
  return np.asarray(process.t_of_log_snr(-2.0 * (np.log(low) + np.log(high / low) * places[order])))


@jax.jit
def _errors(denoiser, x, times, factor, keys, labels, numbers):
  """Weighted squared errors summed over draws: [B, C] of labels [B, C].

  Draw n of the whole has its noise whatever the round.
  """

  def draw(total, row):
    number, time, w = row
    eps = jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, number), x.shape[1:], x.dtype))(keys)
    t = jnp.full(x.shape[0], time, x.dtype)
    x_t = denoiser.process.corrupt(x, eps, t)

    def error(label):
      found = denoiser(x_t, t, {"label": label}, views=("eps",)).eps
      return sum_rows(jnp.square(found - eps))

    return total + w.astype(total.dtype) * jax.lax.map(error, labels.T).T, None

  start = (
    jnp.zeros_like(labels, at_least_single(x.dtype)) + jnp.zeros_like(sum_rows(x))[:, None]
  )  # which inside a shard_map varies as x does
  return jax.lax.scan(draw, start, (numbers, times, factor))[0]
