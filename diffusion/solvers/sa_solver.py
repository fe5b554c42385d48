"""SA-Solver (stochastic Adams): multistep predictor and corrector for the reverse SDE.

It works with any amount of noise.
"""

from typing import Any

import numpy as np

from diffusion.solvers.about import About
from diffusion.solvers.data_history import data_noise, data_ratio, data_table, data_weights
from diffusion.solvers.grid_nodes import nodes
from diffusion.solvers.multistep import past
from diffusion.solvers.table import Table


def sa_solver(
  process: Any,
  grid: Any,
  *,
  tau: Any = 1.0,
  predictor: int = 3,
  corrector: int = 3,
  few_steps: bool = False,
  lower_order_final: Any = None,
  dtype: Any = np.float32,
  xp: Any = np,
) -> Table:
  """SA-Solver: stochastic Adams predictor and corrector (arXiv:2309.05019, eq. 14 and 17).

    x' = (sigma'/sigma) e^(-tau^2 h) x + sum_j b_j D_j + sigma' sqrt(1 - e^(-2 tau^2 h)) z

  b_j integrate the interpolating polynomial against (1 + tau^2) e^(-(1 + tau^2)(lambda' - lambda)). The
  corrector has the evaluation at the end of the step as one more point and the same noise z; it costs no
  evaluation, because it is the next row's own.

  tau = 0 is the probability flow, 1 the reverse SDE.

  Args:
    process: the Gaussian process.
    grid: [n+1] or [B, n+1] decreasing times.
    tau: at least 0: a number, [n] numbers, one a step, or a function of rho = sigma/alpha where each step
      starts, e.g. `lambda rho: 1.0 * ((0.05 < rho) & (rho < 1))`, the paper's choice on CIFAR-10 at EDM's
      noise levels.
    predictor: number of evaluations that it uses, 1 to 4.
    corrector: number of past evaluations that it uses beside the new one, 1 to 4, or 0 for none.
    few_steps: in rules of two evaluations, the weight h^2/2 for the slope in place of its exponential
      integral, as the authors' code has for few steps; it changes neither order nor, for short steps, much
      else.
    lower_order_final: as in `unipc`.
    dtype, xp: as in `ddim`.

  Raises:
    ValueError: a bad grid, tau or number of evaluations.

  >>> from diffusion import processes
  >>> grid, options = np.array([4.0, 2.0, 1.0]), dict(lower_order_final=False)
  >>> print(sa_solver(processes.edm(), grid, predictor=2, corrector=0, **options))
  sa_solver(tau=1, 2 + 0): order 2, 2 evaluations, asks for x0, 2 slots, 1 noise (process edm)
  row 0  t=4   S0 <- 0.25 S0 + 0.75 E + 1.7321 z; S1 <- E
  row 1  t=2   S0 <- 0.25 S0 - 0.45899 S1 + 1.209 E + 0.86603 z; S1 <- E
  output t=1   S0
  """
  if predictor not in (1, 2, 3, 4) or corrector not in (0, 1, 2, 3, 4):
    raise ValueError(
      f"sa_solver uses 1 to 4 evaluations to predict and 0 to 4 to correct, got {predictor} and {corrector}"
    )
  n = nodes(
    process,
    grid,
    dtype,
    xp,
    max(predictor, corrector),
    f"sa_solver with predictor {predictor} and corrector {corrector}",
  )
  named = f"{tau:g}" if np.ndim(tau) == 0 and not callable(tau) else "per step"
  if callable(tau):
    with np.errstate(divide="ignore"):
      tau = tau(n.s / n.a)
  tau = xp.asarray(tau, dtype=np.float64) + xp.zeros_like(n.s)
  if xp is np and not (tau >= 0).all():
    raise ValueError(f"tau is an amount of noise and at least 0, got {tau.tolist()}")
  eta = tau**2
  weights, _ = data_weights(n, predictor, xp, eta, lower_order_final=lower_order_final)
  if few_steps:
    weights = _bolder(n, weights, past(n.h, 1, xp, np.inf), eta, xp)
  correct = None
  if corrector:
    correct, _ = data_weights(n, corrector, xp, eta, ahead=True, lower_order_final=lower_order_final)
    if few_steps:
      correct = _bolder(n, correct, n.h, eta, xp)
  random = xp is not np or bool((tau > 0).any())
  order = min(predictor, corrector) + 1 if corrector else predictor
  about = About(
    f"sa_solver(tau={named}, {predictor} + {corrector})", min(order, 2) if random else order, process
  )
  noise = data_noise(n, xp, eta) if random else None
  return data_table(n, data_ratio(n, xp, eta), weights, about, dtype, xp, noise=noise, corrector=correct)


def _bolder(n, weights, gap, eta, xp):
  """The weights with h^2/2 for the integral of the slope, where two of them are in use.

  The slope is that between the two points, a gap apart in lambda.
  """
  used = (xp.stack(weights) != 0).sum(axis=0)
  two = (used == 2) & ~n.long & xp.isfinite(gap)
  h, rate = xp.where(n.long, 1.0, n.h), 1 + eta
  extra = n.a1 * rate * (h**2 / 2 - (h * rate - 1 + xp.exp(-rate * h)) / rate**2) / xp.where(two, gap, 1.0)
  extra = xp.where(two, extra, 0.0)
  return [weights[0] + extra, weights[1] - extra, *weights[2:]] if len(weights) > 1 else weights
