"""DPM-Solver++ 2M and 3M, multistep in log-SNR on the data prediction, as ODEs and as SDEs."""

from typing import Any

import numpy as np

from diffusion.solvers.about import About
from diffusion.solvers.data_history import data_noise, data_ratio, data_table, data_weights
from diffusion.solvers.grid_nodes import nodes
from diffusion.solvers.table import Table, build


def dpmpp_2m(process: Any, grid: Any, *, dtype: Any = np.float32, xp: Any = np) -> Table:
  """DPM-Solver++ 2M: the multistep method of second order (arXiv:2211.01095, algorithm 2).

    x' = (sigma'/sigma) x - alpha' (e^-h - 1) ((1 + 1/2r) D - 1/2r D_previous),  r = h_previous/h

  h is the step in log(alpha/sigma). The first step, a step to clean data and the one after a start from pure
  noise are of first order: their neighbour lies infinitely far away.

  Args:
    process: the Gaussian process.
    grid: [n+1] or [B, n+1] decreasing times.
    dtype, xp: as in `ddim`.

  >>> from diffusion import processes
  >>> print(dpmpp_2m(processes.edm(), np.array([4.0, 2.0, 1.0, 0.0])))
  dpmpp_2m: order 2, 3 evaluations, asks for x0, 2 slots, no noise (process edm)
  row 0  t=4   S0 <- 0.5 S0 + 0.5 E; S1 <- E
  row 1  t=2   S0 <- 0.5 S0 - 0.25 S1 + 0.75 E; S1 <- E
  row 2  t=1   S0 <- E; S1 <- E
  output t=0   S0
  """
  return _two_step(process, grid, 0.0, About("dpmpp_2m", 2, process), dtype, xp)


def dpmpp_2m_sde(
  process: Any, grid: Any, *, eta: float = 1.0, dtype: Any = np.float32, xp: Any = np
) -> Table:
  """The SDE form of DPM-Solver++ 2M, with midpoint correction (arXiv:2211.01095, section 5).

  eta = 1 is the reverse SDE, 0 is `dpmpp_2m`. Its weak order is 2: the noise is additive and exact, and the
  correction is that of the mean.

  x' = (sigma'/sigma) e^(-eta h) x + alpha' (1 - e^(-(1+eta) h)) ((1 + 1/2r) D - 1/2r D_previous)
       + sigma' sqrt(1 - e^(-2 eta h)) z

  Args:
    process: the Gaussian process.
    grid: [n+1] or [B, n+1] decreasing times.
    eta: how much noise, at least 0.
    dtype, xp: as in `ddim`.
  """
  _check_eta(eta)
  return _two_step(process, grid, eta, About(f"dpmpp_2m_sde(eta={eta:g})", 2, process), dtype, xp)


def dpmpp_3m(
  process: Any, grid: Any, *, lower_order_final: Any = None, dtype: Any = np.float32, xp: Any = np
) -> Table:
  """DPM-Solver++ 3M: the multistep method of third order on the data prediction.

    x' = (sigma'/sigma) x + sum_j W_j D_j,  W_j = alpha' int e^-(lambda' - lambda) l_j d lambda

  The sum is over the last three D. It is the whole integral of the parabola through three data predictions
  (arXiv:2211.01095, section 4.2 gives the rule of order 2). Its second derivative D'' contributes alpha' D''
  int_0^h e^-(h-u) u^2/2 du; common implementations have half of what the second difference needs there and
  are of second order. The first two steps, and those to clean data and after pure noise, are of lower order
  (see `deis`).

  Args:
    process: the Gaussian process.
    grid: [n+1] or [B, n+1] decreasing times.
    lower_order_final: as in `unipc`.
    dtype, xp: as in `ddim`.

  >>> from diffusion import processes
  >>> print(dpmpp_3m(processes.edm(), np.array([4.0, 2.0, 1.0, 0.0])))
  dpmpp_3m: order 3, 3 evaluations, asks for x0, 3 slots, no noise (process edm)
  row 0  t=4   S0 <- 0.5 S0 + 0.5 E; S1 <- E; S2 <- S1
  row 1  t=2   S0 <- 0.5 S0 - 0.27865 S1 + 0.77865 E; S1 <- E; S2 <- S1
  row 2  t=1   S0 <- E; S1 <- E; S2 <- S1
  output t=0   S0
  """
  return _three_step(process, grid, 0.0, lower_order_final, About("dpmpp_3m", 3, process), dtype, xp)


def dpmpp_3m_sde(
  process: Any,
  grid: Any,
  *,
  eta: float = 1.0,
  lower_order_final: Any = None,
  dtype: Any = np.float32,
  xp: Any = np,
) -> Table:
  """The SDE form of `dpmpp_3m`, with exact noise.

  Its integrals are against (1 + eta) e^(-(1 + eta)(lambda' - lambda)). eta = 1 is the reverse SDE, 0 is
  `dpmpp_3m`. The mean converges faster than in `dpmpp_2m_sde`; the weak order is 2.

  Args:
    process: the Gaussian process.
    grid: [n+1] or [B, n+1] decreasing times.
    eta: how much noise, at least 0.
    lower_order_final: as in `unipc`.
    dtype, xp: as in `ddim`.

  Raises:
    ValueError: a bad grid or eta.
  """
  _check_eta(eta)
  about = About(f"dpmpp_3m_sde(eta={eta:g})", 2 if eta else 3, process)
  return _three_step(process, grid, eta, lower_order_final, about, dtype, xp)


def _three_step(process, grid, eta, lower_order_final, about, dtype, xp):
  n = nodes(process, grid, dtype, xp, 3, about.name)
  weights, _ = data_weights(n, 3, xp, eta, lower_order_final=lower_order_final)
  noise = data_noise(n, xp, eta) if eta else None
  return data_table(n, data_ratio(n, xp, eta), weights, about, dtype, xp, noise=noise)


def _check_eta(eta):
  if not eta >= 0:
    raise ValueError(f"eta is an amount of noise and at least 0, got {eta}")


def _two_step(process, grid, eta, about, dtype, xp):
  n = nodes(process, grid, dtype, xp, 2, about.name)
  extra = eta * n.h if eta else 0.0 * n.s
  previous = xp.concatenate([xp.full_like(n.h[..., :1], np.inf), n.h[..., :-1]], axis=-1)
  low = n.long | ~xp.isfinite(previous)
  half = xp.where(low, 0.0, xp.where(low, 1.0, n.h) / xp.where(low, 1.0, 2 * previous))  # 1/2r
  gain = -n.a1 * xp.expm1(-(n.h + extra))
  A = [[n.s1 / n.s * xp.exp(-extra), -gain * half], [0.0, 0.0]]
  C = [[n.s1 * xp.sqrt(-xp.expm1(-2 * extra))], [0.0]] if eta else ()
  return build(n.t, A=A, B=[gain * (1 + half), 1.0], C=C, about=about, dtype=dtype, xp=xp)
