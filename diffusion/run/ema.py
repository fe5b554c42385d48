"""Exponential moving averages of the parameters: each is a share of the new ones as a function of the step.

By half-life in images, which means the same whatever the batch size: after `half_life` images a weight's
share in the average has halved (arXiv:2206.00364, appendix F.2). Or by a power function of the step, whose
length is a fixed share of the training so far (arXiv:2312.02696, equation 127): of these, stored at several
steps, any other length can be made afterwards (`run.posthoc`).
"""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from diffusion.config.errors import UserError
from diffusion.run import posthoc

Share = Callable[[jax.Array, int], jax.Array]
"""([] int: the updates done before this one, images in one update) -> [] the share of the new parameters."""

SIGMA_REL = (0.05, 0.10)
"""Relative lengths of the two averages that others are made of, as in arXiv:2312.02696."""


def averages(training: Mapping[str, Any]) -> dict[str, Share]:
  """{name: share} of the averages of the model that config.training asks for, those by half-life first.

  Raises UserError for what is no half-life or no relative length, and for two averages of one name.

  >>> list(averages(dict(ema_half_life_images=(500, 2000), ema_snapshot_every=1000)))
  ['500', '2000', '0.05', '0.1']
  """
  images, sigmas = half_lives(training.get("ema_half_life_images", ())), lengths(training)
  for name in images.keys() & sigmas:
    raise UserError(
      f"config.training.ema_half_life_images and ema_sigma_rel both make an average '{name}': leave one out"
    )
  ramp = training.get("ema_ramp")
  return {name: _by_half_life(one, ramp) for name, one in images.items()} | {
    name: _by_power(posthoc.power_gamma(one)) for name, one in sigmas.items()
  }


def _by_half_life(half_life, ramp):
  return lambda step, images: rate(half_life, step, images, ramp)


def _by_power(gamma):
  return lambda step, images: power_rate(gamma, step)


def half_lives(images: float | Iterable[float]) -> dict[str, float]:
  """Names of the averages: one number or several, in images; 0 follows the parameters themselves.

  >>> half_lives((500_000, 5e5 / 2))
  {'500000': 500000.0, '250000': 250000.0}
  """
  found = _numbers(images)
  if found is None:
    raise UserError(
      f"config.training.ema_half_life_images={images!r}: give one number of images, or several as (1e5, 1e6)"
    )
  if any(number < 0 or not math.isfinite(number) for number in found.values()):
    raise UserError(
      f"config.training.ema_half_life_images={images}: half-lives are finite numbers of images, 0 or more"
    )
  return found


def lengths(training: Mapping[str, Any]) -> dict[str, float]:
  """{name: relative length} of the averages by power functions that config.training asks for.

  They are those of `ema_sigma_rel`; without it `SIGMA_REL` where snapshots are kept, else none.

  Raises UserError for what is no relative length, for snapshots of no average, and for an interval between
  them that is no number of steps.

  >>> lengths(dict(ema_sigma_rel=0.15)), lengths(dict(ema_snapshot_every=1000)), lengths({})
  ({'0.15': 0.15}, {'0.05': 0.05, '0.1': 0.1}, {})
  """
  every, given = training.get("ema_snapshot_every"), training.get("ema_sigma_rel")
  if every is not None and (not isinstance(every, int) or every < 1):
    raise UserError(
      f"config.training.ema_snapshot_every={every!r}: the steps between two snapshots of the averages are a "
      "whole number, 1 or more, or None for no snapshots"
    )
  if given is None:
    given = () if every is None else SIGMA_REL
  found = _numbers(given)
  if found is None:
    raise UserError(
      f"config.training.ema_sigma_rel={given!r}: give one relative length, or several as (0.05, 0.1)"
    )
  if every is not None and not found:
    raise UserError(
      f"config.training.ema_snapshot_every={every} keeps snapshots of averages by power functions, and "
      "ema_sigma_rel names none: name some, such as (0.05, 0.1), or leave both out"
    )
  for one in found.values():
    try:
      posthoc.power_gamma(one)
    except ValueError as error:
      raise UserError(f"config.training.ema_sigma_rel={given}: {error}") from error
  return found


def _numbers(given):
  """{text: number} of one number or several; None for what is neither."""
  numbers = given if isinstance(given, Iterable) and not isinstance(given, str) else (given,)
  try:
    return {_text(number): float(number) for number in numbers}
  except (TypeError, ValueError):
    return None


def _text(number):
  return f"{float(number):.10g}"


def average_name(config: Any, asked: str | None = None) -> str | None:
  """Which average of the model is meant; None for the parameters themselves.

  Args:
    config: of the run.
    asked: half-life in images or relative length, as text; None takes the first of the config, if it has one,
      and '0' or 'none' the parameters (unless there is an average '0').

  Returns the name of an average that the run keeps, or a relative length, as text, that is to be made of its
  snapshots. Raises UserError for what is neither.

  >>> average_name(dict(training=dict(ema_half_life_images=(64, 500))), "500")
  '500'
  >>> average_name(dict(training=dict(ema_snapshot_every=100)), "0.150")
  '0.15'
  """
  training = config["training"]
  names = list(averages(training))
  if asked is None:
    return names[0] if names else None
  if asked in names:
    return asked
  if asked in ("0", "none"):
    return None
  has = f"it has {', '.join(names) or 'none'}"
  numbers = _numbers(asked)
  if numbers is None or not 0 < next(iter(numbers.values())) < 1:
    raise UserError(f"this run has no average of half-life {asked} images; {has}")
  ((name, length),) = numbers.items()
  if name in names:
    return name
  if training.get("ema_snapshot_every") is None:
    raise UserError(
      f"this run has no average of relative length {asked} and keeps no snapshots to make it of "
      f"(config.training.ema_snapshot_every); {has}"
    )
  try:
    posthoc.power_gamma(length)
  except ValueError as error:
    raise UserError(f"{error}; of those it keeps, {has}") from error
  return name


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


def power_rate(gamma: float, step: jax.Array) -> jax.Array:
  """1 - (1 - 1/t)^(gamma + 1), the share of the new parameters in the average by a power, t the new step.

  arXiv:2312.02696, equation 127. It is 1 at the first step, so that the random start leaves no trace.

  Args:
    gamma: the power, see `posthoc.power_gamma`.
    step: [] int, the number of updates done before this one: t - 1.

  >>> [round(float(power_rate(1.0, jnp.int32(step))), 6) for step in (0, 1, 9)]
  [1.0, 0.75, 0.19]
  """
  t = step.astype(jnp.float32) + 1.0
  return -jnp.expm1((float(gamma) + 1.0) * jnp.log1p(-1.0 / t))


def update(average: Any, params: Any, share: jax.Array) -> Any:
  """average + share * (params - average), leaf by leaf, in the average's precision."""
  return jax.tree.map(
    lambda old, new: old + share.astype(old.dtype) * (new.astype(old.dtype) - old), average, params
  )
