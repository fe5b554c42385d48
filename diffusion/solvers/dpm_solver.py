"""DPM-Solver 1 to 3 and DPM-Solver++ 2S: singlestep methods in log-SNR."""

from typing import Any

import numpy as np

from diffusion.solvers.about import About
from diffusion.solvers.join import join
from diffusion.solvers.multistep import phi
from diffusion.solvers.singlestep import exponential_runge_kutta
from diffusion.solvers.table import Table


def dpm_solver(
  process: Any,
  grid: Any,
  *,
  order: int = 3,
  r1: float | None = None,
  r2: float | None = None,
  view: str = "x0",
  dtype: Any = np.float32,
) -> Table:
  """DPM-Solver-k on the noise prediction (arXiv:2206.00927, eq. 3.7, algorithms 1 and 2).

  A step takes k evaluations. The inner ones are at lambda + r1 h and, of order 3, lambda + r2 h. Order 1 is
  DDIM.

  Args:
    process: the Gaussian process.
    grid: [n+1] or [B, n+1] decreasing times, not traced.
    order: k = 1, 2 or 3.
    r1, r2: fractions of the step in log(alpha/sigma); None for the paper's 1/2 (order 2), 1/3 and 2/3 (order
      3). Order 3 needs r2 = 2/3 to be of third order.
    view: 'x0' or 'eps', what the network is asked for.
    dtype: precision at run time.

  Raises:
    ValueError: a bad grid, order, fraction or view; a traced grid.

  >>> from diffusion import processes
  >>> print(dpm_solver(processes.edm(), np.array([4.0, 1.0, 0.0]), order=2, view="eps"))
  dpm_solver(order=2): order 2, 3 evaluations, asks for eps, 2 slots, no noise (process edm)
  row 0  t=4   S0 <- S0; S1 <- E
  row 1  t=2   u = S0 - 2 S1; S0 <- S0 - 3 E; S1 <- 0
  row 2  t=1   S0 <- S0 - E; S1 <- E
  output t=0   S0
  """
  if order not in (1, 2, 3):
    raise ValueError(f"the order of dpm_solver is 1, 2 or 3, got {order}")
  r1 = (None, None, 1 / 2, 1 / 3)[order] if r1 is None else r1
  r2 = 2 / 3 if r2 is None else r2
  fractions = [(), (r1,), (r1, r2)][order - 1]
  _check(fractions)
  tableau = (_first, _second, _third)[order - 1]
  about = About(f"dpm_solver(order={order})", order, process)
  return exponential_runge_kutta(process, grid, fractions, tableau, "eps", about, view, dtype)


def dpm_solver_fast(
  process: Any, grid: Any, *, nfe: int | None = None, view: str = "x0", dtype: Any = np.float32
) -> Table:
  """DPM-Solver-fast: DPM-Solver on a budget of evaluations (arXiv:2206.00927, section 3.4).

  Steps are of order 3, and one or two shorter ones use up the budget. m steps take 3m - 3, 3m - 2 or 3m - 1
  evaluations: orders 3, ..., 3, 2, 1, or 3, ..., 3, 1, or 3, ..., 3, 2. The paper's grid is even in log-SNR.
  A step from pure noise or to clean data takes one evaluation, whatever its order.

  Args:
    process: the Gaussian process.
    grid: [m+1] or [B, m+1] decreasing times, not traced.
    nfe: evaluations for steps of finite length; None for 3m - 2.
    view: 'x0' or 'eps', what the network is asked for.
    dtype: precision at run time.

  Raises:
    ValueError: a bad grid or view; a budget that m steps do not fit.

  >>> from diffusion import processes
  >>> table = dpm_solver_fast(processes.edm(), np.array([8.0, 4.0, 2.0, 1.0]), nfe=8)
  >>> table.name, table.cost
  ('dpm_solver_fast(3, 3, 2)', 8)
  """
  grid = np.asarray(grid, np.float64)
  steps = grid.shape[-1] - 1
  spare = 1 if nfe is None else nfe - 3 * (steps - 1)
  if spare not in (0, 1, 2) or (spare == 0 and steps < 2):
    raise ValueError(
      f"dpm_solver_fast with {steps} steps takes {3 * steps - 3}, {3 * steps - 2} or {3 * steps - 1} "
      f"evaluations, got nfe={nfe}:"
      " for a budget of nfe take nfe // 3 + 1 steps"
    )
  orders = [3] * (steps - 2) + [2, 1] if spare == 0 else [3] * (steps - 1) + [spare]
  head = orders.count(3)
  pieces = [(3, grid[..., : head + 1])] * (head > 0) + [
    (k, grid[..., i : i + 2]) for i, k in enumerate(orders) if k < 3
  ]
  parts = [dpm_solver(process, piece, order=order, view=view, dtype=dtype) for order, piece in pieces]
  return join(parts, About(f"dpm_solver_fast({', '.join(map(str, orders))})", 2, process))


def dpmpp_2s(process: Any, grid: Any, *, r: float = 0.5, dtype: Any = np.float32) -> Table:
  """DPM-Solver++ 2S: two evaluations a step on the data prediction (arXiv:2211.01095, algorithm 1).

  x' = (sigma'/sigma) x + alpha' (1 - e^-h) ((1 - 1/2r) D + D_r / 2r) with D_r at lambda + r h.

  Args:
    process: the Gaussian process.
    grid: [n+1] or [B, n+1] decreasing times, not traced.
    r: fraction of the step in log(alpha/sigma), in (0, 1].
    dtype: precision at run time.

  Raises:
    ValueError: a bad grid or r; a traced grid.

  >>> from diffusion import processes
  >>> print(dpmpp_2s(processes.edm(), np.array([4.0, 1.0, 0.0])))
  dpmpp_2s: order 2, 3 evaluations, asks for x0, 2 slots, no noise (process edm)
  row 0  t=4   S0 <- S0; S1 <- E
  row 1  t=2   u = 0.5 S0 + 0.5 S1; S0 <- 0.25 S0 + 0.75 E; S1 <- 0
  row 2  t=1   S0 <- E; S1 <- E
  output t=0   S0
  """
  _check((r,))
  name = "dpmpp_2s" if r == 0.5 else f"dpmpp_2s(r={r:g})"
  return exponential_runge_kutta(process, grid, (r,), _second, "x0", About(name, 2, process), "x0", dtype)


def _check(fractions):
  if not all(low < high for low, high in zip((0, *fractions), (*fractions, 1 + 1e-9))):
    raise ValueError(f"the fractions of a step must increase and lie in (0, 1], got {fractions}")


def _first(z, c):
  return [], [phi(1, z)]


def _second(z, c):
  """u from a constant, the step along the slope (E_r - E)/r with weight phi_1 / 2."""
  r = c[1]
  slope = phi(1, z) / (2 * r)
  return [[r * phi(1, r * z)]], [phi(1, z) - slope, slope]


def _third(z, c):
  """The line through the last stage and the start, each stage but the first on the line before it."""
  _, r1, r2 = c
  inner, outer = r2**2 / r1 * phi(2, r2 * z), phi(2, z) / r2
  return [[r1 * phi(1, r1 * z)], [r2 * phi(1, r2 * z) - inner, inner]], [phi(1, z) - outer, 0 * z, outer]
