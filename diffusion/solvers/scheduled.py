"""Multistep samplers whose order, prediction and correction are chosen step by step."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from diffusion.solvers.about import About
from diffusion.solvers.grid_nodes import nodes
from diffusion.solvers.multistep import integrals, past, quadrature
from diffusion.solvers.table import Table, build

# Past evaluations that are kept, of each kind: order 4 uses three and the newest.
DEPTH = 3


def scheduled(
  process: Any,
  grid: Any,
  orders: Sequence[int],
  predictions: Sequence[str],
  correctors: Sequence[bool],
  *,
  dtype: Any = np.float32,
) -> Table:
  """A multistep table whose order, prediction and correction are given step by step.

  Step i integrates the polynomial in log(alpha/sigma) through its last orders[i] data or noise predictions.
  These are the decisions of the unified framework of arXiv:2312.07243 (section 3): with 'x0' a step is that
  of DPM-Solver++ multistep, with 'eps' that of DPM-Solver multistep; a corrected step is taken again with the
  evaluation at its end, which is the next row's own, as in UniPC. All schedules of one length are tables of
  one shape and so one program.

  Args:
    process: the Gaussian process.
    grid: [n+1] decreasing times.
    orders: n numbers 1 to 4; a step has no more than there are evaluations, and one from alpha = 0 or to
      sigma = 0 is of order 1.
    predictions: n of 'x0' and 'eps'.
    correctors: n booleans; the last step has no later evaluation and is never corrected.
    dtype: precision at run time.

  Raises:
    ValueError: a bad grid, lists of another length, an unknown order or prediction.

  >>> from diffusion import processes, solvers
  >>> grid = np.array([0.9, 0.5, 0.2, 0.05])
  >>> same = scheduled(processes.vp_linear(), grid, [1, 2, 2], ["x0"] * 3, [False] * 3)
  >>> known = solvers.dpmpp_3m(processes.vp_linear(), grid, lower_order_final=False)
  >>> bool(np.allclose(same.A[1, 0, 0], known.A[1, 0, 0])), same.cost
  (True, 3)
  """
  n = nodes(process, grid, dtype)
  count = n.s.shape[-1]
  if n.t.ndim != 1 or not len(orders) == len(predictions) == len(correctors) == count:
    raise ValueError(
      f"a schedule has one order, prediction and corrector for each of the {count} steps of one grid, got "
      f"{len(orders)},"
      f" {len(predictions)} and {len(correctors)}"
    )
  if not set(orders) <= {1, 2, 3, 4} or not set(predictions) <= {"x0", "eps"}:
    raise ValueError(
      f"orders are 1 to 4 and predictions 'x0' or 'eps', got {list(orders)} and {list(predictions)}"
    )
  wanted, of_data = np.asarray(orders), np.asarray([p == "x0" for p in predictions]) | n.long
  predict = _weights(n, wanted, of_data, ahead=False)
  corrected = np.asarray(correctors, bool) & ~n.long & (np.arange(count) < count - 1)
  correct = _weights(n, wanted, of_data, ahead=True)
  a = np.where(n.long, 1.0, n.a)
  ratio = np.where(of_data, n.s1 / n.s, n.a1 / a)

  # Slots: the predicted point u, the start of the step carried over it, past D, past eps. A value is (its row
  # over the slots, its factor of E = D); eps = (u - alpha D) / sigma.
  slots = 2 + 2 * DEPTH
  A, B = np.zeros((slots, slots, count)), np.zeros((slots, count))
  unit = np.eye(slots)
  for i in range(count):
    data = [(np.zeros(slots), 1.0)] + [(unit[2 + j], 0.0) for j in range(DEPTH)]
    eps = [(unit[0] / n.s[i], -n.a[i] / n.s[i])] + [(unit[2 + DEPTH + j], 0.0) for j in range(DEPTH)]
    point = (unit[0], 0.0)
    if i and corrected[i - 1]:
      seen = data if of_data[i - 1] else eps
      point = _sum([(unit[1], 0.0), *seen], [1.0, *(w[i - 1] for w in correct)])
    carried = _sum([point], [ratio[i]])
    seen = data if of_data[i] else eps
    rows = [_sum([carried, *seen], [1.0, *(w[i] for w in predict)]), carried, *data[:DEPTH], *eps[:DEPTH]]
    for k, (row, factor) in enumerate(rows):
      A[k, :, i], B[k, i] = row, factor
  rows = " ".join(
    f"{order}{prediction[0]}{'c' if fix else ''}"
    for order, prediction, fix in zip(wanted, predictions, corrected)
  )
  about = About(f"scheduled({rows})", 1, process)
  return build(
    n.t,
    A=[[A[k, j] for j in range(slots)] for k in range(slots)],
    B=list(B),
    start=[[1.0], [1.0]] + [[0.0]] * (2 * DEPTH),
    hook=[1.0, 1.0] + [0.0] * (2 * DEPTH),
    about=about,
    dtype=dtype,
  )


def _sum(values, weights):
  """A combination of values as (row, factor of E)."""
  return sum(w * row for w, (row, _) in zip(weights, values)), sum(
    w * factor for w, (_, factor) in zip(weights, values)
  )


def _weights(n, orders, of_data, ahead):
  """The weight of each evaluation in each step, newest first.

  With `ahead` the first is that of the end of the step.
  """
  h = np.where(n.long, 1.0, n.h)
  seen, usable = [0.0 * h], [np.ones_like(n.long)]
  for j in range(1, DEPTH + 1):
    seen.append(seen[-1] - past(h, j, np, 1.0))
    usable.append(usable[-1] & past(~n.long, j, np, False) & (j < orders))
  if ahead:
    # The newest takes the place of the oldest, so that all are at most four.
    seen, usable = [h, *seen[:DEPTH]], [~n.long, *usable[:DEPTH]]
  u, w = quadrature(0.0 * h, h)
  # alpha' e^-(lambda' - lambda) d lambda on D, -sigma' e^(lambda' - lambda) d lambda on eps.
  left = h[..., None] - u
  measure = np.where(of_data[..., None], n.a1[..., None] * np.exp(-left), -n.s1[..., None] * np.exp(left))
  weights = integrals(seen, usable, u, measure * w, np)
  return [np.where(n.long, n.a1 if j == 0 else 0.0, weight) for j, weight in enumerate(weights)]
