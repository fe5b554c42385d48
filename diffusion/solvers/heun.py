"""EDM's second-order sampler."""

import numpy as np

from diffusion.solvers.nodes import nodes
from diffusion.solvers.table import About, Table, build


def heun(process, grid, *, dtype=np.float32, xp=np) -> Table:
  """Heun's method on dv/drho = eps, v = x/alpha, rho = sigma/alpha (arXiv:2206.00364, algorithm 1 without churn).

  Two evaluations a step: an Euler (DDIM) step to the next node, then the mean of both slopes. A step to clean
  data, or from pure noise, is the Euler step alone: 2n - 1 evaluations for n steps that end at sigma = 0.

  Args:
    process: the Gaussian process.
    grid: [n+1] or [B, n+1] decreasing times.
    dtype, xp: as in `ddim`; the grid must not be traced, because its ends decide the number of rows.

  >>> from diffusion import processes
  >>> print(heun(processes.edm(), np.array([4.0, 1.0, 0.0])))
  heun: order 2, 3 evaluations, asks for x0, 2 slots, no noise (process edm)
  row 0  t=4   S0 <- 0.25 S0 + 0.75 E; S1 <- 0.625 S0 + 0.375 E
  row 1  t=1   S0 <- -1.5 S0 + S1 + 1.5 E; S1 <- 0
  row 2  t=1   S0 <- E; S1 <- 0
  output t=0   S0
  """
  n = nodes(process, grid, dtype, xp)
  if n.from_noise is None:
    raise ValueError("heun has a row less where a grid starts without signal or ends without noise: give it a grid that is not traced")
  # Masked where a step is infinitely long; those rows are dropped below.
  a, s1 = xp.where(n.long, 1.0, n.a), xp.where(n.long, 1.0, n.s1)
  move = xp.where(n.long, 0.0, n.a1 * (s1 / n.a1 - n.s / a) / 2)  # alpha' (rho' - rho) / 2
  zero, anchor = 0.0 * move, xp.where(n.long, 0.0, n.a1 / a)
  # Row one of a step: S0, the Euler point, and S1, the start plus half a step, from the anchor S0 and E = D.
  # Row two, at the Euler point: S1 plus half a step along its slope (S0 - alpha' E) / sigma'.
  A = [[(n.s1 / n.s, move / s1), (zero, zero + 1)], [(anchor + move / n.s, zero), (zero, zero)]]
  B = [(n.a1 - n.a * n.s1 / n.s, -move * n.a1 / s1), (-move * n.a / n.s, zero)]
  hook = [(n.long * 1.0, zero + 1), (zero, zero)]  # a step is finished by its last row
  steps = n.s.shape[-1]
  rows = np.arange(2 * steps)
  if n.to_data:
    rows = np.delete(rows, 2 * steps - 1)
  if n.from_noise and steps > (1 if n.to_data else 0):
    rows = np.delete(rows, 1)
  interleave = lambda pair: xp.stack(pair, axis=-1).reshape(n.s.shape[:-1] + (2 * steps,))[..., rows]
  t = xp.concatenate([interleave((n.t[..., :-1], n.t[..., 1:])), n.t[..., -1:]], axis=-1)
  return build(
      t,
      A=[[interleave(entry) for entry in row] for row in A],
      B=[interleave(entry) for entry in B],
      hook=[interleave(entry) for entry in hook],
      about=About("heun", 2, process.name),
      dtype=dtype,
      xp=xp,
  )
