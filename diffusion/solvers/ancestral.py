"""Ancestral sampling: DDPM's, and its form for any Gaussian process."""

from typing import Any

import numpy as np

from diffusion.solvers.about import About
from diffusion.solvers.grid_nodes import nodes
from diffusion.solvers.table import Table, build


def ancestral(
  process: Any, grid: Any, *, variance: str = "small", dtype: Any = np.float32, xp: Any = np
) -> Table:
  """x' ~ N(mean of q(x' | x, x0), variance) (arXiv:2006.11239, eq. 7; arXiv:2011.13456, appendix F for VE).

  Args:
    process: the Gaussian process.
    grid: [n+1] or [B, n+1] decreasing times.
    variance: 'small', that of q(x' | x, x0), right for a point of data; 'large', the forward step's own
      (DDPM's beta), right for data ~ N(0, I). A step from no signal or to clean data takes the small one.
    dtype, xp: as in `ddim`.

  Raises:
    ValueError: a bad grid or variance.
  """
  if variance not in ("small", "large"):
    raise ValueError(f"variance is 'small' or 'large', got {variance!r}")
  n = nodes(process, grid, dtype, xp)
  forward = n.a / n.a1  # x = forward x' + sqrt(added) z
  added = n.s**2 - (forward * n.s1) ** 2
  share = n.s1**2 / n.s**2
  noise = n.s1 / n.s * xp.sqrt(added)
  if variance == "large":
    noise = xp.where(n.long, noise, xp.sqrt(added))
  about = About(f"ancestral({variance})" if variance != "small" else "ancestral", 1, process)
  return build(
    n.t, A=[[forward * share]], B=[n.a1 * added / n.s**2], C=[[noise]], about=about, dtype=dtype, xp=xp
  )
