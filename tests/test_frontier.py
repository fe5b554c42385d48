"""The frontier benchmark.

Its denoisers are the oracles', its exact solution is exact, its rows say what they must.
"""

import json
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

sys.path.append(str(pathlib.Path(__file__).parents[1] / "benchmarks"))

import frontier
import frontier_fitted as fitted
import frontier_fresh as fresh
import frontier_named as named
import frontier_ours as ours
import frontier_peers as peers
import frontier_problems as problems
import frontier_table as report

from diffusion import oracles, solvers

ROOT = pathlib.Path(__file__).parents[1]
KEYS = {"problem", "noise", "nfe", "solver", "owner", "rmse"}


@pytest.mark.parametrize("name", problems.PROBLEMS)
def test_denoisers_are_the_oracles(name, x64):
  """At low, middle and high noise, with the digits thinned out for the oracle's sake."""
  process = problems.NOISES["vp"]()
  mixture = problems.PROBLEMS[name](process)
  if len(mixture.means) > 100:
    mixture = mixture.replace(means=mixture.means[::60], log_weights=np.full(30, -np.log(30)))
  covariances = mixture.variances
  if mixture.basis is not None:
    covariances = np.einsum("kde,ke,kfe->kdf", mixture.basis, mixture.variances, mixture.basis)
  oracle = oracles.gaussian_mixture(process, np.exp(mixture.log_weights), mixture.means, covariances)
  fast = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), mixture)
  t = np.array([0.02, 0.3, 0.9])
  m = process.marginal(t)
  x = m.alpha[:, None] * mixture.draw(0, 3) + m.sigma[:, None] * np.random.default_rng(1).normal(
    size=mixture.means.shape[1]
  )
  ours, theirs = jax.jit(lambda *denoisers: [d(jnp.asarray(x), jnp.asarray(t)) for d in denoisers])(
    fast, oracle
  )
  np.testing.assert_allclose(ours.x0, theirs.x0, rtol=1e-8, atol=1e-9)
  np.testing.assert_allclose(ours.eps, theirs.eps, rtol=1e-8, atol=1e-9)


def test_exact_solution_rows_and_table(tmp_path, x64):
  case = problems.case("ring2d", "edm", 16, steps=400)
  # Adams-Bashforth of order 4: half the steps, sixteen times the error, so the finer one is much better than
  # what is said.
  assert case.error < 1e-4
  # Samples that leave from the prior end where the data are: on the ring.
  radius = np.linalg.norm(case.exact, axis=1)
  assert (abs(radius - 2.0) < 1.25).all()
  rows = report.best_grids(frontier.our_rows(case, 6, quick=True))
  assert all(
    set(row) >= KEYS and row["owner"] == "ours" and row["nfe"] == 6 and np.isfinite(row["rmse"])
    for row in rows
  )
  assert len({row["solver"] for row in rows}) == len(rows) > 15
  best = min(row["rmse"] for row in rows)
  assert best < 0.8 * next(row["rmse"] for row in rows if row["solver"] == "ddim")
  said = report.table(rows)
  assert "ring2d, edm noise" in said and f"{best:.3g}" in said
  report.plot(rows, tmp_path / "frontier.png")
  assert (tmp_path / "frontier.png").stat().st_size > 10_000


@pytest.mark.parametrize("noise", problems.NOISES)
def test_each_name_takes_the_calls_that_it_says(noise):
  """And all come down from the process's largest level, which the first of them all have."""
  process = problems.NOISES[noise]()
  for name in named.NAMES:
    for nfe in (5, 12, 50):
      table, solver, grid = named.table(name, process, nfe)
      assert table.cost == nfe and solver == ("res_2m" if name == "res_2m" else "dpmpp_2m")
      assert grid == "its own" or grid.startswith(name)
      np.testing.assert_allclose(table.t[0], float(process.t_max), rtol=1e-6)


def test_names_have_a_line_each_and_change_no_other():
  rows = json.loads((ROOT / "docs/frontier.json").read_text())
  cells = {(row["problem"], row["noise"], row["nfe"]) for row in rows}
  for cell in cells:
    here = [row for row in rows if (row["problem"], row["noise"], row["nfe"]) == cell]
    assert {row["owner"] for row in here} >= set(named.NAMES)
    without = [row for row in here if row["owner"] not in named.NAMES]
    assert report.line(here) == report.line(without) != "nothing"


def test_missing_peers_are_said_in_one_line_each(monkeypatch):
  monkeypatch.setattr(peers, "PEERS", {"nobody": (("no_such_module",), None)})
  found, missing = peers.available()
  assert found == {} and len(missing) == 1 and "nobody is left out" in missing[0] and "\n" not in missing[0]


