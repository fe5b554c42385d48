"""A last evaluation that removes the noise which a grid leaves."""

from typing import Any, Protocol

import numpy as np

from diffusion.solvers.about import About


class Denoisable(Protocol):
  """A solver that can be given a last evaluation: a `Table` or a `PredictorCorrector`."""

  def denoised(self, process: Any) -> Any:
    """The solver with that evaluation."""
    ...


def with_denoising(solver: Denoisable, process: Any) -> Any:
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
  >>> with_denoising(table, process).cost
  5
  """
  return solver.denoised(process)


def denoised_leaves(table: Any, process: Any) -> dict[str, Any]:
  """What `Table.denoised` replaces, by name: every leaf with one row more, and what people read."""
  t = np.asarray(table.t, np.float64)
  if t.ndim != 1:
    raise ValueError("with_denoising takes a solver with one grid for all samples")
  m = process.marginal(t[-1])
  if not m.sigma > 0:
    raise ValueError("the grid already ends in clean data, where there is no noise left to remove")
  # The new row evaluates at the old output w . S and writes x0 into slot 0.
  of_x, of_view = _clean(table.view, float(m.alpha), float(m.sigma))
  slots = table.A.shape[-1]
  joined = lambda leaf, row: np.concatenate([np.asarray(leaf, np.float64), np.asarray(row, np.float64)[None]])
  point = np.asarray(table.w, np.float64)[-1]
  first = np.eye(slots)[0]
  leaves = dict(
    t=np.append(t, t[-1]),
    g=np.append(table.g, 0.0),
    h=np.append(table.h, 1.0),
    A=joined(table.A, np.outer(first, of_x * point)),
    B=joined(table.B, of_view * first),
    C=joined(table.C, np.zeros(table.C.shape[1:])),
    w=joined(table.w, first),
    hook=joined(table.hook, first),
  )
  dtype = np.asarray(table.t).dtype
  about = About(f"{table.name} + denoising", table.order, process)
  return {name: leaf.astype(dtype) for name, leaf in leaves.items()} | dict(about=about)


def _clean(view: str, alpha: float, sigma: float) -> tuple[float, float]:
  """Factors of x and of a view that give x0, from x = alpha x0 + sigma eps."""
  if view == "x0":
    return 0.0, 1.0
  if view == "eps":
    return 1 / alpha, -sigma / alpha
  if view == "score":
    return 1 / alpha, sigma**2 / alpha
  raise ValueError(f"with_denoising knows tables that ask for x0, eps or score, not for {view}")
