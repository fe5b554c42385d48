"""Autoguidance: away from a worse version of the same model."""

from collections.abc import Callable
from typing import Any, Self

import jax
from flax import struct

from diffusion.denoisers import Denoiser, Prediction, Wrapper
from diffusion.guidance.categorical import asks, follow
from diffusion.guidance.interval import active_weight, check_interval, extrapolated
from diffusion.processes.comparison import difference


@struct.dataclass
class Autoguidance(Wrapper):
  """A denoiser that moves away from a worse one; see `autoguidance`."""

  inner: Any
  worse: Any
  weight: Any
  low: Any
  high: Any

  @property
  def params(self) -> dict[str, Any]:
    """{'good': parameters of the model, 'worse': of the worse one}."""
    return {"good": self.inner.params, "worse": self.worse.params}

  @property
  def collections(self) -> dict[str, Any]:
    """Mutable collections of both, likewise; {} where neither has any."""
    both = {"good": self.inner.collections, "worse": self.worse.collections}
    return both if jax.tree.leaves(both) else {}

  @property
  def cost(self) -> int:
    """Network evaluations of one call: those of both."""
    return self.inner.cost + self.worse.cost

  @property
  def needs_signal(self) -> bool:
    """Whether one of them says nothing of x0 where alpha = 0."""
    return self.inner.needs_signal or self.worse.needs_signal

  @property
  def needs_unconditional(self) -> bool:
    """Whether one of them asks its network without a condition."""
    return self.inner.needs_unconditional or self.worse.needs_unconditional

  @property
  def own_conditions(self) -> tuple[str, ...]:
    """Conditions that one of them takes itself."""
    return tuple(dict.fromkeys((*self.inner.own_conditions, *self.worse.own_conditions)))

  def with_params(self, params: Any, collections: Any = None) -> Self:
    """The same with other parameters of both."""
    collections = collections or {}
    inner, worse = (
      one.with_params(params[name], collections.get(name))
      for name, one in (("good", self.inner), ("worse", self.worse))
    )
    return self.replace(inner=inner, worse=worse)  # pyright: ignore[reportAttributeAccessIssue] (of struct.dataclass)

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
    """As a denoiser: both models see the same x, t and condition."""
    asked = asks(self.inner, views)
    good, worse = (model(x, t, cond, views=asked, key=key, train=train) for model in (self.inner, self.worse))
    weight = active_weight(self.process, t, self.weight, self.low, self.high)
    guided = follow(self.inner, extrapolated(good, worse, weight), x, t, views)
    return (
      guided.replace(collections={"good": good.collections, "worse": worse.collections}) if train else guided
    )


def autoguidance(
  worse: Denoiser, weight: Any, interval: tuple[float, float] | None = None
) -> Callable[[Denoiser], Autoguidance]:
  """Autoguidance: (1 + w) good - w worse, with the same condition for both.

  This is arXiv:2406.02507, eq. 4, with its w one larger; on a discrete process it acts on log-probabilities.
  The worse model is smaller or less trained: what both do wrong in the same direction is undone, and the
  class does not lose its variety as it does under classifier-free guidance. Each call costs one evaluation of
  each; both count as one evaluation.

  Args:
    worse: a denoiser on the same process.
    weight: w, a number or one a sample, [B]; 0 changes nothing.
    interval: (low, high) noise levels sigma/alpha between which to guide, or None for all.

  Raises:
    ValueError: an empty interval, or two processes.

  >>> import jax.numpy as jnp
  >>> from diffusion import guidance, oracles, processes
  >>> good, worse = (oracles.gaussian(processes.edm(), [mean], [1.0]) for mean in (1.0, 0.5))
  >>> guided = guidance.autoguidance(worse, 1.0)(good)     # 2 * good - worse: the mean 1.5
  >>> float(guided(jnp.full((1, 1), 1.5), jnp.ones(1)).x0[0, 0])
  1.5
  """
  low, high = check_interval(interval)

  def apply(denoiser):
    wrong = difference(denoiser.process, worse.process)
    if wrong:
      raise ValueError(f"the two models of autoguidance must share a process, noise for noise: {wrong}")
    return Autoguidance(denoiser, worse, weight, low, high)

  return apply