def test_parts_of_a_run_add_up(tmp_path):
  """A later part takes the place of its own cells and owners; deterministic and stochastic rows have a file
  each."""
  row = lambda noise, nfe, owner, rmse: dict(
    problem="ring2d", noise=noise, nfe=nfe, solver="s", owner=owner, grid="g", rmse=rmse
  )
  path = tmp_path / "rows.json"
  first = frontier.Rows(path, take_over=True)
  first.keep(
    [row("edm", 5, "ours", 2.0), row("edm", 5, "ours", 1.0), row("edm", 5, "peer", 3.0)], "ring2d", "edm", 5
  )
  second = frontier.Rows(path, take_over=True)
  here = second.keep([row("edm", 5, "ours", 1.5)], "ring2d", "edm", 5)
  assert [(r["owner"], r["rmse"]) for r in here] == [("ours", 1.5), ("peer", 3.0)]
  second.keep([row("vp", 5, "ours", 4.0)], "ring2d", "vp", 5)
  random = {**row("vp", 5, "ours", 0.0), "metric": "sliced_wasserstein", "sliced_wasserstein": 0.1}
  del random["rmse"]
  second.keep([random], "ring2d", "vp")
  assert [(r["noise"], r["rmse"]) for r in json.loads(path.read_text())] == [
    ("vp", 4.0),
    ("edm", 1.5),
    ("edm", 3.0),
  ]
  assert json.loads((tmp_path / "rows_stochastic.json").read_text()) == [random]
  assert len(frontier.Rows(path, take_over=True).rows) == 4 and not frontier.Rows(path, take_over=False).rows


@pytest.mark.slow
def test_the_best_are_judged_again_on_fresh_starts_beside_a_fitted_sampler(tmp_path, monkeypatch, x64):
  """Spacings are read back from their names, a fit comes back from its file as it was, and each end is that
  of its own sampler."""
  for spacing in [*ours.COARSE, *ours.FEW, *(spacing for _, spacing in ours.scattered(50))]:
    assert str(fresh.spacing(str(spacing))) == str(spacing)
  monkeypatch.setattr(fitted, "STARTS", {"ring2d": 128})
  cache = frontier.Cache(tmp_path / "cache.json")
  case = problems.case("ring2d", "edm", 32, steps=400)
  monkeypatch.setattr(fitted, "ITERATIONS", 2)
  monkeypatch.setattr(fitted, "SCREENED", 64)
  (row,) = fitted.rows(case, 4, cache, "ring2d/edm/32/4", frontier.row)
  again = fitted.saved(cache, "ring2d", "edm", 4)
  assert (
    row["rmse"] == problems.rmse(again.end(case.denoiser, case.x), case.exact) and row["owner"] == "fitted"
  )
  # The flow of the Gaussian with the data's mean and covariance is exact to the third moment over rho^3:
  # never further off than its start is late.
  late = again.start(case.denoiser.process, case.x)
  exact = solvers.reference(case.denoiser, case.x, last=float(again.table.t[0]), steps=160).end
  assert problems.rmse(np.asarray(late), exact) < 0.02 * fitted.noise_level(case, again)
  known = [
    dict(owner="ours", solver="ddim", grid="vp_time 2", rmse=1.0),
    dict(owner="nobody", solver="gone", grid="", rmse=0.5),
  ]
  rows = {one["owner"]: one for one in fresh.rows("ring2d", "edm", 4, known, {}, again, quick=True)}
  assert set(rows) == {"ours", "fitted"} and rows["fitted"]["rmse"] < rows["ours"]["rmse"]
  assert all(
    one["kind"] == "fresh" and one["starts"] == 64 and 0 <= one["elsewhere"] <= 1 for one in rows.values()
  )


def test_the_published_rows_have_the_published_form():
  for row in json.loads((ROOT / "docs" / "frontier.json").read_text()):
    assert set(row) >= KEYS and "metric" not in row and np.isfinite(row["rmse"])
  for row in json.loads((ROOT / "docs" / "frontier_fresh.json").read_text()):
    assert KEYS | {"elsewhere", "starts"} <= set(row) and row["kind"] == "fresh" and np.isfinite(row["rmse"])
  stochastic = ROOT / "docs" / "frontier_stochastic.json"
  for row in json.loads(stochastic.read_text()) if stochastic.exists() else ():
    assert (
      KEYS - {"rmse"} <= set(row)
      and row["metric"] == "sliced_wasserstein"
      and np.isfinite(row["sliced_wasserstein"])
    )
