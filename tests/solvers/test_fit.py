"""Fitting a sampler.

Coordinates that hold every table, laws that hold whatever they are, and errors on noises never seen.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion import denoisers, oracles, processes, solvers
from diffusion.solvers import executor, fit_coordinates, gauss_newton

MULTISTEP = [
  "ddim",
  "dpm_solver",
  "dpmpp_2s",
  "dpmpp_2m",
  "dpmpp_3m",
  "unipc",
  "deis",
  "lms",
  "ipndm",
  "hb",
  "ghvb",
]


@pytest.mark.parametrize("name", ["vp_linear", "vp_cosine", "edm", "rectified_flow", "ve"])
@pytest.mark.parametrize("solver", MULTISTEP)
def test_coordinates_hold_every_multistep_table(name, solver):
  """The same points from the same evaluations, as exact linear maps in float64, ends without signal or noise
  included."""
  process = processes.PROCESSES[name]()
  table = solvers.build(solver, process, 6, dtype=np.float64)
  again = fit_coordinates.to_table(
    process, fit_coordinates.of_table(table, process), *table.t[[0, -1]], dtype=np.float64
  )
  np.testing.assert_allclose(again.t, table.t, rtol=1e-9, atol=1e-12)
  points = fit_coordinates.unroll(table, process)
  np.testing.assert_allclose(
    fit_coordinates.unroll(again, process), points, rtol=0, atol=1e-7 * np.abs(points).max()
  )


@pytest.mark.parametrize("name", ["vp_linear", "vp_cosine", "edm", "rectified_flow"])
def test_any_coordinates_run_downwards_and_are_exact_for_a_constant_prediction(name):
  """The solution for D = c is x' = alpha' c + (sigma'/sigma) (x - alpha c), at every point of any sampler of
  the family."""
  process = processes.PROCESSES[name]()
  rng = np.random.default_rng(0)
  for n in (1, 2, 5, 12):
    table = solvers.build("dpmpp_2m" if n > 1 else "ddim", process, n, dtype=np.float64)
    start = fit_coordinates.of_table(table, process)
    wild = fit_coordinates.Coordinates(
      start.gaps + rng.normal(size=n), start.differences + rng.normal(size=(n, n - 1))
    )
    fitted = fit_coordinates.to_table(process, wild, *table.t[[0, -1]], dtype=np.float64)
    assert (np.diff(fitted.t) < 0).all() and fitted.t[0] == table.t[0] and fitted.t[-1] == table.t[-1]
    points = fit_coordinates.unroll(fitted, process)
    m = process.marginal(fitted.t)
    ratio = m.sigma / m.sigma[0]
    np.testing.assert_allclose(points[:, 0], ratio, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(points[:, 1:].sum(axis=1), m.alpha - ratio * m.alpha[0], rtol=1e-7, atol=1e-9)


def test_derivatives_of_the_steps_are_those_of_the_steps():
  process = processes.vp_linear()
  start = fit_coordinates.of_table(solvers.build("unipc", process, 5), process)
  flat = lambda steps: np.concatenate([np.ravel(leaf) for leaf in steps])
  at = lambda c: fit_coordinates.with_derivatives(process, c, 1.0, 0.0)
  _, by = at(start)
  rng = np.random.default_rng(1)
  direction = fit_coordinates.Coordinates(rng.normal(size=5), rng.normal(size=(5, 4)))
  moved = [flat(at(jax.tree.map(lambda c, d, e=e: c + e * d, start, direction))[0]) for e in (1e-4, -1e-4)]
  expected = (moved[0] - moved[1]) / 2e-4
  np.testing.assert_allclose(
    by @ np.concatenate([np.ravel(leaf) for leaf in direction]), expected, rtol=1e-5, atol=1e-7
  )


@pytest.mark.parametrize(
  "start, says",
  [
    (lambda process: solvers.build("ancestral", process, 4), "draws noise"),
    (lambda process: solvers.build("heun", process, 4), "strictly decrease"),
    (lambda process: solvers.ddim(process, np.array([[1.0, 0.5, 0.0]] * 8)), "one grid for all"),
    (lambda process: solvers.build("predictor_corrector", process, 4), "starts from a table"),
    (lambda process: solvers.build("ddim", processes.edm(), 4), "was built for the process 'edm'"),
  ],
)
def test_what_cannot_be_fitted_says_why(start, says):
  process = processes.vp_linear()
  oracle = oracles.gaussian(process, jnp.zeros(2), jnp.eye(2))
  with pytest.raises(ValueError, match=says):
    solvers.fit(oracle, start(process), jnp.zeros((8, 2)))


@pytest.fixture(scope="module")
def problem():
  """Four modes in the plane, 384 noises and where the flow takes them; every test runs the same programs."""
  process = processes.vp_linear()
  means = 1.5 * np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
  with jax.numpy_dtype_promotion("strict"):
    oracle = oracles.gaussian_mixture(process, [0.1, 0.2, 0.3, 0.4], means, [0.1 * np.eye(2)] * 4)
    x = process.prior(jax.random.split(jax.random.key(0), 384), (2,))
    known = solvers.reference(oracle, x, steps=160, kept=80, batch=384)
  start = solvers.unipc(process, solvers.grids.quadratic(process, 5, t_min=0.0))
  return oracle, x, known, start


@pytest.fixture(scope="module")
def fitted(problem):
  oracle, x, known, start = problem
  with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
    return solvers.fit(oracle, start, x[:256], reference=_part(known, slice(256)), iterations=15, batch=128)


def _part(known, rows):
  return known._replace(end=known.end[rows], data=known.data[:, rows])


@pytest.mark.slow
def test_a_fit_halves_the_error_on_noises_it_never_saw(problem, fitted):
  """A third of the error in the median and half in the mean square (ten times less in the median when it runs
  to its end)."""
  oracle, x, known, start = problem
  error = lambda table: np.sqrt(
    np.mean((np.asarray(solvers.sample(oracle, table, x[256:])) - known.end[256:]) ** 2, axis=1)
  )
  was, now = error(start), error(fitted.table)
  assert np.median(now) < np.median(was) / 3
  assert np.sqrt(np.mean(now**2)) < np.sqrt(np.mean(was**2)) / 2
  assert fitted.improved and fitted.table.cost == start.cost == 5
  assert fitted.error < fitted.start_error / 2 and fitted.error <= min(fitted.history) * 1.01
  assert "before the fit" in str(fitted)


@pytest.mark.slow
def test_a_fitted_table_is_a_table(problem, fitted, tmp_path):
  """Its times decrease between the same ends, it is exact for a constant prediction, and it is saved and
  printed as any other."""
  oracle, x, _, start = problem
  table = fitted.table
  assert (np.diff(table.t) < 0).all() and table.t[0] == start.t[0] and table.t[-1] == start.t[-1] == 0
  point = np.array([0.3, -0.7], np.float32)
  constant = denoisers.from_function(
    lambda point, x, t, cond: jnp.broadcast_to(point, x.shape), oracle.process, denoisers.x0(), point
  )
  np.testing.assert_allclose(
    solvers.sample(constant, table, x[:8]), np.broadcast_to(point, (8, 2)), atol=1e-5
  )
  solvers.save(tmp_path / "fitted.npz", table, oracle.process)
  again = solvers.load(tmp_path / "fitted.npz", oracle.process)
  np.testing.assert_array_equal(solvers.sample(oracle, again, x), solvers.sample(oracle, table, x))
  assert str(again).startswith("fitted unipc(order=3, bh2): no order claimed, 5 evaluations")


def test_tables_of_one_shape_share_a_program(problem, fitted):
  oracle, x, _, start = problem
  solvers.sample(oracle, fitted.table, x[:8])
  before = executor._run._cache_size()
  other = fit_coordinates.to_table(oracle.process, fit_coordinates.of_table(start, oracle.process), 1.0, 0.0)
  solvers.sample(oracle, other, x[:8])
  assert executor._run._cache_size() == before


def test_a_second_fit_compiles_nothing(problem, fitted):
  del fitted
  oracle, x, known, _ = problem
  start = solvers.dpmpp_2m(oracle.process, solvers.grids.karras(oracle.process, 5, clean=True))
  before = gauss_newton.derivatives._cache_size(), gauss_newton.sizes._cache_size()
  solvers.fit(oracle, start, x[:256], reference=_part(known, slice(256)), iterations=2, batch=128)
  assert (gauss_newton.derivatives._cache_size(), gauss_newton.sizes._cache_size()) == before


def test_nothing_worse_than_the_start_is_returned(problem):
  """Fitted to targets of which those of the held-out noises are the start's own: every change is worse
  there."""
  oracle, x, known, start = problem
  known = _part(known, slice(256))
  own = np.asarray(solvers.sample(oracle, start, x[:256]))
  known = known._replace(end=np.concatenate([known.end[:192], own[192:]]))
  found = solvers.fit(oracle, start, x[:256], reference=known, iterations=4, batch=128, guide=0.0)
  assert not found.improved and found.table is start and found.error == found.start_error
  assert "the start, which is kept" in str(found)


def test_a_fine_solution_that_is_not_finite_is_said(problem):
  oracle, x, known, start = problem
  bad = known._replace(end=np.where(np.arange(384)[:, None] == 7, np.nan, known.end))
  with pytest.raises(ValueError, match="fine solution is not finite"):
    solvers.fit(oracle, start, x, reference=bad)


def test_few_directions_have_the_exact_gradient(problem, fitted):
  """J^T r from six directions a noise of ten, against central differences of the sum of squares in
  float32."""
  del fitted
  oracle, x, known, start = problem
  steps = fit_coordinates.of_table(start, oracle.process)
  steps, _ = fit_coordinates.steps_at(
    oracle.process, fit_coordinates.times(steps.gaps, 1.0, 0.0), steps.differences
  )
  on_device = lambda steps: jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), steps)
  target = tuple(
    jnp.asarray(part, jnp.float32) for part in (known.end[:128], known.clocks, known.data[:, :128])
  )
  residual, rows = gauss_newton.derivatives(
    oracle, on_device(steps), x[:128], None, target, 1.0, jax.random.key(0), directions=6
  )
  gradient = np.einsum("kb,kbl->l", np.asarray(residual, np.float64), np.asarray(rows, np.float64))
  size = lambda steps: np.asarray(
    gauss_newton.sizes(oracle, on_device(steps), x[:128], None, target, 1.0)[0], np.float64
  )
  half_squares = lambda steps: 0.5 * np.sum(size(steps) ** 2)
  rng = np.random.default_rng(2)
  direction = fit_coordinates.Steps(np.zeros(5), rng.normal(size=5), np.tril(rng.normal(size=(5, 5))))
  ahead, behind = (
    half_squares(jax.tree.map(lambda s, d, e=e: s + e * d, steps, direction)) for e in (2e-3, -2e-3)
  )
  np.testing.assert_allclose(
    gradient @ np.concatenate([np.ravel(leaf) for leaf in direction]), (ahead - behind) / 4e-3, rtol=1e-2
  )
