"""How fast whole numbers are noised: the probability that a coordinate still has its own value."""

from typing import Any, Protocol

import numpy as np
from flax import struct

from diffusion.processes.base import array_namespace


@struct.dataclass
class Keep:
  """The probability alpha that a coordinate was not touched up to some times: each field is shaped like t.

  Attributes:
    alpha: kept.
    noised: 1 - alpha, to all of its digits where it is small.
    d_alpha: time derivative of alpha, not positive.
  """

  alpha: Any
  noised: Any
  d_alpha: Any


class KeepSchedule(Protocol):
  """What a schedule of a discrete process offers; both functions keep the shape of their argument."""

  def __call__(self, t: Any) -> Keep:
    """alpha, 1 - alpha and the time derivative at times t in [0, 1]."""
    ...

  def t_of_noised(self, noised: Any) -> Any:
    """The time at which 1 - alpha has this value, the exact inverse of the schedule."""
    ...


@struct.dataclass
class LinearKeep:
  """alpha = 1 - t: t is the probability to be noised."""

  def __call__(self, t: Any) -> Keep:
    """See `KeepSchedule`."""
    return Keep(1.0 - t, 1.0 * t, -array_namespace(t).ones_like(t))

  def t_of_noised(self, noised: Any) -> Any:
    """See `KeepSchedule`."""
    return 1.0 * noised


@struct.dataclass
class CosineKeep:
  """1 - alpha = sin(pi t / 2)."""

  def __call__(self, t: Any) -> Keep:
    """See `KeepSchedule`."""
    xp, quarter = array_namespace(t), 0.5 * np.pi
    # 1 - cos of the remaining angle, written as a square: exactly 0 at t = 1.
    alpha = 2.0 * xp.sin(0.5 * quarter * (1.0 - t)) ** 2
    return Keep(alpha, xp.sin(quarter * t), -quarter * xp.sin(quarter * (1.0 - t)))

  def t_of_noised(self, noised: Any) -> Any:
    """See `KeepSchedule`."""
    return 2.0 / np.pi * array_namespace(noised).arcsin(noised)


@struct.dataclass
class PolynomialKeep:
  """alpha = (1 - t)^power."""

  power: Any

  def __call__(self, t: Any) -> Keep:
    """See `KeepSchedule`."""
    xp, power = array_namespace(t), _like(self.power, t)
    with np.errstate(divide="ignore"):
      noised = -xp.expm1(power * xp.log1p(-t))
    return Keep((1.0 - t) ** power, noised, -power * (1.0 - t) ** (power - 1.0))

  def t_of_noised(self, noised: Any) -> Any:
    """See `KeepSchedule`."""
    xp = array_namespace(noised)
    with np.errstate(divide="ignore"):
      return -xp.expm1(xp.log1p(-noised) / _like(self.power, noised))


@struct.dataclass
class LogLinearKeep:
  """alpha = 1 - (1 - rest) t: -log alpha is finite up to t = 1."""

  rest: Any

  def __call__(self, t: Any) -> Keep:
    """See `KeepSchedule`."""
    slope = 1.0 - _like(self.rest, t)
    return Keep(1.0 - slope * t, slope * t, -slope * array_namespace(t).ones_like(t))

  def t_of_noised(self, noised: Any) -> Any:
    """See `KeepSchedule`."""
    return noised / (1.0 - _like(self.rest, noised))


@struct.dataclass
class SlowedKeep:
  """alpha to a power: the clock of jumps at `weight` times the rates of another."""

  inner: Any
  weight: Any

  def __call__(self, t: Any) -> Keep:
    """See `KeepSchedule`."""
    keep, weight = self.inner(t), _like(self.weight, t)
    xp = array_namespace(t)
    with np.errstate(divide="ignore", invalid="ignore"):
      return Keep(
        keep.alpha**weight,
        -xp.expm1(weight * xp.log1p(-keep.noised)),
        weight * keep.alpha ** (weight - 1.0) * keep.d_alpha,
      )

  def t_of_noised(self, noised: Any) -> Any:
    """See `KeepSchedule`."""
    xp = array_namespace(noised)
    with np.errstate(divide="ignore"):
      return self.inner.t_of_noised(-xp.expm1(xp.log1p(-noised) / _like(self.weight, noised)))


