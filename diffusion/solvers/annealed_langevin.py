"""Annealed Langevin dynamics of NCSN."""

from typing import Any

import numpy as np

from diffusion.solvers.about import About
from diffusion.solvers.grid_nodes import nodes
from diffusion.solvers.table import Table, build

# NCSNv2's published CIFAR-10 setting: step 6.2e-6 at sigma_L = 0.01.
STEP_TO_LAST_VARIANCE = 0.062


def annealed_langevin(
  process: Any,
  grid: Any,
  *,
  steps_per_level: int = 5,
  step: float | None = None,
  denoise: bool = True,
  dtype: Any = np.float32,
  xp: Any = np,
) -> Table:
  """Annealed Langevin dynamics down a ladder of noise levels (arXiv:2006.09011, algorithm 1).

    x <- x + a_i score(x, sigma_i) + sqrt(2 a_i) z,  a_i = step sigma_i^2 / sigma_L^2

  Every node that has noise is a level, visited `steps_per_level` times; a last evaluation at the smallest
  returns the posterior mean x + sigma_L^2 score. The step sizes are fixed, so this is a table:
  levels * steps_per_level + 1 evaluations.

  Args:
    process: the Gaussian process, in practice a variance-exploding one.
    grid: [L] or [B, L] decreasing times of the levels, or those and t = 0 where sigma = 0.
    steps_per_level: T.
    step: epsilon; None for 0.062 sigma_L^2, NCSNv2's ratio on CIFAR-10 (its technique 4 chooses it from the
      ladder).
    denoise: whether to make the last evaluation.
    dtype, xp: as in `ddim`.

  Raises:
    ValueError: a bad grid, steps_per_level below 1, a step outside (0, 2 sigma_L^2), where Langevin diverges.

  >>> from diffusion import processes
  >>> table = annealed_langevin(processes.ve(), np.array([1.0, 0.5, 0.0]), steps_per_level=2)
  >>> table.cost
  7
  """
  if steps_per_level < 1:
    raise ValueError(f"steps_per_level must be at least 1, got {steps_per_level}")
  n = nodes(process, grid, dtype, xp)
  count = n.t.shape[-1] - (1 if n.to_data else 0)
  t, alpha, sigma = n.t[..., :count], n.marginal.alpha[..., :count], n.marginal.sigma[..., :count]
  last = sigma[..., -1:] ** 2
  share = STEP_TO_LAST_VARIANCE if step is None else step / last
  if step is not None and n.to_data is not None and not np.all((share > 0) & (share < 2)):
    raise ValueError(f"Langevin needs 0 < step < 2 sigma_L^2 = {float(2 * np.min(last)):g}, got step={step}")
  size = share * sigma**2
  repeat = lambda leaf, extra: xp.concatenate(
    [xp.repeat(leaf, steps_per_level, axis=-1)] + [extra] * denoise, axis=-1
  )
  end, zero = t[..., -1:], 0.0 * last
  times = xp.concatenate([repeat(t, end), zero if denoise else end], axis=-1)
  # The denoising row is (x + sigma^2 score) / alpha.
  ratio = repeat(1.0 + 0.0 * size, 1.0 / alpha[..., -1:])
  weight = repeat(size, last / alpha[..., -1:])
  noise = repeat(xp.sqrt(2 * size), zero)
  about = About(f"annealed_langevin(T={steps_per_level})", None, process)
  return build(times, A=[[ratio]], B=[weight], C=[[noise]], view="score", about=about, dtype=dtype, xp=xp)
