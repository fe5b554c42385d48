"""The best of each owner again, on thousands of starts that nobody was chosen or fitted on.

Root mean square errors of 64 starts in 64 dimensions say little where one start in a few hundred ends in
another mode: it decides the number, and the best of many combinations is then the one that it was kind to.
Here the few best rows of each owner are run on many fresh starts. Beside the root mean square each row says
how large a share of the starts ended elsewhere, and the median start."""

import functools

import frontier_ours as ours
import frontier_peers as peers
import frontier_problems as problems
import numpy as np

from diffusion import solvers

STARTS = {"ring2d": 4096, "gmm64": 4096, "digits": 2048}
FINE = 600  # steps of the exact solution, of order 4
BEST = 8  # rows of each owner
ELSEWHERE = 0.2  # an error that says so; the data have deviations from 0.05 to 1 around means about 1 apart


@functools.lru_cache(maxsize=1)
def starts(problem, noise, quick=False):
  """The `Case` of fresh starts."""
  return problems.case(problem, noise, 64 if quick else STARTS[problem], steps=FINE, seed=7)


def spacing(text):
  """The `Spacing` that is printed so, to three digits.

  >>> str(spacing("vp_time 1.35, first 39.6, last 0.06"))
  'vp_time 1.35, first 39.6, last 0.06'
  """
  head, *ends = text.split(", ")
  family, *shape = head.split(" ")
  return ours.Spacing(
    family,
    tuple(float(value) for value in shape),
    **{name: float(value) for name, value in (end.split(" ") for end in ends)},
  )


def judged(end, case):
  """What a row says of a sampler's ends on fresh starts."""
  each = np.sqrt(np.mean((end - case.exact) ** 2, axis=1))
  return dict(
    rmse=problems.rmse(end, case.exact),
    median=float(np.median(each)),
    elsewhere=float(np.mean(each > ELSEWHERE)),
    starts=len(each),
  )


def rows(problem, noise, nfe, known, available, sampler, quick=False):
  """Rows of one cell.

  Args:
    known: its rows on the first starts, of which the best are run again.
    available: the peers.
    sampler: the fitted one (`frontier_fitted.Teleported`), or None.
  """
  case = starts(problem, noise, quick)
  best = lambda own: sorted(
    (row for row in known if row["owner"] != "fitted" and (row["owner"] == "ours") == own),
    key=lambda row: row["rmse"],
  )[:BEST]
  row = lambda solver, owner, grid, end: dict(
    problem=problem,
    noise=noise,
    nfe=nfe,
    solver=solver,
    owner=owner,
    grid=grid,
    kind="fresh",
    **judged(end, case),
  )
  found = []
  for one in best(True):
    mine = ours.table(one["solver"], spacing(one["grid"]), noise, nfe)
    found.append(
      row(one["solver"], "ours", one["grid"], np.asarray(solvers.sample(case.denoiser, mine, case.x)))
    )
  wanted = {(one["owner"], one["solver"], one["grid"]) for one in best(False)}
  to_y = 1 / float(case.denoiser.process.marginal(case.denoiser.process.t_max).alpha)
  for peer, runs in available.items():
    for run in runs(case.denoiser.process, nfe):
      if (peer, run.solver, run.grid) in wanted:
        end, _ = peers.attempt(run, case.denoiser, case.x * to_y)
        found.append(row(run.solver, peer, run.grid, end))
  if sampler is not None:
    found.append(row(sampler.name, "fitted", "its own", sampler.end(case.denoiser, case.x)))
  return found
