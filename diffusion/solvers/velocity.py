"""Euler's and Heun's method on a velocity alone, for processes that have no noise-to-signal ratio."""

from typing import Any

import numpy as np

from diffusion.processes.contract import Process
from diffusion.solvers.table import About, Table, build


def euler_velocity(process: Process, grid: Any, *, dtype: Any = np.float32) -> Table:
  """x <- x + (t' - t) v(x, t), of order 1: one evaluation a step (arXiv:2209.03003, section 2.1).

  It asks for nothing but the velocity, so that it runs on every process that has one: a path between two
  data sets is carried from the second to the first.

  Args:
    process: a process whose denoisers answer 'velocity'.
    grid: [n+1] or [B, n+1] decreasing times, such as `process.default_grid(n)`.
    dtype: precision at run time.

  Raises:
    ValueError: a process without a velocity, or a grid that does not decrease.

  >>> from diffusion import processes
  >>> print(euler_velocity(processes.linear(), [1.0, 0.5, 0.0]))
  euler_velocity: order 1, 2 evaluations, asks for velocity, 1 slot, no noise (process linear)
  row 0  t=1    S0 <- S0 - 0.5 E
  row 1  t=0.5  S0 <- S0 - 0.5 E
  output t=0    S0
  """
  t, step = _grid(process, grid, dtype, "euler_velocity")
  return build(
    t, A=[[1.0]], B=[step], view="velocity", about=About("euler_velocity", 1, process), dtype=dtype
  )


def heun_velocity(process: Process, grid: Any, *, dtype: Any = np.float32) -> Table:
  """Euler's step, then the mean of the velocities at both ends of it, of order 2: two evaluations a step.

  Args:
    process, grid, dtype: as in `euler_velocity`.

  Raises:
    ValueError: as `euler_velocity`.

  >>> from diffusion import processes
  >>> print(heun_velocity(processes.linear(), [1.0, 0.0]))
  heun_velocity: order 2, 2 evaluations, asks for velocity, 2 slots, no noise (process linear)
  row 0  t=1  S0 <- S0 - E; S1 <- S0 - 0.5 E
  row 1  t=0  S0 <- S1 - 0.5 E; S1 <- 0
  output t=0  S0
  """
  t, step = _grid(process, grid, dtype, "heun_velocity")
  rows = (*t.shape[:-1], 2 * step.shape[-1])
  pairs = lambda first, second: np.stack(np.broadcast_arrays(first, second), axis=-1).reshape(rows)
  zero, one = np.zeros_like(step), np.ones_like(step)
  times = np.concatenate([pairs(t[..., :-1], t[..., 1:]), t[..., -1:]], axis=-1)
  # Slot 0 is the point of the next evaluation, slot 1 the point that the second half of the step starts from.
  return build(
    times,
    A=[[pairs(one, zero), pairs(zero, one)], [pairs(one, zero), 0.0]],
    B=[pairs(step, 0.5 * step), pairs(0.5 * step, zero)],
    hook=[pairs(zero, one), 0.0],
    view="velocity",
    about=About("heun_velocity", 2, process),
    dtype=dtype,
  )


def _grid(process, grid, dtype, who):
  """Times rounded to the run-time precision, in float64, and the steps between them. Raises ValueError."""
  if "velocity" not in process.views:
    raise ValueError(
      f"{who} follows a velocity, and '{process.name}' has none: its views are {', '.join(process.views)}"
    )
  t = np.asarray(grid, np.float64).astype(dtype).astype(np.float64)
  if t.ndim not in (1, 2) or t.shape[-1] < 2 or not np.all(np.diff(t, axis=-1) < 0):
    raise ValueError(
      f"{who} takes [n+1] or [B, n+1] decreasing times, such as process.default_grid(16), got "
      f"{np.asarray(grid)}"
    )
  return t, np.diff(t, axis=-1)
