"""Pseudo numerical methods: classical rules with equal weights, moved along by DDIM's step."""

from typing import Any

import numpy as np

from diffusion.solvers.about import About
from diffusion.solvers.grid_nodes import nodes
from diffusion.solvers.noise_history import keep_noise, move, newest, noise_table, remember
from diffusion.solvers.table import Table, build

# Adams-Bashforth for equal steps, newest first, by order.
ADAMS = {
  1: np.array([1.0]),
  2: np.array([3.0, -1.0]) / 2,
  3: np.array([23.0, -16.0, 5.0]) / 12,
  4: np.array([55.0, -59.0, 37.0, -9.0]) / 24,
}


def warming(rules: Any, order: int, rows: int) -> Any:
  """The rules of order 1, 2, ..., `order`, `order`, ... as `order` arrays [rows], newest first."""
  chosen = [np.pad(rules[k], (0, order - k)) for k in np.minimum(np.arange(rows) + 1, order)]
  return list(np.stack(chosen, axis=-1))


def ipndm(
  process: Any, grid: Any, *, order: int = 4, view: str = "x0", dtype: Any = np.float32, xp: Any = np
) -> Table:
  """Improved PNDM: DDIM's step along an Adams-Bashforth rule (arXiv:2204.13902, appendix).

  The step is along (55 eps - 59 eps_1 + 37 eps_2 - 9 eps_3)/24, with lower rules first. The weights are those
  for equal steps whatever the nodes are, so beyond order 1 it is of second order in general, with a smaller
  constant the higher the rule.

  Args:
    process: the Gaussian process.
    grid: [n+1] or [B, n+1] decreasing times.
    order: of the Adams-Bashforth rule, 1 to 4; 1 is DDIM.
    view, dtype, xp: as in `deis`.

  Raises:
    ValueError: a bad grid, order or view.

  >>> from diffusion import processes
  >>> print(ipndm(processes.edm(), np.array([3.0, 2.0, 1.0, 0.0]), order=2, view="eps"))
  ipndm(order=2): order 2, 3 evaluations, asks for eps, 2 slots, no noise (process edm)
  row 0  t=3   S0 <- S0 - E; S1 <- E
  row 1  t=2   S0 <- S0 + 0.5 S1 - 1.5 E; S1 <- E
  row 2  t=1   S0 <- S0 + 0.5 S1 - 1.5 E; S1 <- E
  output t=0   S0
  """
  if order not in ADAMS:
    raise ValueError(f"the order of ipndm is 1, 2, 3 or 4, got {order}")
  n = nodes(process, grid, dtype, xp, order, f"ipndm of order {order}")
  _, step = move(n, n.a <= 0, xp)
  weights = [c * step for c in warming(ADAMS, order, n.s.shape[-1])]
  return noise_table(n, weights, view, About(f"ipndm(order={order})", min(order, 2), process), dtype, xp)


def pndm(process: Any, grid: Any, *, view: str = "x0", dtype: Any = np.float32, xp: Any = np) -> Table:
  """PNDM: pseudo Runge-Kutta steps, then the fourth-order rule (arXiv:2202.09778, eq. 12-13).

  The first three steps are pseudo Runge-Kutta steps of four evaluations: n + 9 evaluations for n >= 4 steps.
  A step from pure noise or to clean data is DDIM's, or the rule's.

  Args:
    process: the Gaussian process.
    grid: [n+1] or [B, n+1] decreasing times, not traced.
    view, dtype, xp: as in `deis`.

  Raises:
    ValueError: a bad grid or view; a traced grid.

  >>> from diffusion import processes
  >>> pndm(processes.edm(), np.linspace(2.0, 1.0, 11)).cost
  19
  """
  n = nodes(process, grid, dtype, xp)
  if n.from_noise is None:
    raise ValueError("the ends of a grid decide the number of pndm's rows: give it a grid that is not traced")
  (g, h), silent = keep_noise(n, view, xp)
  ratio, step = move(n, silent, xp)
  steps = n.s.shape[-1]
  begin = int(bool(n.from_noise))
  fourfold = range(begin, min(begin + 3, steps - int(bool(n.to_data))))
  middle = ((n.t[..., :-1] + n.t[..., 1:]) / 2).astype(dtype).astype(np.float64)
  m = process.marginal(middle)
  a = xp.where(silent, 1.0, n.a)
  to_middle, half = m.alpha / a, m.sigma - n.s * m.alpha / a  # DDIM's step to the middle
  # Slots: the point, the step's start, the running sum of slopes, three past slopes.
  keep = lambda k: [float(j == k) for j in range(6)]
  pushed = remember(n, silent, 3, 6, 3, xp)
  rows = []  # (time, node of the conversion to eps: step, A, B, finishes a step)
  for i in range(steps):
    r, d, rm, dm = (leaf[..., i] for leaf in (ratio, step, to_middle, half))
    push = [[entry if isinstance(entry, float) else entry[..., i] for entry in row] for row in pushed]
    new = [entry if isinstance(entry, float) else entry[..., i] for entry in newest(silent, 3, xp)]
    now, end = n.t[..., i], n.t[..., i + 1]
    at = lambda a, s: (0.0 * s, 1.0 + 0.0 * s) if view == "eps" else (1 / s, -a / s)
    here = (g[..., i], h[..., i]) if view == "x0" else at(n.a[..., i], n.s[..., i])
    if i in fourfold:
      between, after = at(m.alpha[..., i], m.sigma[..., i]), at(n.a1[..., i], n.s1[..., i])
      hold = [keep(3), keep(4), keep(5)]
      rows += [
        (now, here, [[rm, 0, 0, 0, 0, 0], keep(0), [0] * 6, *push], [dm, 0, 1 / 6, *new], 0.0),
        (
          middle[..., i],
          between,
          [[0, rm, 0, 0, 0, 0], keep(1), keep(2), *hold],
          [dm, 0, 1 / 3, 0, 0, 0],
          0.0,
        ),
        (middle[..., i], between, [[0, r, 0, 0, 0, 0], keep(1), keep(2), *hold], [d, 0, 1 / 3, 0, 0, 0], 0.0),
        (end, after, [[0, r, d, 0, 0, 0], [0] * 6, [0] * 6, *hold], [d / 6, 0, 0, 0, 0, 0], 1.0),
      ]
    else:
      rule = ADAMS[min(i + 1 - begin, 4)] if i >= begin + len(fourfold) > begin else ADAMS[1]
      c = np.pad(rule, (0, 4 - len(rule)))
      rows.append(
        (now, here, [[r, 0, 0, *(d * c[1:])], [0] * 6, [0] * 6, *push], [d * c[0], 0, 0, *new], 1.0)
      )
  batch = n.t.shape[:-1]
  along = lambda entries: xp.stack(
    [xp.broadcast_to(xp.asarray(e, dtype=np.float64), batch) for e in entries], axis=-1
  )
  times, kept, A, B, done = zip(*rows)
  return build(
    xp.concatenate([along(times), n.t[..., -1:]], axis=-1),
    A=[[along([row[k][j] for row in A]) for j in range(6)] for k in range(6)],
    B=[along([row[k] for row in B]) for k in range(6)],
    g=along([pair[0] for pair in kept]),
    h=along([pair[1] for pair in kept]),
    hook=[along(done)] + [0.0] * 5,
    view=view,
    about=About("pndm", 2, process),
    dtype=dtype,
    xp=xp,
  )
