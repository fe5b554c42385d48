"""A guidance weight that acts between two noise levels, and the extrapolation that it is the weight of."""

from typing import Any

import jax
import jax.numpy as jnp

from diffusion.denoisers import Prediction
from diffusion.processes.base import expand
from diffusion.processes.views import VARIANCE_FRACTION


def check_interval(interval: tuple[float, float] | None) -> tuple[float, float]:
  """The noise levels (low, high) of an interval, or of all for None.

  Raises ValueError for an empty one.
  """
  low, high = (0.0, float("inf")) if interval is None else interval
  if not low < high:
    raise ValueError(f"interval ({low}, {high}) is empty: give (low, high) noise levels with low < high")
  return low, high


def active_weight(process: Any, t: jax.Array, weight: Any, low: Any, high: Any) -> jax.Array:
  """The weight [B] where the noise level of t [B], `process.level`, lies between low and high, else 0."""
  level = process.level(t)
  return jnp.where((level >= low) & (level <= high), jnp.asarray(weight, t.dtype), jnp.zeros_like(t))


def difference(one: jax.Array, other: jax.Array) -> jax.Array:
  """one - other, finite also of log-probabilities that are -inf: those count as the least that a float holds.

  >>> difference(jnp.array([-jnp.inf, -1.0]), jnp.array([-jnp.inf, -2.0])).tolist()
  [0.0, 1.0]
  """
  least = lambda value: jnp.where(jnp.isneginf(value), jnp.log(jnp.finfo(value.dtype).tiny), value)
  return least(one) - least(other)


def extrapolated(
  towards: Prediction, away: Prediction, weight: jax.Array, channels: int | None = None
) -> Prediction:
  """towards + weight (towards - away) of two predictions, for a weight [B].

  Every view of a Gaussian process is linear in x0 at fixed x_t with factors that add to one, so that the
  rule is the same for all. Of logits it multiplies the odds, and what is impossible in `towards`
  stays so; probabilities are not linear in them, so ask a guided model for logits. A learned variance is not
  linear in x0 and is that of `towards`, as its authors' guidance has it. So are all channels, along the last
  axis, but the first `channels` of them.
  """

  def guide(towards, away):
    w = expand(weight, towards).astype(towards.dtype)
    gap = jnp.where(jnp.isneginf(towards), 0.0, difference(towards, away))
    if channels is not None:
      guided = jnp.arange(gap.shape[-1]) < channels
      gap = jnp.where(guided.reshape((1,) * (gap.ndim - 1) + (-1,)), gap, jnp.zeros_like(gap))
    return towards + w * gap

  moved = lambda views: {name: view for name, view in views.items() if name != VARIANCE_FRACTION}
  return towards.replace(**jax.tree.map(guide, moved(towards.views), moved(away.views)))
