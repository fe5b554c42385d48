"""Level-by-level sampling of diffusion recovery likelihood."""

from typing import Any

import numpy as np

from diffusion.processes.recovery import recovery_levels
from diffusion.solvers.about import About
from diffusion.solvers.table import Table, build


def recovery_langevin(
  process: Any,
  grid: Any,
  *,
  steps_per_level: int = 30,
  step: float = 0.3,
  noise_scale: float = 1.0,
  data_std: float = 1.0,
  denoise: bool = False,
  dtype: Any = np.float32,
) -> Table:
  """Langevin in p(x_i | x_{i+1}) from x_{i+1}, level after level (arXiv:2012.08125, algorithm 2).

    x <- x + h/2 [score(x, t_i) + gain (x_{i+1} - gain x) / noise^2] + sqrt(h) z

  with the levels, the steps h and the starts of `processes.recovery_levels`, so that a model of
  `losses.recovery_likelihood` is sampled by the chain that it was trained with. Linear in the score, it is a
  table: levels * steps_per_level evaluations, and one more with `denoise`. The result has the noise of the
  last node.

  Args:
    process: the Gaussian process.
    grid: [T+1] decreasing times of the levels; a last one without noise is left out.
    steps_per_level: K.
    step: as in `recovery_levels`.
    noise_scale: factor of z; the authors' code takes 0.99.
    data_std: of the data.
    denoise: whether a last evaluation returns the posterior mean at the last node.
    dtype: precision at run time.

  Raises:
    ValueError: steps_per_level below 1, a bad grid or step, as `recovery_levels` says.

  >>> from diffusion import processes
  >>> table = recovery_langevin(processes.ddpm_ladder(), processes.T6_TIMES[::-1])
  >>> table.cost, table.stochastic
  (180, True)
  """
  if steps_per_level < 1:
    raise ValueError(f"steps_per_level must be at least 1, got {steps_per_level}")
  grid = np.asarray(grid, dtype).astype(np.float64)
  if grid.ndim != 1 or not np.all(np.diff(grid) < 0):
    raise ValueError(f"a grid runs from noise to data and strictly decreases, got {grid.tolist()}")
  times = grid[::-1]
  times = times[1:] if process.marginal(times[0]).sigma == 0 else times
  levels = recovery_levels(process, times, step=step, data_std=data_std)
  # From here on the noisiest level comes first. Slot 0 is x, slot 1 the noisier point that it is recovered
  # from.
  gain, noise, size, start = (leaf[::-1] for leaf in (levels.gain, levels.noise, levels.step, levels.start))
  repeat = lambda leaf: np.repeat(leaf, steps_per_level)
  last = np.tile(np.arange(steps_per_level) == steps_per_level - 1, levels.count)
  pull = 0.5 * repeat(size * gain / noise**2)
  moved = (1.0 - pull * repeat(gain), pull, 0.5 * repeat(size), noise_scale * np.sqrt(repeat(size)))
  # The last step of a level makes its end the next noisy point, and the start of the next chain out of it.
  rescale = np.where(last, repeat(np.append(start[1:], 1.0)), 1.0)
  A = [
    [rescale * moved[0], rescale * moved[1]],
    [np.where(last, moved[0], 0.0), np.where(last, moved[1], 1.0)],
  ]
  B = [rescale * moved[2], np.where(last, moved[2], 0.0)]
  C = [[rescale * moved[3]], [np.where(last, moved[3], 0.0)]]
  hook = [np.where(last, 1.0, 0.0), np.where(last, 1.0 / rescale, 0.0)]
  t = np.append(repeat(times[:-1][::-1]), times[0])
  if denoise:
    m = process.marginal(times[0])
    row = lambda leaf, value: np.append(leaf, float(value))
    A = [[row(A[0][0], 1 / m.alpha), row(A[0][1], 0.0)], [row(A[1][0], 0.0), row(A[1][1], 1.0)]]
    B = [row(B[0], m.sigma**2 / m.alpha), row(B[1], 0.0)]
    C = [[row(C[0][0], 0.0)], [row(C[1][0], 0.0)]]
    hook = [row(hook[0], 1.0), row(hook[1], 0.0)]
    t = np.append(t, 0.0)
  about = About(f"recovery_langevin(K={steps_per_level})", None, process)
  return build(
    t, A=A, B=B, C=C, start=[[start[0], 0.0], [1.0, 0.0]], hook=hook, view="score", about=about, dtype=dtype
  )
