"""DPM-Solver++ 2M, multistep in log-SNR on the data prediction, as an ODE and as an SDE."""

import numpy as np

from diffusion.solvers.nodes import nodes
from diffusion.solvers.table import About, Table, build


def dpmpp_2m(process, grid, *, dtype=np.float32, xp=np) -> Table:
  """x' = (sigma'/sigma) x - alpha' (e^-h - 1) ((1 + 1/2r) D - 1/2r D_previous), r = h_previous/h (arXiv:2211.01095, algorithm 2).

  h is the step in log(alpha/sigma). The first step, a step to clean data and the one after a start from
  pure noise are of first order: their neighbour lies infinitely far away.

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
  return _two_step(process, grid, 0.0, About("dpmpp_2m", 2, process.name), dtype, xp)


def dpmpp_2m_sde(process, grid, *, eta=1.0, dtype=np.float32, xp=np) -> Table:
  """The SDE form with midpoint correction (arXiv:2211.01095, section 5); eta = 1 is the reverse SDE, 0 is `dpmpp_2m`.

  Its weak order is 2: the noise is additive and exact, and the correction is that of the mean.

  x' = (sigma'/sigma) e^(-eta h) x + alpha' (1 - e^(-(1+eta) h)) ((1 + 1/2r) D - 1/2r D_previous)
       + sigma' sqrt(1 - e^(-2 eta h)) z

  Args:
    process: the Gaussian process.
    grid: [n+1] or [B, n+1] decreasing times.
    eta: how much noise, at least 0.
    dtype, xp: as in `ddim`.
  """
  if not eta >= 0:
    raise ValueError(f"eta is an amount of noise and at least 0, got {eta}")
  return _two_step(process, grid, eta, About(f"dpmpp_2m_sde(eta={eta:g})", 2, process.name), dtype, xp)


def _two_step(process, grid, eta, about, dtype, xp):
  n = nodes(process, grid, dtype, xp)
  extra = eta * n.h if eta else 0.0 * n.s
  previous = xp.concatenate([xp.full_like(n.h[..., :1], np.inf), n.h[..., :-1]], axis=-1)
  low = n.long | ~xp.isfinite(previous)
  half = xp.where(low, 0.0, xp.where(low, 1.0, n.h) / xp.where(low, 1.0, 2 * previous))  # 1/2r
  gain = -n.a1 * xp.expm1(-(n.h + extra))
  A = [[n.s1 / n.s * xp.exp(-extra), -gain * half], [0.0, 0.0]]
  C = [[n.s1 * xp.sqrt(-xp.expm1(-2 * extra))], [0.0]] if eta else ()
  return build(n.t, A=A, B=[gain * (1 + half), 1.0], C=C, about=about, dtype=dtype, xp=xp)
