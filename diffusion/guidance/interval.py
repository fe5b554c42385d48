"""A guidance weight that acts between two noise levels, and the extrapolation that it is the weight of."""

from typing import Any

import jax
import jax.numpy as jnp

from diffusion.denoisers import Prediction
from diffusion.processes.base import expand


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


def extrapolated(towards: Prediction, away: Prediction, weight: jax.Array) -> Prediction:
  """towards + weight (towards - away) of two predictions, for a weight [B].

  Every view of a Gaussian process is linear in x0 at fixed x_t with factors that add to one, so that the
  rule is the same for all. Of logits it multiplies the odds, and what is impossible in `towards`
  stays so; probabilities are not linear in them, so ask a guided model for logits.
  """

  def guide(towards, away):
    w = expand(weight, towards).astype(towards.dtype)
    never = jnp.isneginf(towards)
    # What is impossible in `away` alone is as good as that, not infinitely preferred.
    away = jnp.where(jnp.isneginf(away), jnp.log(jnp.finfo(away.dtype).tiny), away)
    gap = jnp.where(never, 0.0, towards) - jnp.where(never, 0.0, away)
    return towards + w * gap

  return towards.replace(**jax.tree.map(guide, towards.views, away.views))
