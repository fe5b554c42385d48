"""Euler-Maruyama on the reverse SDE."""

from typing import Any

import numpy as np

from diffusion.solvers.about import About
from diffusion.solvers.grid_nodes import Nodes, nodes
from diffusion.solvers.table import Table, build


def euler_maruyama(
  process: Any, grid: Any, *, denoise: bool = True, dtype: Any = np.float32, xp: Any = np
) -> Table:
  """x' = x + (f x - g^2 score)(t' - t) + g sqrt(t - t') z (arXiv:2011.13456, section 4.1).

  The steps do not depend on the state, so this is a table. A step from pure noise, where f is infinite, is
  drawn from its limit N(alpha' D, sigma'^2).

  Args:
    process: the Gaussian process.
    grid: [n+1] or [B, n+1] decreasing times.
    denoise: whether the last step adds no noise and returns its mean, as Score SDE does.
    dtype, xp: as in `ddim`.
  """
  n = nodes(process, grid, dtype, xp)
  step = n.t[..., :-1] - n.t[..., 1:]
  a = xp.where(n.a > 0, n.a, 1.0)
  f = n.marginal.d_alpha[..., :-1] / a
  g2 = n.marginal.d_variance[..., :-1] - 2 * f * n.s**2
  # score = (alpha D - x) / sigma^2
  ratio = 1 - step * (f + g2 / n.s**2)
  return from_moments(
    n, ratio, step * g2 * n.a / n.s**2, step * g2, "euler_maruyama", process, denoise, dtype, xp
  )


def from_moments(
  n: Nodes, ratio: Any, weight: Any, variance: Any, name: str, process: Any, denoise: Any, dtype: Any, xp: Any
) -> Table:
  """The table x' = ratio x + weight D + sqrt(variance) z, with its limit where a step leaves pure noise."""
  no_signal = n.a <= 0
  ratio = xp.where(no_signal, 0.0, ratio)
  weight = xp.where(no_signal, n.a1, weight)
  noise = xp.where(no_signal, n.s1, xp.sqrt(xp.where(no_signal, 1.0, variance)))
  if denoise:
    noise = xp.where(np.arange(n.s.shape[-1]) == n.s.shape[-1] - 1, 0.0, noise)
  return build(n.t, A=[[ratio]], B=[weight], C=[[noise]], about=About(name, 1, process), dtype=dtype, xp=xp)
