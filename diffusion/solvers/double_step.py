"""Steps of double length down, each followed by noise back up: the stochastic sampler of distilled models."""

from typing import Any

import numpy as np

from diffusion.solvers.about import About
from diffusion.solvers.grid_nodes import nodes
from diffusion.solvers.table import Table, build


def double_step(process: Any, grid: Any, *, dtype: Any = np.float32, xp: Any = np) -> Table:
  """DDIM over two steps, then noise back over one (arXiv:2210.03142).

    x' = alpha'/alpha'' x'' + sqrt(sigma'^2 - (alpha'/alpha'')^2 sigma''^2) z

  From node i a deterministic step to node i + 2, then the process's own noise up to node i + 1; the last
  node's step is plain DDIM. As many evaluations as steps. In the limit of short steps the flow at twice its
  speed and the noise make the reverse SDE, so of weak order 1 on a denoiser. A model distilled for it
  (`losses.progressive_distillation(..., sampler="double_step")`) makes each double step as its teacher makes
  two.

  Args:
    process: the Gaussian process.
    grid: [n+1] or [B, n+1] decreasing times.
    dtype: precision at run time.
    xp: numpy, or jax.numpy under x64 for a differentiable table.

  Raises:
    ValueError: a bad grid.

  >>> from diffusion import processes
  >>> print(double_step(processes.edm(), np.array([4.0, 2.0, 1.0, 0.0])))
  double_step: order 1, 3 evaluations, asks for x0, 1 slot, 1 noise (process edm)
  row 0  t=4   S0 <- 0.25 S0 + 0.75 E + 1.7321 z
  row 1  t=2   S0 <- E + z
  row 2  t=1   S0 <- E
  output t=0   S0
  """
  n = nodes(process, grid, dtype, xp)
  alpha, sigma = n.marginal.alpha, n.marginal.sigma
  far = xp.minimum(
    xp.arange(n.a.shape[-1]) + 2, n.a.shape[-1]
  )  # the last step reaches no further than the grid
  a2, s2 = alpha[..., far], sigma[..., far]
  lift = n.a1 / a2
  # sigma'^2 - lift^2 sigma''^2 without its cancellation where the two nodes are near: sigma'^2 (1 -
  # (rho''/rho')^2).
  rho, rho2 = xp.where(n.s1 > 0, n.s1 / n.a1, 1.0), s2 / a2
  noise = n.s1 * xp.sqrt(xp.maximum((1.0 - rho2 / rho) * (1.0 + rho2 / rho), 0.0))
  ratio = s2 / n.s
  about = About("double_step", 1, process)
  return build(
    n.t,
    A=[[lift * ratio]],
    B=[lift * (a2 - n.a * ratio)],
    C=[[noise]],
    view="x0",
    about=about,
    dtype=dtype,
    xp=xp,
  )
