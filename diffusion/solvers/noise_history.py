"""Tables that remember past noise predictions: x' = (alpha'/alpha) x + sum_j W_j eps_j."""

from typing import Any

from diffusion.solvers.about import About
from diffusion.solvers.grid_nodes import Nodes
from diffusion.solvers.multistep import integrals, past, quadrature
from diffusion.solvers.table import Table, build


def keep_noise(n: Nodes, view: str, xp: Any) -> Any:
  """How a row gets E = eps from the network's view: (g, h), and where it cannot.

  Where there is no signal eps is x / sigma, which says nothing of the data; such a row keeps E = D.

  Raises:
    ValueError: another view, or eps asked for where alpha = 0.
  """
  silent = n.a <= 0
  if view == "x0":
    return (xp.where(silent, 0.0, 1 / n.s), xp.where(silent, 1.0, -n.a / n.s)), silent
  if view != "eps":
    raise ValueError(f"the network can be asked for 'x0' or 'eps', got view={view!r}")
  if n.from_noise:
    raise ValueError(
      "the grid starts where there is no signal (alpha = 0), where eps says nothing of the data: start the "
      "grid"
      " at an earlier time, or use view='x0'"
    )
  return (0.0, 1.0), silent


def move(n: Nodes, silent: Any, xp: Any) -> Any:
  """DDIM's step x' = ratio x + weight E with E from `keep_noise`: the pair (ratio, weight), each [..., n]."""
  a = xp.where(silent, 1.0, n.a)
  return xp.where(silent, n.s1 / n.s, n.a1 / a), xp.where(silent, n.a1, n.s1 - n.s * n.a1 / a)


def noise_weights(process: Any, n: Nodes, depth: int, clock: str, xp: Any) -> Any:
  """The weights of past noise predictions in each step: list of [..., n].

  They are alpha' int l_j d rho for the polynomials l_j in the clock through the last `depth` nodes. The sum
  runs over asinh(rho), in which rho and the time of every process are smooth from rho = 0 to many decades. It
  is finite where sigma' = 0. At a row without signal the weights mean nothing.

  Args:
    process, n: the process and its `Nodes`.
    depth: how many evaluations are used, once there are so many.
    clock: 't' or 'rho'.
    xp: numpy or jax.numpy.
  """
  silent = n.a <= 0
  rho = xp.where(silent, 0.0, n.s / xp.where(silent, 1.0, n.a))
  u, w = quadrature(xp.arcsinh(rho), xp.arcsinh(xp.where(silent, 0.0, n.s1 / n.a1)))
  at = xp.sinh(u)
  inside = xp.where(silent[..., None], 1.0, at)
  position, nodes = (process.t_of_log_snr(-2 * xp.log(inside)), n.t[..., :-1]) if clock == "t" else (at, rho)
  there = xp.ones_like(rho) > 0
  known = there if clock == "t" else ~silent  # rho is infinite where there is no signal; t is not
  points = [past(nodes, j, xp) for j in range(depth)]
  usable = [known if j == 0 else past(known, j, xp, False) for j in range(depth)]
  return integrals(points, usable, position, n.a1[..., None] * xp.cosh(u) * w, xp)


def noise_table(n: Nodes, weights: Any, view: str, about: About, dtype: Any, xp: Any) -> Table:
  """The table x' = (alpha'/alpha) x + sum_j W_j eps_j, with DDIM's step where there is no signal.

  Slots: x and the past eps, newest first.
  """
  (g, h), silent = keep_noise(n, view, xp)
  ratio, limit = move(n, silent, xp)
  first, *older = [xp.where(silent, limit if j == 0 else 0.0, w) for j, w in enumerate(weights)]
  depth = len(older)
  A = [[ratio, *older]] + remember(n, silent, depth, depth + 1, 1, xp)
  B = [first, *newest(silent, depth, xp)]
  return build(n.t, A=A, B=B, g=g, h=h, view=view, about=about, dtype=dtype, xp=xp)


def remember(n: Nodes, silent: Any, depth: int, slots: int, begin: Any, xp: Any) -> Any:
  """Rows of A that push E into a history of `depth` slots from slot `begin` on.

  Where there is no signal, they push x / sigma.
  """
  rows = [[0.0] * slots for _ in range(depth)]
  for k in range(1, depth):
    rows[k][begin + k - 1] = 1.0
  if depth:
    rows[0][0] = xp.where(silent, 1 / n.s, 0.0)
  return rows


def newest(silent: Any, depth: int, xp: Any) -> Any:
  """Entries of B for the same history."""
  return [xp.where(silent, 0.0, 1.0)] * min(depth, 1) + [0.0] * (depth - 1)
