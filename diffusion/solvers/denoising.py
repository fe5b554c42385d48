"""A last evaluation that removes the noise which a grid leaves."""

import numpy as np

from diffusion.solvers.table import About


def with_denoising(solver, process):
  """The solver with one more evaluation, at its last node, that returns the posterior mean of the clean data.

  For processes that still carry noise at t = 0 (VE, NCSN's ladder), and for grids cut above it: x0 = (x +
  sigma^2 score) / alpha (arXiv:2011.13456, appendix G; it matters a lot for FID). A predictor-corrector also
  corrects at that node.

  Args:
    solver: a `Table` on one grid for all samples, or a `PredictorCorrector`.
    process: the process it was built for.

  Raises:
    ValueError: the grid already ends in clean data, or the table has one grid a sample.

  >>> from diffusion import processes, solvers
  >>> process = processes.ve()
  >>> table = solvers.ddim(process, solvers.grids.log_snr(process, 4))
  >>> with_denoising(table, process).nfe
  5
  """
  if hasattr(solver, "table"):
    last = lambda leaf, value: np.append(np.asarray(leaf), np.asarray(value, np.asarray(leaf).dtype))
    sigma = process.marginal(float(np.asarray(solver.table.t)[-1])).sigma
    table = with_denoising(solver.table, process)
    return solver.replace(table=table, scale=last(solver.scale, 1.0), sigma=last(solver.sigma, sigma))
  t = np.asarray(solver.t, np.float64)
  if t.ndim != 1:
    raise ValueError("with_denoising takes a solver with one grid for all samples")
  m = process.marginal(t[-1])
  if not m.sigma > 0:
    raise ValueError("the grid already ends in clean data, where there is no noise left to remove")
  # The new row evaluates at the old output w . S and writes x0 into slot 0.
  of_x, of_view = _clean(solver.view, float(m.alpha), float(m.sigma))
  slots = solver.A.shape[-1]
  joined = lambda leaf, row: np.concatenate([np.asarray(leaf, np.float64), np.asarray(row, np.float64)[None]])
  point = np.asarray(solver.w, np.float64)[-1]
  first = np.eye(slots)[0]
  A = joined(solver.A, np.outer(first, of_x * point))
  B = joined(solver.B, of_view * first)
  C = joined(solver.C, np.zeros(solver.C.shape[1:]))
  table = solver.replace(about=About(f"{solver.name} + denoising", solver.order, process))
  leaves = dict(
    t=np.append(t, t[-1]),
    g=np.append(solver.g, 0.0),
    h=np.append(solver.h, 1.0),
    A=A,
    B=B,
    C=C,
    w=joined(solver.w, first),
    hook=joined(solver.hook, first),
  )
  return table.replace(**{name: leaf.astype(np.asarray(solver.t).dtype) for name, leaf in leaves.items()})


def _clean(view, alpha, sigma):
  """Factors of x and of a view that give x0, from x = alpha x0 + sigma eps."""
  if view == "x0":
    return 0.0, 1.0
  if view == "eps":
    return 1 / alpha, -sigma / alpha
  if view == "score":
    return 1 / alpha, sigma**2 / alpha
  raise ValueError(f"with_denoising knows tables that ask for x0, eps or score, not for {view}")
