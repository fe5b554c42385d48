"""Restart sampling: noise put back over an interval, which is then solved again."""

from collections.abc import Callable
from typing import Any

import numpy as np

from diffusion.solvers.about import About
from diffusion.solvers.grid_nodes import nodes
from diffusion.solvers.heun import heun
from diffusion.solvers.join import join
from diffusion.solvers.table import Table


def restart(
  process: Any,
  grid: Any,
  *,
  solver: Callable[..., Table] = heun,
  intervals: Any = ((0.06, 0.3, 1),),
  s_noise: float = 1.0,
  dtype: Any = np.float32,
) -> Table:
  """Restart sampling: noise put back, and the flow down again (arXiv:2306.14878, algorithm 1).

  At sigma/alpha = low, noise up to high is put back: x/alpha + sqrt(high^2 - low^2) z. Each repetition
  contracts the error gathered so far, as an SDE does, while the steps are those of an ODE. The interval is
  solved on the grid's own nodes: low is the nearest inner one that has noise, high the nearest above that.

  Args:
    process: the Gaussian process.
    grid: [n+1] decreasing times.
    solver: builder of a deterministic table; it begins anew at each restart.
    intervals: (low, high, repetitions) in units of sigma/alpha, as many as wanted; with no repetition the
      solver alone.
    s_noise: factor of the noise.
    dtype: precision at run time.

  Raises:
    ValueError: a bad grid, fewer than three nodes, or a bad interval.

  >>> from diffusion import processes
  >>> grid = np.array([4.0, 2.0, 1.0, 0.0])
  >>> table = restart(processes.edm(), grid, intervals=[(1.0, 2.0, 2)])
  >>> table.t.tolist()
  [4.0, 2.0, 2.0, 1.0, 2.0, 1.0, 2.0, 1.0, 1.0, 0.0]
  """
  grid = np.asarray(grid, np.float64)
  n = nodes(process, grid, dtype)
  if grid.ndim != 1 or grid.size < 3:
    raise ValueError(
      f"restart needs one grid of at least three nodes for all samples, got shape {grid.shape}"
    )
  for low, high, count in intervals:
    if not 0 < low < high or count < 0 or count != int(count):
      raise ValueError(
        "a restart is (low, high, repetitions) with 0 < low < high and a whole number of repetitions, got"
        f" {(low, high, count)}"
      )
  rho = n.marginal.noise_to_signal
  inner = np.flatnonzero((rho > 0) & np.isfinite(rho))
  plan = []  # (node of low, node of high)
  for low, high, count in sorted(intervals, reverse=True):
    candidates = inner[1:] if inner.size > 1 else inner
    end = candidates[np.argmin(abs(np.log(rho[candidates] / low)))]
    above = inner[inner < end]
    if above.size and count:
      begin = above[np.argmin(abs(np.log(rho[above] / high)))]
      plan += [(begin, end)] * int(count)
  whole = solver(process, grid, dtype=dtype)
  if not plan:
    return whole
  tables, jumps, at = [], [], 0
  for begin, end in plan:
    if end > at:
      tables.append(solver(process, grid[at : end + 1], dtype=dtype))
      jumps.append((1.0, 0.0))
    lift = n.marginal.alpha[begin] / n.marginal.alpha[end]
    jumps.append((lift, n.marginal.alpha[begin] * s_noise * np.sqrt(rho[begin] ** 2 - rho[end] ** 2)))
    tables.append(solver(process, grid[begin : end + 1], dtype=dtype))
    at = end
  if at < grid.size - 1:
    tables.append(solver(process, grid[at:], dtype=dtype))
    jumps.append((1.0, 0.0))
  name = (
    f"restart({whole.name}, {', '.join(f'{low:g}-{high:g} x{count:g}' for low, high, count in intervals)})"
  )
  return join(tables, About(name, whole.order, process), jumps[1:])
