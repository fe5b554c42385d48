"""EDM's second-order sampler, without and with its churn."""

from typing import Any

import numpy as np

from diffusion.solvers.about import About
from diffusion.solvers.grid_nodes import nodes
from diffusion.solvers.table import Table, build


def heun(process: Any, grid: Any, *, dtype: Any = np.float32, xp: Any = np) -> Table:
  """Heun's method on dv/drho = eps, v = x/alpha, rho = sigma/alpha (arXiv:2206.00364, algorithm 1).

  It is the algorithm without churn. Two evaluations a step: an Euler (DDIM) step to the next node, then the
  mean of both slopes. A step to clean data, or from pure noise, is the Euler step alone: 2n - 1 evaluations
  for n steps that end at sigma = 0.

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
  return _steps(n, n.t[..., :-1], None, About("heun", 2, process), dtype, xp)


def heun_churn(
  process: Any,
  grid: Any,
  *,
  s_churn: float = 30.0,
  s_tmin: float = 0.01,
  s_tmax: float = 1.0,
  s_noise: float = 1.0,
  dtype: Any = np.float32,
) -> Table:
  """EDM's stochastic sampler: Heun's method with churn (arXiv:2206.00364, algorithm 2).

  Each step first adds noise, then takes Heun's step from there. Where s_tmin <= rho <= s_tmax, with rho =
  sigma/alpha, x/alpha gets noise up to rho (1 + min(s_churn/n, sqrt(2) - 1)), but not above the grid's first
  node, from where on the network may know nothing. The row is at the time of that level. The paper's
  (s_churn, s_tmin, s_tmax, s_noise): CIFAR-10 VP (30, 0.01, 1, 1.007), VE (80, 0.05, 1, 1.007), ImageNet-64
  (40, 0.05, 50, 1.003). s_churn = 0 is `heun`; s_noise = 1 keeps the marginals.

  Args:
    process: the Gaussian process.
    grid: [n+1] or [B, n+1] decreasing times, not traced.
    s_churn: overall amount of noise, at least 0.
    s_tmin, s_tmax: between which levels it is added.
    s_noise: factor of the added noise's standard deviation.
    dtype: precision at run time.

  Raises:
    ValueError: a bad grid or a negative amount.

  >>> from diffusion import processes
  >>> print(heun_churn(processes.edm(), np.array([4.0, 1.0, 0.0]), s_churn=0.5))
  heun_churn(0.5): order 2, 3 evaluations, asks for x0, 2 slots, 1 noise (process edm)
  row 0  t=4     S0 <- 0.25 S0 + 0.75 E; S1 <- 0.625 S0 + 0.375 E
  row 1  t=1     S0 <- -1.5 S0 + S1 + 1.5 E + 0.75 z; S1 <- 0
  row 2  t=1.25  S0 <- E; S1 <- 0
  output t=0     S0
  """
  if min(s_churn, s_tmin, s_noise) < 0 or not s_tmin <= s_tmax:
    raise ValueError(
      "churn needs s_churn, s_tmin and s_noise of at least 0 and s_tmin <= s_tmax, got"
      f" {(s_churn, s_tmin, s_tmax, s_noise)}"
    )
  n = nodes(process, grid, dtype)
  rho = n.s / np.where(n.a > 0, n.a, 1.0)
  churned = (n.a > 0) & (s_tmin <= rho) & (rho <= s_tmax)
  first = np.where(n.a[..., :1] > 0, rho[..., :1], np.inf)
  level = np.minimum(rho * (1 + np.where(churned, min(s_churn / rho.shape[-1], np.sqrt(2) - 1), 0.0)), first)
  churned &= level > rho
  t = n.t[..., :-1]
  t = np.where(
    churned,
    process.t_of_log_snr(-2 * np.log(np.where(churned, level, 1.0))).astype(dtype).astype(np.float64),
    t,
  )
  m = process.marginal(t)
  added = np.where(churned, m.sigma**2 - (m.alpha / np.where(churned, n.a, 1.0) * n.s) ** 2, 0.0)
  lift = np.where(churned, m.alpha / np.where(churned, n.a, 1.0), 1.0)
  about = About(f"heun_churn({s_churn:g})", 2, process)
  noise = s_noise * np.sqrt(np.maximum(added, 0.0))
  return _steps(n._replace(a=m.alpha, s=m.sigma), t, (lift, noise), about, dtype, np)


def _steps(n, start, churn, about, dtype, xp):
  """Heun's rows from (n.a, n.s) at the times `start`.

  churn is None or the (factor of x, noise) that leads to each start.
  """
  if n.from_noise is None:
    raise ValueError(
      "heun has a row less where a grid starts without signal or ends without noise: give it a grid that is "
      "not traced"
    )
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
  C = ()
  if churn is not None:
    # The last row of a step also takes x to where the next one starts.
    ahead = lambda leaf, end: np.concatenate([leaf[..., 1:], np.full_like(leaf[..., :1], end)], axis=-1)
    lift, noise = ahead(churn[0], 1.0), ahead(churn[1], 0.0)
    factors = (np.where(n.long, lift, 1.0), lift)
    scale = lambda entry: tuple(value * factor for value, factor in zip(entry, factors))
    A[0], B[0] = [scale(entry) for entry in A[0]], scale(B[0])
    C = [[(np.where(n.long, noise, 0.0), noise)], [(zero, zero)]]
  rows = np.arange(2 * steps)
  if n.to_data:
    rows = np.delete(rows, 2 * steps - 1)
  if n.from_noise and steps > (1 if n.to_data else 0):
    rows = np.delete(rows, 1)
  interleave = lambda pair: xp.stack(pair, axis=-1).reshape(n.s.shape[:-1] + (2 * steps,))[..., rows]
  t = xp.concatenate([interleave((start, n.t[..., 1:])), n.t[..., -1:]], axis=-1)
  return build(
    t,
    A=[[interleave(entry) for entry in row] for row in A],
    B=[interleave(entry) for entry in B],
    C=[[interleave(entry) for entry in row] for row in C],
    hook=[interleave(entry) for entry in hook],
    about=about,
    dtype=dtype,
    xp=xp,
  )
