"""Classifier-free guidance, optionally in an interval of noise levels."""

from collections.abc import Callable
from typing import Any

import jax
from flax import struct

from diffusion.denoisers import Denoiser, Prediction, Wrapper, null_condition
from diffusion.guidance.categorical import asks, follow
from diffusion.guidance.interval import active_weight, check_interval, extrapolated
from diffusion.guidance.rows import as_rows


@struct.dataclass
class ClassifierFree(Wrapper):
  """A denoiser that moves the conditional prediction away from the unconditional one.

  Attributes:
    inner: the conditional denoiser; it must have seen null conditions in training.
    weight: w in (1 + w) conditional - w unconditional; a scalar or one a sample, [B].
    low, high: noise levels sigma/alpha between which w acts; elsewhere it is 0.
    negative: the condition to move away from; None for no condition at all.
  """

  inner: Any
  weight: Any
  low: Any
  high: Any
  negative: Any = None

  @property
  def needs_unconditional(self) -> bool:
    """Whether it moves away from no condition at all, or the inner denoiser asks without one."""
    return self.negative is None or self.inner.needs_unconditional

  @property
  def cost(self) -> int:
    """Network evaluations of one call: the inner denoiser's, twice."""
    return 2 * self.inner.cost

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
    """As a denoiser: x: [B, ...], t: [B] and a condition give a `Prediction` with the views asked for.

    Raises:
      ValueError: there is no condition to guide towards.
    """
    if cond is None or not jax.tree.leaves(cond):
      raise ValueError(
        "classifier-free guidance needs a condition and got none: pass cond={'label': labels} to a"
        " conditional model, or leave guidance out"
      )
    asked = asks(self.inner, views)
    call = lambda cond: self.inner(x, t, cond, views=asked, key=key, train=train)
    away = null_condition(cond) if self.negative is None else as_rows(self.negative, t.shape[0])
    weight = active_weight(self.process, t, self.weight, self.low, self.high)
    return follow(self.inner, extrapolated(call(cond), call(away), weight), x, t, views)


def classifier_free(
  weight: Any, interval: tuple[float, float] | None = None, negative: Any = None
) -> Callable[[Denoiser], ClassifierFree]:
  """Classifier-free guidance: (1 + w) conditional - w unconditional (arXiv:2207.12598, eq. 6).

  w = 0 is the conditional model and w = -1 the unconditional one; the other convention in use,
  unconditional + s (conditional - unconditional), is s = 1 + w. Each call costs two network evaluations.
  On a discrete process it acts on the log-probabilities of each coordinate: p^(1 + w) q^-w, normalised. The
  other views follow.

  Args:
    weight: w, a number or one a sample, [B]. Changing it does not recompile.
    interval: (low, high) noise levels sigma/alpha between which to guide (arXiv:2404.07724), or None for all.
    negative: a condition to move away from in place of none, such as {'label': 3}, for all samples or one a
      sample.

  Returns:
    A function from denoiser to guided denoiser.

  Raises:
    ValueError: an interval that is not low < high.

  >>> import jax.numpy as jnp
  >>> from diffusion import denoisers, guidance, processes
  >>> model = lambda params, x, t, cond: cond['label'][:, None].astype(x.dtype)
  >>> denoiser = denoisers.from_function(model, processes.edm(), denoisers.x0())
  >>> guided = guidance.classifier_free(0.5)(denoiser)
  >>> found = guided(jnp.zeros((1, 1)), jnp.ones(1), {'label': jnp.array([3])})
  >>> float(found.x0[0, 0])  # 1.5 * 3 - 0.5 * (-1)
  5.0
  """
  low, high = check_interval(interval)
  return lambda denoiser: ClassifierFree(denoiser, weight, low, high, negative)
