"""A checker of processes: whether what one states of itself is true."""

from typing import Any

import jax
import numpy as np

from diffusion.processes.contract import Process

PARTS = (
  "name", "kind", "ends", "t_min", "t_max", "views", "prior", "noise", "corrupt", "targets", "views_of",
  "convert", "rates", "level", "t_of_level", "default_grid",
)  # fmt: skip
TIMES = 64


def check(process: Process, tolerance: float = 1e-4) -> None:
  """Checks what a process states against what follows from it, in float64.

  Nothing is returned where all agree.

  At 64 times inside of (t_min, t_max) each derivative of `process.rates` lies between the finite
  differences of its value to the left and to the right, the level increases, and `t_of_level` leads back; a
  Gaussian process's `t_of_log_snr` too. A grid of 8 steps starts at t_max and decreases.

  Args:
    process: your own process, or a `GaussianProcess` or `Path` around a schedule of your own.
    tolerance: relative, of derivatives and of times.

  Raises:
    TypeError: a part of the contract that is missing.
    ValueError: the first statement that is wrong: which, at what time, and the two numbers.

  >>> from diffusion import processes
  >>> processes.check(processes.vp_linear())
  >>> from flax import struct
  >>> @struct.dataclass
  ... class Wrong:
  ...   def __call__(self, t):
  ...     return processes.Keep(1.0 - t**2, t**2, -t)
  ...   def t_of_noised(self, noised):
  ...     return noised**0.5
  >>> processes.check(processes.masked(4, (2,), schedule=Wrong()))
  Traceback (most recent call last):
  ...
  ValueError: 'masked' states that alpha changes by -0.00... a unit of time at t = 0.00..., where it changes
  by -0.01...: ...
  """
  missing = [name for name in PARTS if not hasattr(process, name)]
  if missing:
    raise TypeError(
      f"{type(process).__name__} has no {', '.join(missing)}, which every process has: see processes.Process"
    )
  with jax.enable_x64(True), np.errstate(divide="ignore", invalid="ignore", over="ignore"):
    wide = jax.tree.map(_wide, process)
    low, high = float(process.t_min), float(process.t_max)
    if not low < high:
      raise ValueError(f"'{process.name}' runs from t_min = {low} to a larger t_max, got {high}")
    # Off the rungs of any ladder, and never at an end, where a slope may be infinite.
    t = low + (high - low) * (np.arange(TIMES) + 0.3819660112501051) / TIMES
    _check_rates(wide, t, 1e-6 * (high - low), tolerance)
    _check_level(wide, t, tolerance)
  grid = np.asarray(process.default_grid(8), np.float64)
  if grid.shape != (9,) or not np.all(np.diff(grid) < 0) or abs(grid[0] - high) > tolerance * high:
    raise ValueError(
      f"'{process.name}': default_grid(8) is 9 decreasing times from t_max = {high}, got {grid.tolist()}"
    )


def _check_rates(process: Any, t: np.ndarray, h: float, tolerance: float) -> None:
  here, left, right = (process.rates(times) for times in (t, t - h, t + h))
  for name, (value, slope) in here.items():
    value, slope, before, after = (
      np.broadcast_to(np.asarray(part, np.float64), t.shape)
      for part in (value, slope, left[name].value, right[name].value)
    )
    sides = np.stack([(value - before) / h, (after - value) / h])
    nearest = np.clip(slope, sides.min(0), sides.max(0))
    # Rounding of the values, 1e-16 of them over h, and what a second derivative does within h.
    allowed = tolerance * np.abs(nearest) + 1e-15 * (np.abs(value) + 1.0) / h + np.abs(sides[1] - sides[0])
    wrong = np.flatnonzero(~(np.abs(slope - nearest) <= allowed))
    if wrong.size:
      i = wrong[0]
      raise ValueError(
        f"'{process.name}' states that {name} changes by {slope[i]:.6g} a unit of time at "
        f"t = {t[i]:.6g}, where it changes by {nearest[i]:.6g}: mend the derivative "
        "of its schedule, or the value"
      )


def _check_level(process: Any, t: np.ndarray, tolerance: float) -> None:
  level = np.asarray(process.level(t), np.float64)
  falls = np.flatnonzero(~(np.diff(level) > 0))
  if falls.size:
    i = falls[0]
    raise ValueError(
      f"the level of '{process.name}' increases in t, but goes from {level[i]:.6g} at t = {t[i]:.6g} to "
      f"{level[i + 1]:.6g} at t = {t[i + 1]:.6g}: let the noise grow with time"
    )
  _check_inverse(process.name, "t_of_level", t, np.asarray(process.t_of_level(level), np.float64), tolerance)
  if process.kind == "gaussian":
    back = np.asarray(process.t_of_log_snr(process.log_snr(t)), np.float64)
    _check_inverse(process.name, "t_of_log_snr", t, back, tolerance)


def _check_inverse(name: str, inverse: str, t: np.ndarray, back: np.ndarray, tolerance: float) -> None:
  wrong = np.flatnonzero(~(np.abs(back - t) <= tolerance * (t[-1] - t[0])))
  if wrong.size:
    i = wrong[0]
    raise ValueError(
      f"{inverse} of '{name}' leads from the level at t = {t[i]:.6g} to t = {back[i]:.6g}: make it the "
      "inverse of the schedule"
    )


def _wide(leaf: Any) -> Any:
  """Numbers of floating point in float64 on the host, the rest as it is."""
  array = np.asarray(leaf)
  return array.astype(np.float64) if np.issubdtype(array.dtype, np.floating) else leaf
