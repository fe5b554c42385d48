"""Tables that remember past data predictions, with or without a corrector.

A step is x' = ratio x + sum_j W_j D_j + noise z.
"""

from typing import Any

import numpy as np

from diffusion.solvers.about import About
from diffusion.solvers.grid_nodes import Nodes
from diffusion.solvers.multistep import integrals, past, quadrature
from diffusion.solvers.table import Table, build

# A last step longer than this in log(alpha/sigma) is too long for extrapolation of high order (on mixtures of
# Gaussians).
LONG = 0.5


def data_ratio(n: Nodes, xp: Any, eta: float = 0.0) -> Any:
  """(sigma'/sigma) e^(-eta h), the factor of x in the exact step; eta is a number or [..., n]."""
  return n.s1 / n.s * _decay(n, eta, xp)


def data_noise(n: Nodes, xp: Any, eta: Any) -> Any:
  """sigma' sqrt(1 - e^(-2 eta h)), the standard deviation of the noise of the exact step."""
  h = xp.where(n.long, 1.0, n.h)
  lost = xp.where(n.long, xp.where(eta + xp.zeros_like(n.s) > 0, 1.0, 0.0), -xp.expm1(-2 * eta * h))
  return n.s1 * xp.where(lost > 0, xp.sqrt(xp.where(lost > 0, lost, 1.0)), 0.0)


def _decay(n, eta, xp):
  """e^(-eta h): without noise 1 though h is infinite. Infinite h is masked, so that gradients are finite."""
  return xp.where(
    n.long, xp.where(eta + xp.zeros_like(n.s) > 0, 0.0, 1.0), xp.exp(-eta * xp.where(n.long, 1.0, n.h))
  )


def data_weights(
  n: Nodes, depth: int, xp: Any, eta: float = 0.0, ahead: bool = False, lower_order_final: Any = None
) -> Any:
  """alpha' (1 + eta) int e^(-(1+eta)(lambda' - lambda)) l_j(lambda) d lambda on each step: list of [..., n].

  l_j are the Lagrange polynomials in lambda = log(alpha/sigma) through the last `depth` nodes, or as many as
  there are; with ahead=True the end of the step is one more point, the first in the list. An infinitely long
  step has its first-order limit, which has no use for the end of the step.

  With lower_order_final no step uses more past nodes than there are steps left, itself included. That is
  better where steps stay long in lambda to the end, as on nodes quadratic in t, and costs order where they
  shrink, so None decides by the last step of finite length.
  """
  h = xp.where(n.long, 1.0, n.h)
  # lambda counted from the start of the step, as each past node is seen from there.
  seen = [0.0 * h]
  for j in range(1, depth):
    seen.append(seen[-1] - past(h, j, xp, 1.0))
  last = xp.where(n.long, 0.0, n.h)[..., -2:]
  final = (
    (xp.where(n.long[..., -1:], last[..., :1], last[..., -1:]) > LONG)
    if lower_order_final is None
    else lower_order_final
  )
  usable = [xp.ones_like(h) > 0]
  for j in range(1, depth):
    late = final & (np.arange(h.shape[-1]) >= h.shape[-1] - j)
    usable.append(usable[-1] & past(~n.long, j, xp, False) & ~late)
  if ahead:
    seen, usable = [h, *seen], [~n.long, *usable]
  u, w = quadrature(0.0 * h, h)
  rate = (1.0 + eta + 0.0 * h)[..., None]
  weights = integrals(seen, usable, u, n.a1[..., None] * rate * xp.exp(-rate * (h[..., None] - u)) * w, xp)
  now = 1 if ahead else 0
  return [xp.where(n.long, n.a1 if j == now else 0.0, weight) for j, weight in enumerate(weights)], usable


def data_table(
  n: Nodes,
  ratio: Any,
  weights: Any,
  about: About,
  dtype: Any,
  xp: Any,
  *,
  noise: Any = None,
  corrector: Any = None,
) -> Table:
  """The table of a multistep sampler in the data prediction.

  Args:
    n: `Nodes`.
    ratio: [..., n] factor of x.
    weights: list of [..., n], of the newest D, the one before, ...
    about, dtype, xp: as in `build`.
    noise: None or [..., n], the noise of each step.
    corrector: None, or a list of [..., n] for each step: the weights of D at its end, at its start, before,
      ... The evaluation at the end of a step is the next row's own, so that row corrects the step first. What
      has no corrector has weights of zero.

  Without a corrector the slots are x and past D; with it, the predicted point, the corrected point carried
  over the step (and its noise) but for its D, and past D.
  """
  if corrector is None:
    depth = len(weights) - 1
    A = [[ratio, *weights[1:]], *_shift(depth, depth + 1, 1)]
    B = [weights[0], *_newest(depth)]
    C = [[noise]] + [[0.0]] * depth if noise is not None else ()
    return build(n.t, A=A, B=B, C=C, about=about, dtype=dtype, xp=xp)
  depth = max(len(corrector), len(weights)) - 1
  fill = lambda row, size: [*row, *[0.0 * ratio] * (size - len(row))]
  # The corrected point at row i: S1 + c . (E, H), for the step that ends there; where there is none, the
  # point itself.
  at_end, *before = [past(c, 1, xp) for c in fill(corrector, depth + 1)]
  corrected = xp.where(at_end != 0, 1.0, 0.0)
  point = [1 - corrected, corrected, *(corrected * c for c in before)]
  predicted = fill(weights, depth + 1)
  carried = [ratio * c for c in point]
  # The start of the next step carries the D that its corrector adds later, so only x and the noise are
  # carried in S1.
  A = [
    [carried[0], carried[1], *(c + w for c, w in zip(carried[2:], predicted[1:]))],
    carried,
    *_shift(depth, depth + 2, 2),
  ]
  B = [ratio * at_end + predicted[0], ratio * at_end, *_newest(depth)]
  C = [[noise], [noise]] + [[0.0]] * depth if noise is not None else ()
  return build(
    n.t,
    A=A,
    B=B,
    C=C,
    start=[[1.0] + [0.0] * bool(C)] * 2 + [[0.0] * (1 + bool(C))] * depth,
    hook=[1.0, 1.0] + [0.0] * depth,
    about=about,
    dtype=dtype,
    xp=xp,
  )


def _shift(depth, slots, begin):
  """Rows of A that move a history in slots `begin`, `begin` + 1, ... one slot on."""
  rows = [[0.0] * slots for _ in range(depth)]
  for k in range(1, depth):
    rows[k][begin + k - 1] = 1.0
  return rows


def _newest(depth):
  return [1.0] * min(depth, 1) + [0.0] * (depth - 1)
