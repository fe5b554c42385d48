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