@struct.dataclass
class LadderKeep:
  """alpha of given steps k = 0..T at t = k / T, linear in t between them.

  Attributes:
    alpha, noised: alpha and 1 - alpha at the steps: [T + 1].
  """

  alpha: Any
  noised: Any

  def __call__(self, t: Any) -> Keep:
    """See `KeepSchedule`."""
    xp = array_namespace(t)
    alpha, noised = xp.asarray(self.alpha, t.dtype), xp.asarray(self.noised, t.dtype)
    steps = noised.shape[0] - 1
    nearest = xp.round(t * steps)
    at = xp.where(xp.abs(t * steps - nearest) < 1e-4, nearest, t * steps)
    cell = xp.clip(xp.floor(at), 0, steps - 1).astype(np.int32)
    share = at - cell.astype(t.dtype)
    between = lambda value: value[cell] + share * (value[cell + 1] - value[cell])
    return Keep(between(alpha), between(noised), -steps * (noised[cell + 1] - noised[cell]))

  def t_of_noised(self, noised: Any) -> Any:
    """See `KeepSchedule`."""
    xp = array_namespace(noised)
    table = xp.asarray(self.noised, noised.dtype)
    return xp.interp(noised, table, xp.linspace(0.0, 1.0, table.shape[0]).astype(noised.dtype))


def linear_keep() -> LinearKeep:
  """The linear schedule alpha(t) = 1 - t, under which each time noises as many coordinates.

  Sources: arXiv:2107.03006; arXiv:2406.04329.

  >>> float(linear_keep()(np.float64(0.25)).alpha)
  0.75
  """
  return LinearKeep()


def cosine_keep() -> CosineKeep:
  """The cosine schedule alpha(t) = 1 - sin(pi t / 2).

  Sampling in equal steps noises fast near the data and takes out few masks at first
  (arXiv:2406.04329, table 1; 2202.04200).

  >>> round(float(cosine_keep()(np.float64(1 / 3)).noised), 12)
  0.5
  """
  return CosineKeep()


def polynomial_keep(power: float) -> PolynomialKeep:
  """alpha(t) = (1 - t)^power: the scheduler kappa = s^power of discrete flow matching, whose time s is 1 - t.

  Source: arXiv:2407.15595, section 3.1 (cubic: power 3). Raises ValueError for a power that is not positive.

  >>> float(polynomial_keep(2.0)(np.float64(0.5)).alpha)
  0.25
  """
  if not power > 0:
    raise ValueError(f"polynomial_keep takes a power above 0, got {power}: 1 is linear_keep")
  return PolynomialKeep(float(power))


def log_linear_keep(rest: float = 1e-3) -> LogLinearKeep:
  """alpha(t) = 1 - (1 - rest) t, under which a share `rest` is kept at t = 1 and rates stay bounded.

  Source: arXiv:2310.16834, section 5.1 (log-linear noise). Raises ValueError unless 0 < rest < 1.

  >>> round(float(log_linear_keep(0.1)(np.float64(1.0)).alpha), 12)
  0.1
  """
  if not 0.0 < rest < 1.0:
    raise ValueError(f"log_linear_keep leaves a share between 0 and 1 at t = 1, got {rest}: 1e-3 is usual")
  return LogLinearKeep(float(rest))


def slowed_keep(inner: KeepSchedule, weight: float) -> SlowedKeep:
  """alpha^weight of another schedule: jumps at `weight` times its rates.

  Raises ValueError for a weight that is not positive.

  >>> float(slowed_keep(linear_keep(), 2.0)(np.float64(0.5)).alpha)
  0.25
  """
  if not weight > 0:
    raise ValueError(f"slowed_keep takes a weight above 0 for the rates, got {weight}")
  return SlowedKeep(inner, float(weight))


def ladder_keep(betas: Any) -> LadderKeep:
  """alpha_k = (1 - beta_1) ... (1 - beta_k) at t = k / T for given steps beta_1..beta_T (arXiv:2107.03006).

  Raises ValueError for betas outside of (0, 1], or a last alpha that is reached before the last step.

  >>> ladder_keep([0.5, 0.5])(np.float64(0.5)).noised.item()
  0.5
  """
  betas = np.asarray(betas, np.float64)
  if betas.ndim != 1 or not betas.size or not np.all((betas > 0) & (betas <= 1)) or np.any(betas[:-1] == 1):
    raise ValueError(
      f"a ladder takes betas [T] in (0, 1), the last up to 1, got {betas.reshape(-1)[:8].tolist()}"
    )
  with np.errstate(divide="ignore"):
    log_alpha = np.concatenate([[0.0], np.cumsum(np.log1p(-betas))])
  return LadderKeep(np.exp(log_alpha), -np.expm1(log_alpha))


def _like(number: Any, t: Any) -> Any:
  """A number of a schedule in the precision of the times."""
  return array_namespace(t).asarray(number, t.dtype)
