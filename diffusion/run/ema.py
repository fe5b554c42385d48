"""Exponential moving averages of the parameters, by half-life in images.

Half-lives in images mean the same whatever the batch size: after `half_life` images a weight's
share in the average has halved (arXiv:2206.00364, appendix F.2).
"""

import math
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp

from diffusion.config.errors import UserError


def half_lives(images: float | Iterable[float]) -> dict[str, float]:
  """Names of the averages: one number or several, in images; 0 follows the parameters themselves.

  >>> half_lives((500_000, 5e5 / 2))
  {'500000': 500000.0, '250000': 250000.0}
  """
  numbers = images if isinstance(images, Iterable) and not isinstance(images, str) else (images,)
  try:
    found = {f"{float(number):.10g}": float(number) for number in numbers}
  except (TypeError, ValueError):
    raise UserError(
      f"config.training.ema_half_life_images={images!r}: give one number of images, or several as (1e5, 1e6)"
    ) from None
  if any(number < 0 or not math.isfinite(number) for number in found.values()):
    raise UserError(
      f"config.training.ema_half_life_images={images}: half-lives are finite numbers of images, 0 or more"
    )
  return found


def average_name(config: Any, asked: str | None = None) -> str | None:
  """Which average of the model is meant; None for the parameters themselves.

  Args:
    config: of the run.
    asked: half-life in images, as text; None takes the first of the config, if it has one, and '0' or 'none'
      the parameters (unless there is an average '0').

  Raises UserError for an average that the run does not keep.

  >>> average_name(dict(training=dict(ema_half_life_images=(64, 500))), "500")
  '500'
  """
  names = list(half_lives(config["training"].get("ema_half_life_images", ())))
  if asked is None:
    return names[0] if names else None
  if asked in names:
    return asked
  if asked in ("0", "none"):
    return None
  raise UserError(f"this run has no average of half-life {asked} images; it has {', '.join(names) or 'none'}")


def rate(half_life: float, step: jax.Array, batch_size: int, ramp: float | None = None) -> jax.Array:
  """1 - 2^(-batch / half-life), the share of the new parameters in the average.

  Args:
    half_life: in images.
    step: [] int, the number of updates done before this one.
    batch_size: images in one update.
    ramp: if given, the half-life is at most `ramp` times the images seen so far, so that a short run
      does not average in its random start (EDM trains with 0.05).

  >>> print(f"{rate(256.0, jnp.int32(9), 256):.3f}")
  0.500
  """
  if half_life == 0:
    return jnp.ones((), jnp.float32)
  lifetime = jnp.float32(half_life)
  if ramp is not None:
    seen = step.astype(jnp.float32) * float(batch_size)
    lifetime = jnp.minimum(lifetime, jnp.maximum(seen * float(ramp), 1e-8))
  return -jnp.expm1(-math.log(2.0) * float(batch_size) / lifetime)


def update(average: Any, params: Any, share: jax.Array) -> Any:
  """average + share * (params - average), leaf by leaf, in the average's precision."""
  return jax.tree.map(
    lambda old, new: old + share.astype(old.dtype) * (new.astype(old.dtype) - old), average, params
  )
