"""Classifier-free guidance whose weight comes with each sample's condition.

It is what a network distilled from guidance has learned.
"""

from collections.abc import Callable
from typing import Any

import jax
from flax import struct

from diffusion.denoisers import Denoiser, Prediction, Wrapper, null_condition
from diffusion.guidance.categorical import asks, follow
from diffusion.guidance.interval import active_weight, check_interval, extrapolated


@struct.dataclass
class ByCondition(Wrapper):
  """A denoiser whose condition has a weight 'guidance' [B] beside the rest; see `by_condition`."""

  inner: Any
  low: Any
  high: Any

  @property
  def needs_unconditional(self) -> bool:
    """Yes: it moves away from no condition at all."""
    return True

  @property
  def own_conditions(self) -> tuple[str, ...]:
    """'guidance', the weight, and those of the inner denoiser."""
    return tuple(dict.fromkeys(("guidance", *self.inner.own_conditions)))

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
    """The guided prediction of each sample at its own weight.

    As of a denoiser: x: [B, ...], t: [B] and a condition with 'guidance' [B] give a `Prediction` with the
    views asked for.

    Raises:
      ValueError: no weight in the condition, or nothing else in it to guide towards.
    """
    rest = {name: leaf for name, leaf in (cond or {}).items() if name != "guidance"}
    if not jax.tree.leaves(rest):
      raise ValueError(
        f"guidance without a conditional model: the condition has {sorted(cond or {})}; train one with "
        "classes (and"
        " losses.condition_dropout) and give cond={'label': labels, 'guidance': weights}, or leave guidance "
        "out"
      )
    if "guidance" not in cond:
      raise ValueError(
        f"the weight of this guidance is part of the condition, which has {sorted(cond)}: add 'guidance' "
        "[B], or give one weight for"
        " all with guidance.classifier_free(w)"
      )
    asked = asks(self.inner, views)
    call = lambda cond: self.inner(x, t, cond, views=asked, key=key, train=train)
    weight = active_weight(self.process, t, cond["guidance"], self.low, self.high)
    return follow(self.inner, extrapolated(call(rest), call(null_condition(rest)), weight), x, t, views)


def by_condition(interval: tuple[float, float] | None = None) -> Callable[[Denoiser], ByCondition]:
  """Classifier-free guidance with each sample's own weight.

  It is (1 + w) conditional - w unconditional with w = cond['guidance'] [B] (arXiv:2210.03142, eq. 3).

  The same call as a network that was distilled from guidance, at two evaluations in place of one: such a
  network's teacher in `losses.distillation`, and its measure afterwards.

  Args:
    interval: (low, high) noise levels sigma/alpha between which to guide, or None for all.

  Returns:
    A function from a conditional denoiser to one that takes 'guidance' in its condition too.

  Raises:
    ValueError: an interval that is not low < high.

  >>> import jax.numpy as jnp
  >>> from diffusion import guidance, oracles, processes
  >>> oracle = oracles.gaussian_mixture(processes.edm(), None, [[-1.0], [1.0]], 1e-6, labels=[0, 1])
  >>> guided = guidance.by_condition()(oracle)
  >>> cond = {"label": jnp.ones(3, jnp.int32), "guidance": jnp.array([0.0, 1.0, 4.0])}
  >>> guided(jnp.zeros((3, 1)), jnp.ones(3), cond).x0[:, 0].round(3).tolist()
  [1.0, 2.0, 5.0]
  """
  low, high = check_interval(interval)
  return lambda denoiser: ByCondition(denoiser, low, high)
