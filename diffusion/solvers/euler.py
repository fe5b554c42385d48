"""Euler's method on the probability flow in the process's own time."""

from typing import Any

import numpy as np

from diffusion.solvers.about import About
from diffusion.solvers.grid_nodes import nodes
from diffusion.solvers.table import Table, build


def euler(process: Any, grid: Any, *, dtype: Any = np.float32, xp: Any = np) -> Table:
  """Euler's method on the probability flow in x and t themselves (arXiv:2011.13456, eq. 13).

    x' = x + (t' - t) dx/dt,  dx/dt = d_alpha x0 + d_sigma eps

  On rectified flow and on EDM's sigma = t this is DDIM; on VP and subVP it is Score SDE's plain probability
  flow, less accurate than DDIM, which is Euler in (x/alpha, sigma/alpha).

  Args:
    process: the Gaussian process.
    grid: [n+1] or [B, n+1] decreasing times.
    dtype, xp: as in `ddim`.

  >>> from diffusion import processes, solvers
  >>> grid = np.array([1.0, 0.5, 0.0])
  >>> flow = processes.rectified_flow()
  >>> bool(np.allclose(euler(flow, grid).A, solvers.ddim(flow, grid).A))
  True
  """
  n = nodes(process, grid, dtype, xp)
  step = n.t[..., 1:] - n.t[..., :-1]
  d_alpha, d_sigma = n.marginal.d_alpha[..., :-1], n.marginal.d_sigma[..., :-1]
  ratio = 1 + step * d_sigma / n.s
  weight = step * (d_alpha - n.a * d_sigma / n.s)
  return build(n.t, A=[[ratio]], B=[weight], about=About("euler", 1, process), dtype=dtype, xp=xp)
