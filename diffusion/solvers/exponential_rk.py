"""An exponential Runge-Kutta method whose third order does not suffer where the problem is stiff."""

from typing import Any

import numpy as np

from diffusion.solvers.about import About
from diffusion.solvers.multistep import phi
from diffusion.solvers.singlestep import exponential_runge_kutta
from diffusion.solvers.table import Table


def exponential_rk3(
  process: Any, grid: Any, *, c2: float = 0.5, c3: float = 1.0, dtype: Any = np.float32
) -> Table:
  """Exponential Runge-Kutta method of stiff order 3 (Hochbruck and Ostermann 2005, table 4.1).

  It takes three evaluations a step on the data prediction. The stages lie at lambda + c2 h and lambda + c3 h.
  b_2 and b_3 solve sum b_i c_i = phi_2 and sum b_i c_i^2 = 2 phi_3, a_32 solves sum b_i (phi_2(c_i z) c_i^2 -
  sum_j a_ij c_j) = 0, all for z = -h and not for z = 0 alone as in DPM-Solver-3. For h -> 0 it is the
  Runge-Kutta method of the same nodes: Kutta's for the defaults.

  Args:
    process: the Gaussian process.
    grid: [n+1] or [B, n+1] decreasing times, not traced.
    c2, c3: where the stages lie, 0 < c2 < c3 <= 1; c2 below 2/3, from where on b_3 vanishes at some step.
    dtype: precision at run time.

  Raises:
    ValueError: a bad grid, c2 or c3; a traced grid.

  >>> from diffusion import processes
  >>> exponential_rk3(processes.edm(), np.array([4.0, 2.0, 1.0, 0.0])).cost
  7
  """
  if not 0 < c2 < min(c3, 2 / 3) or c3 > 1:
    raise ValueError(
      f"the stages of exponential_rk3 need 0 < c2 < c3 <= 1 and c2 < 2/3, got c2={c2} and c3={c3}"
    )
  about = About(
    "exponential_rk3" if (c2, c3) == (0.5, 1.0) else f"exponential_rk3(c2={c2:g}, c3={c3:g})", 3, process
  )
  return exponential_runge_kutta(process, grid, (c2, c3), stiff_third, "x0", about, "x0", dtype)


def stiff_third(z: Any, c: Any) -> Any:
  """The tableau; see `exponential_rk3`."""
  _, c2, c3 = c
  phi1, phi2, phi3 = (phi(k, z) for k in (1, 2, 3))
  b3 = (2 * phi3 - c2 * phi2) / (c3 * (c3 - c2))
  b2 = (2 * phi3 - c3 * phi2) / (c2 * (c2 - c3))
  a32 = (c3**2 * phi(2, c3 * z) + b2 / b3 * c2**2 * phi(2, c2 * z)) / c2
  return [[c2 * phi(1, c2 * z)], [c3 * phi(1, c3 * z) - a32, a32]], [phi1 - b2 - b3, b2, b3]
