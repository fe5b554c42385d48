"""Classifier guidance: the gradient of a noise-conditional log-probability added to the score."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from diffusion.denoisers import Denoiser, Prediction, check_views
from diffusion.guidance.shift import GaussianWrapper, shifted
from diffusion.processes.base import expand


@struct.dataclass
class Classifier(GaussianWrapper):
  """A denoiser of p_t(x) p(y | x, t)^scale: see `classifier`.

  Attributes:
    inner: the denoiser, conditional or not.
    log_prob_params: first argument of log_prob.
    scale: factor of the gradient; a scalar or one a sample, [B].
    log_prob: (params, x, t, cond) -> [B].
  """

  inner: Any
  log_prob_params: Any
  scale: Any
  log_prob: Callable[..., Any] = struct.field(pytree_node=False)

  @property
  def needs_signal(self) -> bool:
    """Yes: it changes the score, of which x0 knows nothing where there is no signal."""
    return True

  def __call__(
    self,
    x: Any,
    t: jax.Array,
    cond: Any = None,
    *,
    views: tuple[str, ...] = ("x0", "eps"),
    key: jax.Array | None = None,
    train: bool = False,
  ) -> Prediction:
    """As a denoiser; the condition goes to the classifier and to the denoiser."""
    check_views(views, self.views)
    prediction = self.inner(x, t, cond, views=views, key=key, train=train)

    def total(x):
      value = self.log_prob(self.log_prob_params, x, t, cond)
      if jnp.shape(value) != t.shape:
        raise ValueError(
          f"log_prob returned shape {jnp.shape(value)} for {t.shape[0]} rows: it is one number per example"
        )
      return jnp.sum(value)

    scale = expand(jnp.broadcast_to(jnp.asarray(self.scale, x.dtype), t.shape), x)
    return shifted(self.process, prediction, t, "score", scale * jax.grad(total)(x))


def classifier(
  log_prob: Callable[..., jax.Array], params: Any = None, scale: Any = 1.0
) -> Callable[[Denoiser], Classifier]:
  """Classifier guidance: score + scale grad_x log p(y | x_t, t), and all other views with it.

  The score is that of arXiv:2011.13456, eq. 14; the scale is that of arXiv:2105.05233.

  With an unconditional denoiser and the exact log-probability, scale 1 gives the conditional denoiser. A
  classifier that was not trained on noised data says little at high noise levels.

  Args:
    log_prob: pure function (params, x [B, ...], t [B], cond) -> [B], the log-probability of what is asked
      for, in nats; `cond` is what the sampler passes. Build it once: a new function object recompiles.
    params: the classifier's parameters, a leaf.
    scale: a number or one a sample, [B]. Changing it does not recompile.

  Raises:
    TypeError: a log_prob that can not be called.

  >>> from diffusion import guidance, oracles, processes
  >>> prior = oracles.gaussian(processes.edm(), [0.0], [1.0])
  >>> evidence = lambda params, x, t, cond: -0.5 * jnp.sum((x - params) ** 2, axis=1)
  >>> guided = guidance.classifier(evidence, jnp.float32(2.0))(prior)
  >>> x, t = jnp.zeros((1, 1)), jnp.ones(1)
  >>> float((guided(x, t, views=("score",)).score - prior.score(x, t))[0, 0])
  2.0
  """
  if not callable(log_prob):
    raise TypeError(f"log_prob is a function (params, x, t, cond) -> [B], got {type(log_prob).__name__}")
  return lambda denoiser: Classifier(denoiser, params, scale, log_prob)
