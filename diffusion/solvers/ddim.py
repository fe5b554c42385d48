"""DDIM and, with eta, everything between it and ancestral sampling."""

from typing import Any

import numpy as np

from diffusion.solvers.about import About
from diffusion.solvers.grid_nodes import nodes
from diffusion.solvers.table import Table, build


def ddim(
  process: Any, grid: Any, *, eta: float = 0.0, view: str = "x0", dtype: Any = np.float32, xp: Any = np
) -> Table:
  """x' = alpha' x0 + sqrt(sigma'^2 - n^2) eps + n z (arXiv:2010.02502, eq. 12 and 16).

  n = eta sigma' sqrt(1 - e^(-2h)) is eta times the standard deviation of q(x' | x, x0), with h the step in
  log(alpha/sigma). eta = 0 is the probability flow, exact for a point of data; eta = 1 is ancestral sampling.

  Args:
    process: the Gaussian process.
    grid: [n+1] or [B, n+1] decreasing times.
    eta: share of the ancestral noise, in [0, 1].
    view: 'x0' or 'eps', what the network is asked for; the same numbers up to rounding.
    dtype: precision at run time.
    xp: numpy, or jax.numpy under x64 for a differentiable table.

  Raises:
    ValueError: a bad grid or eta; view='eps' on a grid that starts where alpha = 0.

  >>> from diffusion import processes
  >>> print(ddim(processes.edm(), np.array([4.0, 1.0, 0.0])))
  ddim: order 1, 2 evaluations, asks for x0, 1 slot, no noise (process edm)
  row 0  t=4   S0 <- 0.25 S0 + 0.75 E
  row 1  t=1   S0 <- E
  output t=0   S0
  """
  if not 0 <= eta <= 1:
    raise ValueError(f"eta is a share of the ancestral noise and lies in [0, 1], got {eta}")
  n = nodes(process, grid, dtype, xp)
  noise = eta * n.s1 * xp.sqrt(-xp.expm1(-2 * n.h)) if eta else 0.0 * n.s1
  kept = n.s1 * xp.sqrt(1 + eta**2 * xp.expm1(-2 * n.h))  # factor of eps
  if view == "x0":
    ratio, weight = kept / n.s, n.a1 - n.a * kept / n.s
  elif view == "eps":
    if n.from_noise:
      raise ValueError(
        "the grid starts where there is no signal (alpha = 0), where eps says nothing of the data: start the "
        "grid"
        " at an earlier time, or use view='x0'"
      )
    ratio, weight = n.a1 / n.a, kept - n.s * n.a1 / n.a
  else:
    raise ValueError(f"ddim asks the network for 'x0' or 'eps', got view={view!r}")
  about = About("ddim" if not eta else f"ddim(eta={eta:g})", 1, process)
  C = [[noise]] if eta else ()
  return build(n.t, A=[[ratio]], B=[weight], C=C, view=view, about=about, dtype=dtype, xp=xp)
