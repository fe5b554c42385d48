"""RES of two evaluations: the exponential integral of the line through the last two data predictions."""

from typing import Any

import numpy as np

from diffusion.solvers.about import About
from diffusion.solvers.data_history import data_ratio, data_table, data_weights
from diffusion.solvers.grid_nodes import nodes
from diffusion.solvers.table import Table


def res_2m(process: Any, grid: Any, *, dtype: Any = np.float32, xp: Any = np) -> Table:
  """RES 2M: an exponential multistep of the last two data predictions (arXiv:2308.02157, section 4).

  x' = (sigma'/sigma) x + alpha' h ((phi_1 + phi_2/r) D - phi_2/r D_previous), with phi_k at -h and
  r = h_previous/h. ComfyUI has it as `res_2m` and `res_multistep`.

  It is DPM-Solver++ 2M with the whole integral of the slope in place of half a step of it ('heun' of
  diffusers), and of order 2 too.

  Args:
    process: the Gaussian process.
    grid: [n+1] or [B, n+1] decreasing times.
    dtype, xp: as in `ddim`.

  >>> from diffusion import processes
  >>> print(res_2m(processes.edm(), np.array([4.0, 2.0, 1.0, 0.0])))
  res_2m: order 2, 3 evaluations, asks for x0, 2 slots, no noise (process edm)
  row 0  t=4   S0 <- 0.5 S0 + 0.5 E; S1 <- E
  row 1  t=2   S0 <- 0.5 S0 - 0.27865 S1 + 0.77865 E; S1 <- E
  row 2  t=1   S0 <- E; S1 <- E
  output t=0   S0
  """
  n = nodes(process, grid, dtype, xp, 2, "res_2m")
  weights, _ = data_weights(n, 2, xp, lower_order_final=False)
  return data_table(n, data_ratio(n, xp), weights, About("res_2m", 2, process), dtype, xp)
