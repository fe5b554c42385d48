"""Starting below the process's last time.

Where there is nearly only noise the probability flow is known without a network.
"""

from typing import Any

import numpy as np

from diffusion.solvers.about import About
from diffusion.solvers.table import Table


def late_start(solver: Table, process: Any, std: float = 1.0) -> Table:
  """The solver of a grid that starts below t_max, for x that is drawn at t_max.

  The flow in between is that of data ~ N(0, std^2 I):

    x <- (alpha/alpha_max) sqrt((std^2 + rho^2) / (std^2 + rho_max^2)) x

  with rho = sigma/alpha at the grid's first node. No evaluation is spent where the data are one blur, so a
  small budget has shorter steps elsewhere (the Gaussian approximation of arXiv:2412.09726 with a round
  covariance; on a variance-preserving process and std = 1 it is the identity, which is how common libraries'
  'leading' time steps start). The error grows with the gap between the data and that Gaussian, about (1 +
  |mean|^2/std^2) std^2/rho^2.

  Args:
    solver: a `Table` without noise in its start.
    process: the process it was built for; t_max must have signal.
    std: standard deviation of the data.

  Raises:
    ValueError: a process without signal at t_max, a table that draws noise first, std not positive.

  >>> from diffusion import processes, solvers
  >>> process = processes.edm()
  >>> grid = solvers.grids.vp_time(process, 4, t_max=20.0, t_min=0.0)
  >>> print(late_start(solvers.ddim(process, grid), process).start.round(4))
  [[0.2503]]
  """
  if not std > 0:
    raise ValueError(f"std is the standard deviation of the data and positive, got {std}")
  last, first = (
    process.marginal(t) for t in (float(process.t_max), np.asarray(solver.t, np.float64)[..., 0])
  )
  if not float(last.alpha) > 0:
    raise ValueError(
      f"the process {process.name!r} has no signal at t_max, so its noise says nothing of where a later "
      "start is: start at t_max"
    )
  if np.any(np.asarray(solver.start)[..., 1:]):
    raise ValueError(f"{solver.name} draws noise before its first row: it has to start where x is drawn")
  scale = (
    first.alpha
    / last.alpha
    * np.sqrt((std**2 + first.noise_to_signal**2) / (std**2 + last.noise_to_signal**2))
  )
  start = np.asarray(solver.start, np.float64) * np.asarray(scale)[..., None, None]
  return solver.replace(
    start=start.astype(np.asarray(solver.start).dtype),
    about=About(f"{solver.name}, late start", None, process),
  )
