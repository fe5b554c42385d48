"""Momentum, which buys stability at few steps or strong guidance (arXiv:2307.11118)."""

from typing import Any

import numpy as np

from diffusion.solvers.about import About
from diffusion.solvers.grid_nodes import nodes
from diffusion.solvers.noise_history import keep_noise, move, newest, remember
from diffusion.solvers.pndm import ADAMS, warming
from diffusion.solvers.table import Table, build


def hb(
  process: Any,
  grid: Any,
  *,
  order: int = 4,
  beta: float = 0.8,
  view: str = "x0",
  dtype: Any = np.float32,
  xp: Any = np,
) -> Table:
  """Polyak's heavy ball: vel <- (1 - beta) vel + beta u, x moves along vel (arXiv:2307.11118, section 4.1).

  u is the slope of `ipndm` of the given order, and the step DDIM's. It multiplies the interval of stability
  by (2 - beta)/beta, and is of first order for every beta < 1. beta = 1 is `ipndm`.

  Args:
    process: the Gaussian process.
    grid: [n+1] or [B, n+1] decreasing times.
    order: of the Adams-Bashforth rule for the slope, 1 to 4.
    beta: damping, in (0, 1].
    view, dtype, xp: as in `deis`.

  Raises:
    ValueError: a bad grid, order, beta or view.

  >>> from diffusion import processes
  >>> print(hb(processes.edm(), np.array([3.0, 2.0, 1.0]), order=1, beta=0.5, view="eps"))
  hb(order=1, beta=0.5): order 1, 2 evaluations, asks for eps, 2 slots, no noise (process edm)
  row 0  t=3   S0 <- S0 - E; S1 <- E
  row 1  t=2   S0 <- S0 - 0.5 S1 - 0.5 E; S1 <- 0.5 S1 + 0.5 E
  output t=1   S0
  """
  _check("hb", order, beta)
  n = nodes(process, grid, dtype, xp, order, f"hb of order {order}")
  slopes = warming(ADAMS, order, n.s.shape[-1])
  first = np.arange(n.s.shape[-1]) == 0
  # Slots: x, vel, past eps.
  gain = np.where(first, 1.0, beta)
  velocity = [1.0 - gain] + [gain * c for c in slopes]  # of vel, E, past eps
  about = About(f"hb(order={order}, beta={beta:g})", min(order, 2) if beta == 1 else 1, process)
  return _along(n, velocity, velocity, order - 1, False, view, about, dtype, xp)


def ghvb(
  process: Any,
  grid: Any,
  *,
  order: int = 2,
  beta: float = 0.8,
  view: str = "x0",
  dtype: Any = np.float32,
  xp: Any = np,
) -> Table:
  """Generalised heavy ball (GHVB): damped momentum on the noise (arXiv:2307.11118, section 4.2).

  vel <- (1 - beta) vel + beta eps, and x moves along a rule on past vels. The rule restores the order that
  the damping lost. The paper's GHVB 1.8 is order=2, beta=0.8; its 3.5 is order=4, beta=0.5. beta = 1 is
  `ipndm`. As there, nodes that are not equal steps in sigma/alpha limit the order to 2.

  Args:
    process: the Gaussian process.
    grid: [n+1] or [B, n+1] decreasing times.
    order: of the rule, 1 to 5 (to 4 with beta = 1).
    beta: damping, in (0, 1].
    view, dtype, xp: as in `deis`.

  Raises:
    ValueError: a bad grid, order, beta or view.

  >>> from diffusion import processes
  >>> ghvb(processes.edm(), np.array([3.0, 2.0, 1.0, 0.5]), order=2, beta=0.8).A.shape
  (3, 2, 2)
  """
  _check("ghvb", order, beta, 5)
  n = nodes(process, grid, dtype, xp, order, f"ghvb of order {order}")
  rows = n.s.shape[-1]
  rules = warming(mixers(beta), order, rows)
  gain = np.where(np.arange(rows) == 0, 1.0, beta)
  # Slots: x and past vels, of which the newest is the one that is damped.
  velocity = [1.0 - gain, gain]
  older = (rules + [np.zeros(rows)])[1:]
  slope = [rules[0] * velocity[0] + older[0], rules[0] * gain, *older[1 : max(order - 1, 1)]]
  about = About(f"ghvb(order={order}, beta={beta:g})", min(order, 2), process)
  return _along(n, slope, velocity, max(order - 2, 0), True, view, about, dtype, xp)


def mixers(b: Any) -> Any:
  """The rules on past vels, newest first, by order (arXiv:2307.11118, table 1); b = 1 is Adams-Bashforth."""
  return {
    1: np.array([1.0]),
    2: np.array([2 + b, -(2 - b)]) / (2 * b),
    3: np.array([18 + 5 * b, -(24 - 8 * b), 6 - b]) / (12 * b),
    4: np.array([46 + 9 * b, -(78 - 19 * b), 42 - 5 * b, -(10 - b)]) / (24 * b),
    5: np.array([1650 + 251 * b, -(3420 - 646 * b), 2880 - 264 * b, -(1380 - 106 * b), 270 - 19 * b])
    / (720 * b),
  }


def _check(name, order, beta, highest=4):
  if order not in range(1, highest + 1):
    raise ValueError(f"the order of {name} is 1 to {highest}, got {order}")
  if not 0 < beta <= 1:
    raise ValueError(f"the damping beta of {name} lies in (0, 1], got {beta}")


def _along(n, slope, velocity, depth, of_velocity, view, about, dtype, xp):
  """The table of steps along a velocity.

  x' = ratio x + step (slope . (vel, E, history)), vel' = velocity . (vel, E, history). The history is of vels
  or of eps.
  """
  (g, h), silent = keep_noise(n, view, xp)
  ratio, step = move(n, silent, xp)
  quiet = lambda value, instead: xp.where(silent, instead, value)
  pad = lambda row: [*row, *[0.0] * (2 + depth - len(row))]
  slope, velocity = pad(slope), pad(velocity)
  x = [ratio, quiet(step * slope[0], 0.0), *(quiet(step * c, 0.0) for c in slope[2:])]
  vel = [quiet(0.0, 1 / n.s), quiet(velocity[0], 0.0), *(quiet(c, 0.0) for c in velocity[2:])]
  A, B = [x, vel], [quiet(step * slope[1], step), quiet(velocity[1], 0.0)]
  if of_velocity:
    A += [[0.0] * (k + 1) + [1.0] + [0.0] * (depth - k) for k in range(depth)]
    B += [0.0] * depth
  else:
    A += remember(n, silent, depth, 2 + depth, 2, xp)
    B += newest(silent, depth, xp)
  return build(n.t, A=A, B=B, g=g, h=h, view=view, about=about, dtype=dtype, xp=xp)
