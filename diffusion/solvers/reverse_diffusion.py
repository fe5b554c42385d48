"""The reverse diffusion sampler of Score SDE."""

from typing import Any

import numpy as np

from diffusion.solvers.euler_maruyama import from_moments
from diffusion.solvers.grid_nodes import nodes
from diffusion.solvers.table import Table


def reverse_diffusion(
  process: Any, grid: Any, *, denoise: bool = True, dtype: Any = np.float32, xp: Any = np
) -> Table:
  """The reverse diffusion sampler of Score SDE (arXiv:2011.13456, eq. 46).

    x' = x - f + G^2 score + G z,  with x = (x' + f) + G z the discretised forward step

  The forward step is the exact transition between the two nodes, x = r x' + G z with r = alpha/alpha': DDPM's
  step on VP (r^2 = 1 - beta) and NCSN's on VE (G^2 = sigma^2 - sigma'^2).

  Args:
    process: the Gaussian process.
    grid: [n+1] or [B, n+1] decreasing times.
    denoise: whether the last step adds no noise and returns its mean, as Score SDE does.
    dtype, xp: as in `ddim`.
  """
  n = nodes(process, grid, dtype, xp)
  r = n.a / n.a1
  added = n.s**2 - (r * n.s1) ** 2
  # x - (r - 1) x + G^2 (alpha D - x) / sigma^2
  ratio, weight = 2 - r - added / n.s**2, added * n.a / n.s**2
  return from_moments(n, ratio, weight, added, "reverse_diffusion", process, denoise, dtype, xp)
