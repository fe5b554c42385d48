"""Tables fitted by `solvers.fit` on the problems of the frontier, judged on starts that the fit has not seen."""

import numpy as np

import frontier_problems as problems
from diffusion import solvers

LARGEST = 15  # evaluations
STARTS = {"ring2d": 2048, "gmm64": 256, "digits": 256}
ITERATIONS = {"ring2d": 40, "gmm64": 20, "digits": 20}
_references = {}


def training(case):
  """(starts, their fine solution): others than the case's own, which judge."""
  key = case.problem, case.noise
  if key not in _references:
    process = case.denoiser.process
    x = np.random.default_rng(101).normal(size=(STARTS[case.problem], case.x.shape[1])) * float(process.prior_std)
    _references[key] = x, solvers.reference(case.denoiser, x, last=0.0, steps=320)
  return _references[key]


def fitted_row(case, nfe, row):
  """One row of owner `fitted`."""
  x, reference = training(case)
  begin = solvers.starts(problems.NOISES[case.noise](), nfe, dtype=np.float64)
  found = solvers.fit(case.denoiser, begin, x, reference=reference, iterations=ITERATIONS[case.problem])
  return row(case, nfe, found.table.name, "fitted", "its own", np.asarray(solvers.sample(case.denoiser, found.table, case.x)))


def rows(case, nfe, cache, name, row):
  """Rows of owner `fitted`, for up to 15 evaluations."""
  return cache(f"{name}/fitted", lambda: [fitted_row(case, nfe, row)]) if nfe <= LARGEST else []
