"""UniPC, the predictor and corrector of one order in log-SNR, one evaluation a step."""

from typing import Any

import numpy as np

from diffusion.solvers.about import About
from diffusion.solvers.data_history import data_ratio, data_table, data_weights
from diffusion.solvers.grid_nodes import nodes
from diffusion.solvers.multistep import past
from diffusion.solvers.table import Table


def unipc(
  process: Any,
  grid: Any,
  *,
  order: int = 3,
  variant: str = "bh2",
  corrector: bool = True,
  lower_order_final: Any = None,
  dtype: Any = np.float32,
  xp: Any = np,
) -> Table:
  """UniPC-p on the data prediction (arXiv:2302.04867, algorithms 5 and 6).

  The predictor integrates the polynomial through the last p data predictions against e^lambda, the corrector
  the one that also passes through the next, which is the next row's own evaluation. Those weights solve the
  paper's linear system for every B(h), which cancels; it remains where the paper sets a weight to 1/2, in the
  predictor of order 2 and the corrector of order 1, that is in all orders' warm-up.

  The corrector raises the order p of the predictor to p + 1, once warmed up (see `deis`).

  Args:
    process: the Gaussian process.
    grid: [n+1] or [B, n+1] decreasing times.
    order: p, 1 to 4.
    variant: 'bh1', B(h) = h, or 'bh2', B(h) = e^h - 1 in the paper's sign.
    corrector: whether to correct; without it this is UniP.
    lower_order_final: whether the last steps have order p-1, ..., 1, as in the authors' code; None to do so
      if the last (of finite length) is longer than 0.5 in log(alpha/sigma). Steps that shrink with n would
      lose their order by it.
    dtype, xp: as in `ddim`.

  Raises:
    ValueError: a bad grid, order or variant.

  >>> from diffusion import processes
  >>> print(unipc(processes.edm(), np.array([4.0, 2.0, 1.0]), order=1))
  unipc(order=1, bh2): order 2, 2 evaluations, asks for x0, 3 slots, no noise (process edm)
  start  S0 <- x; S1 <- x; S2 <- 0
  row 0  t=4   S0 <- 0.5 S0 + 0.5 E; S1 <- 0.5 S0; S2 <- E
  row 1  t=2   S0 <- 0.5 S1 + 0.125 S2 + 0.625 E; S1 <- 0.5 S1 + 0.125 S2 + 0.125 E; S2 <- E
  output t=1   S0
  """
  if order not in (1, 2, 3, 4):
    raise ValueError(f"the order of unipc is 1, 2, 3 or 4, got {order}")
  if variant not in ("bh1", "bh2"):
    raise ValueError(f"the variant of unipc is 'bh1' or 'bh2', got {variant!r}")
  n = nodes(process, grid, dtype, xp, order, f"unipc of order {order}")
  h = xp.where(n.long, 1.0, n.h)
  full = -n.a1 * xp.expm1(-h)  # weight of a constant D
  half = (n.a1 * h if variant == "bh1" else full) / 2
  predict, usable = data_weights(n, order, xp, lower_order_final=lower_order_final)
  if order > 1:
    two = ~n.long & usable[1] & (~usable[2] if order > 2 else True)
    slope = half * h / xp.where(two, past(h, 1, xp, 1.0), 1.0)
    predict[0] = xp.where(two, full + slope, predict[0])
    predict[1] = xp.where(two, -slope, predict[1])
  correct = None
  if corrector:
    correct, usable = data_weights(n, order, xp, ahead=True, lower_order_final=lower_order_final)
    one = ~n.long & (~usable[2] if order > 1 else True)
    correct[0] = xp.where(one, half, correct[0])
    correct[1] = xp.where(one, full - half, correct[1])
  name = f"unipc(order={order}, {variant})" if corrector else f"unip(order={order}, {variant})"
  about = About(name, order + bool(corrector), process)
  return data_table(n, data_ratio(n, xp), predict, about, dtype, xp, corrector=correct)
