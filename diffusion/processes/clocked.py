"""Discrete processes with one clock: the probability alpha that a coordinate was not touched.

Their jump rates are -alpha'/alpha times one matrix, so that noise depends on alpha_t / alpha_s alone.
"""

from typing import Any

import numpy as np

from diffusion.processes.base import array_namespace, as_times
from diffusion.processes.contract import Rate
from diffusion.processes.discrete import CoordinateNoise
from diffusion.processes.keeping import Keep, KeepSchedule


class Clocked(CoordinateNoise):
  """The base of such processes. A subclass has `schedule` and `structure`."""

  schedule: KeepSchedule

  def clock(self, t: Any) -> Keep:
    """alpha, 1 - alpha and the time derivative of alpha, each shaped like t."""
    return self.schedule(as_times(t))

  def rates(self, t: Any) -> dict[str, Rate]:
    """alpha and 1 - alpha with their time derivatives."""
    keep = self.clock(t)
    return {"alpha": Rate(keep.alpha, keep.d_alpha), "noised": Rate(keep.noised, -keep.d_alpha)}

  def level(self, t: Any) -> Any:
    """The probability 1 - alpha that a coordinate was drawn anew, increasing in t."""
    return self.clock(t).noised

  def t_of_level(self, level: Any) -> Any:
    """The time at which 1 - alpha has this value."""
    return self.schedule.t_of_noised(as_times(level))

  def between(self, s: Any, t: Any) -> tuple[Any, Any]:
    """(kept, drawn anew) between s and t: alpha_t / alpha_s and 1 less it, shaped as s and t together.

    s is None for the data. The second keeps its digits where it is small.
    """
    later = self.clock(t)
    if s is None:
      return later.alpha, later.noised
    earlier = self.clock(s)
    xp = array_namespace(later.alpha + earlier.alpha)
    some = earlier.alpha > 0
    divisor = xp.where(some, earlier.alpha, 1.0)
    return (
      xp.where(some, later.alpha / divisor, 1.0),
      xp.where(some, (later.noised - earlier.noised) / divisor, 0.0),
    )

  def structure(self, size: int | None = None) -> np.ndarray:
    """The jump rates for a unit of -log alpha: [S, S] in float64 on the host."""
    raise TypeError(f"{type(self).__name__} does not say how it jumps: write `structure`")
