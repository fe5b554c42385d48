"""Tables fitted by `solvers.fit` on the problems of the frontier, judged on starts that the fit has not seen.

A fit keeps the first time of its start, and at few evaluations it is better to spend none where there is nearly only noise. So the start is the best
of `solvers.starts` from each of several first noise levels, and the fitted table leaves from there by `solvers.late_start`."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

import frontier_problems as problems
from diffusion import solvers

LARGEST = 15  # evaluations
# Noises for the fit, of which a quarter chooses between its steps; the error is ruled by the few that end in another mode.
STARTS = {"ring2d": 4096, "gmm64": 2048, "digits": 2048}
ITERATIONS = {"ring2d": 40, "gmm64": 30, "digits": 25}
FIRST = (None, 40.0, 20.0, 13.0)  # noise levels to start from; None is the process's largest
SCREENED = 256  # noises that choose the start


@functools.cache
def training(problem, noise):
  """(denoiser, starts, their fine solution) in float32, which is exact enough here; the starts are others than those that judge."""
  process = problems.NOISES[noise]()
  denoiser = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), problems.PROBLEMS[problem](process))
  x = np.random.default_rng(101).normal(size=(STARTS[problem], denoiser.means.shape[1])) * float(process.prior_std)
  x = jnp.asarray(x, jnp.float32)
  return denoiser, x, solvers.reference(denoiser, x, last=0.0, steps=240)


def later(process, first):
  """The process cut at a noise level."""
  return process if first is None else process.replace(t_max=float(process.t_of_log_snr(-2 * np.log(first))))


def fit(problem, noise, nfe, seed=0, progress=None):
  """The table of so many evaluations, in float64, and what `solvers.fit` says of it."""
  denoiser, x, known = training(problem, noise)
  process = problems.NOISES[noise]()
  few = x[:SCREENED]

  def error(table):
    end = solvers.sample(denoiser, table, few)
    return float(np.sqrt(np.mean((np.asarray(end) - known.end[:SCREENED]) ** 2)))

  found = []
  for first in FIRST:
    for table in solvers.starts(later(process, first), nfe):
      found.append((error(solvers.late_start(table, process)), len(found), first, table))
  _, _, first, start = min(found)
  scale = solvers.late_start(start, process).start[0, 0] / start.start[0, 0]
  result = solvers.fit(denoiser, start, scale * x, reference=known, iterations=ITERATIONS[problem], seed=seed, progress=progress)
  table = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), result.table)
  return (table if first is None else solvers.late_start(table, process)), result


def rows(case, nfe, cache, name, row):
  """One row of owner `fitted`, for up to 15 evaluations."""

  def make():
    table, _ = fit(case.problem, case.noise, nfe)
    return [row(case, nfe, table.name, "fitted", "its own", np.asarray(solvers.sample(case.denoiser, table, case.x)))]

  return cache(f"{name}/fitted/{STARTS[case.problem]}/{ITERATIONS[case.problem]}", make) if nfe <= LARGEST else []
