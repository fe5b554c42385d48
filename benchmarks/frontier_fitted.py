"""Samplers fitted to the problems of the frontier, judged on starts that the fit has not seen.

Where there is nearly only noise no evaluation is spent: the flow of the Gaussian with the mean and covariance
of the model's own samples takes each start to a later noise level in closed form (`solvers.teleport`), and a
table fitted by `solvers.fit` leaves from there. The fine solutions that the fit follows are those samples.
The start of the fit is the best of `solvers.fit_starts` at the best of several first noise levels."""

import functools
import pathlib
from typing import Any, NamedTuple

import frontier_problems as problems
import jax
import jax.numpy as jnp
import numpy as np

from diffusion import solvers

LARGEST = 15  # evaluations
# Noises for the fit, of which a quarter chooses between its steps; the error is ruled by the few that end in
# another mode.
STARTS = {"ring2d": 4096, "gmm64": 4096, "digits": 4096}
ITERATIONS = 40
FIRST = (40.0, 20.0, 12.0, 8.0, 5.0)  # noise levels to start from
SCREENED = 1024  # noises that choose the start
EDITION = 2


class Teleported(NamedTuple):
  """A table that starts where the flow of a Gaussian takes x.

  Attributes:
    gaussian: `solvers.GaussianFit`.
    table: of the process cut at its own first time.
  """

  gaussian: Any
  table: Any

  @property
  def name(self):
    return f"teleported, {self.table.name}"

  def start(self, process, x):
    return solvers.teleport(process, self.gaussian, x, float(self.table.t[0]))

  def end(self, denoiser, x):
    return np.asarray(solvers.sample(denoiser, self.table, self.start(denoiser.process, x)))


@functools.lru_cache(maxsize=1)
def training(problem, noise):
  """(denoiser, starts, their fine solution) in float32, which is exact enough here; the starts are others
  than those that judge."""
  process = problems.NOISES[noise]()
  denoiser = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), problems.PROBLEMS[problem](process))
  x = np.random.default_rng(101).normal(size=(STARTS[problem], denoiser.means.shape[1])) * float(
    process.prior_std
  )
  x = jnp.asarray(x, jnp.float32)
  return denoiser, x, solvers.reference(denoiser, x, last=0.0, steps=240)


def later(process, first):
  """The process cut at a noise level."""
  return process.replace(t_max=float(process.t_of_log_snr(-2 * np.log(first))))


def fit(problem, noise, nfe, seed=0, progress=None):
  """The `Teleported` table of so many evaluations, in float64, and what `solvers.fit` says of it."""
  denoiser, x, known = training(problem, noise)
  process = problems.NOISES[noise]()
  gaussian = solvers.fit_gaussian(known.end)
  found = []
  for first in FIRST:
    tables = solvers.fit_starts(later(process, first), nfe)
    there = Teleported(gaussian, tables[0]).start(process, x)
    for table in tables:
      end = solvers.sample(denoiser, table, there[:SCREENED])
      found.append(
        (float(np.sqrt(np.mean((np.asarray(end) - known.end[:SCREENED]) ** 2))), len(found), table)
      )
  start = Teleported(gaussian, min(found)[2])
  result = solvers.fit(
    denoiser,
    start.table,
    start.start(process, x),
    reference=known,
    iterations=ITERATIONS,
    seed=seed,
    progress=progress,
  )
  return start._replace(table=jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), result.table)), result


def path(cache, problem, noise, nfe):
  """Where the fitted sampler is kept beside the cache."""
  folder = pathlib.Path(f"{cache.path}_fitted")
  folder.mkdir(exist_ok=True)
  return folder / f"{problem}_{noise}_{nfe}_{STARTS[problem]}_{ITERATIONS}_{EDITION}"


def saved(cache, problem, noise, nfe):
  """The fitted sampler of an earlier run, or None."""
  place = path(cache, problem, noise, nfe) if cache.path else None
  if place is None or not place.with_suffix(".gaussian.npz").exists():
    return None
  with np.load(place.with_suffix(".gaussian.npz")) as leaves:
    gaussian = solvers.GaussianFit(**leaves)
  return Teleported(gaussian, solvers.load(place.with_suffix(".npz")))


def rows(case, nfe, cache, name, row):
  """One row of owner `fitted`, for up to 15 evaluations."""

  def make():
    sampler, result = fit(case.problem, case.noise, nfe)
    if cache.path:
      place = path(cache, case.problem, case.noise, nfe)
      solvers.save(place.with_suffix(".npz"), sampler.table)
      np.savez(
        place.with_suffix(".gaussian.npz"),
        **{
          name: np.asarray(getattr(sampler.gaussian, name))
          for name in ("mean", "basis", "eigenvalues", "rest")
        },
      )
    print(f"    {result}", flush=True)
    return [
      row(
        case,
        nfe,
        sampler.name,
        "fitted",
        f"its own from {noise_level(case, sampler):.3g}",
        sampler.end(case.denoiser, case.x),
      )
    ]

  return cache(f"{name}/fitted/{STARTS[case.problem]}/{ITERATIONS}/{EDITION}", make) if nfe <= LARGEST else []


def noise_level(case, sampler):
  return float(case.denoiser.process.marginal(float(sampler.table.t[0])).noise_to_signal)
