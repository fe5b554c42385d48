"""DEIS, exponential integrators on the noise prediction, and Adams-Bashforth in sigma."""

from typing import Any

import numpy as np

from diffusion.solvers.about import About
from diffusion.solvers.grid_nodes import nodes
from diffusion.solvers.noise_history import noise_table, noise_weights
from diffusion.solvers.table import Table


def deis(
  process: Any,
  grid: Any,
  *,
  r: int = 3,
  clock: str = "t",
  view: str = "x0",
  dtype: Any = np.float32,
  xp: Any = np,
) -> Table:
  """x' = (alpha'/alpha) x + sum_j C_j eps_j, C_j = alpha' int l_j d rho (arXiv:2204.13902, eq. 14-15).

  l_j are the Lagrange polynomials through the last r + 1 nodes in the clock: in t, tAB-DEIS; in rho =
  sigma/alpha, rhoAB-DEIS. The first r steps use as many evaluations as there are, so the order r + 1 is that
  of the rest of the run: start at high noise, where eps hardly changes, or with shorter steps. A last step to
  sigma = 0 keeps its order.

  Args:
    process: the Gaussian process.
    grid: [n+1] or [B, n+1] decreasing times.
    r: degree of the polynomial, 0 to 3; 0 is DDIM.
    clock: 't' or 'rho'.
    view: 'x0' or 'eps', what the network is asked for; the same numbers up to rounding.
    dtype, xp: as in `ddim`.

  Raises:
    ValueError: a bad grid, r, clock or view; view='eps' on a grid that starts where alpha = 0.

  >>> from diffusion import processes
  >>> print(deis(processes.edm(), np.array([3.0, 2.0, 1.0]), r=1, view="eps"))
  deis(tAB-1): order 2, 2 evaluations, asks for eps, 2 slots, no noise (process edm)
  row 0  t=3   S0 <- S0 - E; S1 <- E
  row 1  t=2   S0 <- S0 + 0.5 S1 - 1.5 E; S1 <- E
  output t=1   S0
  """
  if r not in (0, 1, 2, 3):
    raise ValueError(f"the degree r of DEIS is 0, 1, 2 or 3, got {r}")
  if clock not in ("t", "rho"):
    raise ValueError(f"the clock of DEIS is 't' or 'rho', got {clock!r}")
  return _adams(process, grid, r + 1, clock, view, f"deis({clock}AB-{r})", dtype, xp)


def lms(
  process: Any, grid: Any, *, order: int = 4, view: str = "x0", dtype: Any = np.float32, xp: Any = np
) -> Table:
  """The linear multistep method of k-diffusion (LMS).

  It is Adams-Bashforth on dv/d rho = eps with exact weights for any nodes, in v = x/alpha and rho =
  sigma/alpha, so for every process. It is rhoAB-DEIS with r = order - 1.

  Args:
    process: the Gaussian process.
    grid: [n+1] or [B, n+1] decreasing times.
    order: 1 to 4, after as many steps of warm-up.
    view, dtype, xp: as in `deis`.

  Raises:
    ValueError: a bad grid, order or view.

  >>> from diffusion import processes
  >>> lms(processes.edm(), np.array([4.0, 3.0, 2.0, 1.0]), order=3).order
  3
  """
  if order not in (1, 2, 3, 4):
    raise ValueError(f"the order of lms is 1, 2, 3 or 4, got {order}")
  return _adams(process, grid, order, "rho", view, f"lms(order={order})", dtype, xp)


def _adams(process, grid, order, clock, view, name, dtype, xp):
  n = nodes(process, grid, dtype, xp, order, name)
  weights = noise_weights(process, n, order, clock, xp)
  return noise_table(n, weights, view, About(name, order, process), dtype, xp)
