"""What every solver promises about accuracy.

Its order, the cases it solves exactly, the law of its samples.
"""

import every_solver
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from solver_cases import (
  VARIANTS,
  Moments,
  graded,
  inner_grid,
  marginal_moments,
  pad,
  run_all,
  slope,
  stack,
  table_moments,
)

from diffusion import oracles, processes, solvers
from diffusion.denoisers.contract import Prediction, WithoutParameters
from diffusion.processes.keeping import Keep

ODE = [name for name, entry in solvers.SOLVERS.items() if entry.order and not entry.stochastic]
SDE = [name for name, entry in solvers.SOLVERS.items() if entry.order and entry.stochastic]
EVERY_PROCESS = list(processes.PROCESSES)
COUNTS = (96, 192)  # steps at which orders are observed on a mixture
# Every solver of the probability flow, at its defaults and at others.
FLOWS = [(name, {}) for name in ODE] + VARIANTS


@pytest.mark.parametrize("name", EVERY_PROCESS)
def test_order_of_convergence_on_a_gaussian(name):
  """A solver of the flow maps Gaussians to Gaussians: the exact mean and standard deviation are approached at
  the claimed order.

  A little more than the order may be seen while the next term of the error is not yet small beside the first.
  """
  process = processes.PROCESSES[name]()
  for solver, options in FLOWS:
    errors = []
    for n in (96, 192):
      grid = graded(process, n)
      table = solvers.SOLVERS[solver].builder(process, grid, dtype=np.float64, **options)
      error = 0.0
      for mean, variance in ((0.5, 0.05), (-1.0, 1.5)):
        start, end = (marginal_moments(process, mean, variance, t) for t in (grid[0], grid[-1]))
        out = table_moments(process, table, mean, variance, start)
        error = max(error, abs(out.mean - end.mean), abs(out.variance**0.5 - end.variance**0.5))
      errors.append(error)
    observed = slope((96, 192), errors)
    assert table.order - 0.2 < observed < table.order + 0.5, (table.name, observed, errors)
    assert errors[0] < 0.1, (table.name, errors)


def exact_flow(oracle, process, x, start, end, steps=1500):
  """dv/d lambda = -e^-lambda eps by the classical Runge-Kutta method, independent of every table."""
  clock = lambda t: float(process.log_snr(t)) / 2
  h = (clock(end) - clock(start)) / steps

  def slope_at(v, clock):
    t = process.t_of_log_snr(2 * clock)
    seen = process.marginal(t).alpha * v
    return -jnp.exp(-clock) * oracle(seen, jnp.broadcast_to(t, x.shape[:1]), views=("eps",)).eps

  @jax.jit
  def run(oracle, v):
    def body(i, v):
      now = clock(start) + h * i
      k1 = slope_at(v, now)
      k2 = slope_at(v + h / 2 * k1, now + h / 2)
      k3 = slope_at(v + h / 2 * k2, now + h / 2)
      return v + h / 6 * (k1 + 2 * k2 + 2 * k3 + slope_at(v + h * k3, now + h))

    return jax.lax.fori_loop(0, steps, body, v)

  return process.marginal(end).alpha * run(oracle, x / process.marginal(start).alpha)


@pytest.mark.parametrize("name", ["vp_linear", "edm"])
def test_order_of_convergence_on_a_mixture(name, x64):
  """The same through the executor, where the denoiser is not linear: at least the claimed order."""
  process = processes.PROCESSES[name]()
  oracle = oracles.gaussian_mixture(process, [0.3, 0.7], [[-1.0, 0.2], [0.8, -0.5]], [0.05, 0.2])
  start, end = graded(process, 1)
  x = oracle.sample(jax.random.key(1), 8, t=float(start))
  build = lambda solver, n: solvers.SOLVERS[solver].builder(process, graded(process, n), dtype=np.float64)
  tables = stack([pad(build(solver, n), 3 * COUNTS[-1]) for solver in ODE for n in COUNTS])
  outs = np.asarray(run_all(oracle, tables, x, jax.random.split(jax.random.key(0), 8)))
  exact = np.asarray(exact_flow(oracle, process, x, start, end))
  errors = np.sqrt(np.mean((outs - exact) ** 2, axis=(1, 2))).reshape(-1, len(COUNTS))
  for solver, error in zip(ODE, errors):
    observed = slope(COUNTS, error)
    assert observed > solvers.SOLVERS[solver].order - 0.3, (solver, observed, error)
    assert error[0] < 0.1, (solver, error)


@pytest.mark.parametrize("solver", SDE)
@pytest.mark.parametrize("name", EVERY_PROCESS)
def test_weak_order_of_sde_solvers(name, solver):
  """The exact moments of the table's output approach the oracle's at the claimed weak order (largest over
  several data variances)."""
  process, entry = processes.PROCESSES[name](), solvers.SOLVERS[solver]
  errors = []
  for n in (256, 512, 1024):
    grid = inner_grid(process, n)
    table = entry.builder(process, grid, dtype=np.float64)
    worst = 0.0
    for variance in (0.01, 0.3, 2.0):
      start, end = (marginal_moments(process, 0.5, variance, t) for t in (grid[0], grid[-1]))
      out = table_moments(process, table, 0.5, variance, start)
      worst = max(worst, abs(out.mean - end.mean), abs(out.variance - end.variance))
    errors.append(worst)
  assert abs(slope((256, 512, 1024), errors) - entry.order) < 0.2, errors
  assert table.order == entry.order and table.stochastic


def test_a_table_reports_the_catalogue_order():
  process = processes.edm()
  for name, entry in solvers.SOLVERS.items():
    solver = solvers.build(name, process, 4)
    assert solver.order == entry.order and solver.stochastic == entry.stochastic, name


@pytest.mark.parametrize("name", EVERY_PROCESS)
def test_one_point_of_data_is_solved_exactly(name):
  """For a point of data D and eps are constant along the flow: every solver but Euler's is exact with any
  nodes, however few."""
  process = processes.PROCESSES[name]()
  grid = inner_grid(process, 5, solvers.grids.quadratic)
  start, end = (marginal_moments(process, 0.7, 0.0, t) for t in (grid[0], grid[-1]))
  for solver, options in FLOWS:
    table = solvers.SOLVERS[solver].builder(process, grid, dtype=np.float64, **options)
    out = table_moments(process, table, 0.7, 0.0, start)
    if solver != "euler":
      np.testing.assert_allclose(
        [out.mean, out.variance], [end.mean, end.variance], rtol=1e-10, atol=1e-12, err_msg=table.name
      )
    elif name == "rectified_flow":  # a straight line is Euler's exact case
      np.testing.assert_allclose([out.mean, out.variance], [end.mean, end.variance], rtol=1e-12)


@pytest.mark.parametrize("name", EVERY_PROCESS)
def test_ancestral_noise_is_exact_where_it_should_be(name):
  """A point of data has the posterior's small variance; N(0, 1) on a variance-preserving process the large
  one."""
  process = processes.PROCESSES[name]()
  grid = inner_grid(process, 4, solvers.grids.uniform)
  start, end = (marginal_moments(process, 0.7, 0.0, t) for t in (grid[0], grid[-1]))
  options = dict(dtype=np.float64)
  for table in (
    solvers.ancestral(process, grid, **options),
    solvers.ddim(process, grid, eta=0.4, **options),
    solvers.ddim(process, grid, eta=1.0, **options),
    solvers.dpmpp_2m_sde(process, grid, eta=0.7, **options),
  ):
    out = table_moments(process, table, 0.7, 0.0, start)
    np.testing.assert_allclose(
      [out.mean, out.variance], [end.mean, end.variance], rtol=1e-12, err_msg=table.name
    )
  if name in ("vp_linear", "vp_cosine"):
    table = solvers.ancestral(process, grid, variance="large", **options)
    np.testing.assert_allclose(
      table_moments(process, table, 0.0, 1.0, Moments(0.0, 1.0)).variance, 1.0, rtol=1e-12
    )


def test_ddim_at_eta_one_is_ancestral_and_eps_view_is_x0_view(x64):
  process = processes.vp_linear()
  grid = solvers.grids.quadratic(process, 7)
  a, b = solvers.ddim(process, grid, eta=1.0), solvers.ancestral(process, grid)
  for leaf in ("A", "B", "C"):
    np.testing.assert_allclose(getattr(a, leaf), getattr(b, leaf), rtol=2e-6, atol=1e-7)
  oracle = oracles.gaussian(process, [0.5, -1.0], [0.05, 1.5])
  x = jax.random.normal(jax.random.key(0), (3, 2))
  outs = [
    solvers.sample(oracle, solvers.ddim(process, grid, view=v, dtype=np.float64), x) for v in ("x0", "eps")
  ]
  np.testing.assert_allclose(*outs, rtol=1e-10)


@pytest.mark.parametrize("name", ["vp_linear", "edm"])
def test_samples_have_the_moments_of_their_table(name):
  """The executor's noise is right: sample mean and variance lie within 5 standard errors (0.99999 a test) of
  the exact ones."""
  process = processes.PROCESSES[name]()
  grid = inner_grid(process, 8)
  tables = [pad(solvers.SOLVERS[s].builder(process, grid), 24) for s in SDE] + [
    pad(solvers.ddim(process, grid, eta=0.5), 24)
  ]
  oracle = oracles.gaussian(process, [0.5], [0.3])
  count = 20_000
  x = oracle.sample(jax.random.key(3), count, t=float(grid[0]))
  outs = run_all(oracle, stack(tables), x, jax.random.split(jax.random.key(4), count))
  start = marginal_moments(process, 0.5, 0.3, grid[0])
  for table, out in zip(tables, np.asarray(outs, np.float64)[..., 0]):
    exact = table_moments(process, table, 0.5, 0.3, start)
    assert abs(out.mean() - exact.mean) < 5 * np.sqrt(exact.variance / count), table.name
    assert abs(out.var() / exact.variance - 1) < 5 * np.sqrt(2 / count), table.name


ALLOW_BOTH_ENDS = [
  name for name, e in solvers.SOLVERS.items() if name not in ("predictor_corrector", "annealed_langevin")
]


@pytest.mark.parametrize("name", EVERY_PROCESS)
def test_nothing_is_lost_at_either_end(name):
  """From the last time of the process (alpha = 0 on two of them) down to t = 0 (sigma = 0 on all but one):
  finite and right."""
  process = processes.PROCESSES[name]()
  clean = float(process.marginal(0.0).sigma) == 0
  grids = [solvers.grids.quadratic(process, 12, t_min=0.0), solvers.grids.log_snr(process, 12, clean=clean)]
  tables = [pad(solvers.SOLVERS[s].builder(process, g), 36) for s in ALLOW_BOTH_ENDS for g in grids]
  oracle = oracles.gaussian(process, [0.5], [0.3])
  x = jnp.linspace(-1, 1, 8).reshape(8, 1) * np.float32(process.prior_std)
  outs = np.asarray(run_all(oracle, stack(tables), x, jax.random.split(jax.random.key(0), 8)))
  assert np.isfinite(outs).all()
  # One row of pure noise carries no information: a table that starts there forgets nothing but its scale.
  for table, out in zip(tables, outs):
    if np.any(table.C) or table.name in ("ddim", "euler"):
      continue
    exact = oracle.flow(
      x, jnp.full(8, process.t_max, jnp.float32), jnp.full(8, 1.0 * table.t[-1], jnp.float32)
    )
    assert abs(out - exact).max() < 0.25, (table.name, abs(out - exact).max())


@pytest.mark.parametrize("solver", ["predictor_corrector", "annealed_langevin"])
def test_langevin_solvers_at_both_ends(solver):
  process = processes.rectified_flow()
  oracle = oracles.gaussian(process, [0.5] * 8, 0.3)
  built = solvers.SOLVERS[solver].builder(process, solvers.grids.uniform(process, 12, t_min=0.0))
  x = jax.random.normal(jax.random.key(0), (8, 8))
  assert bool(
    jnp.isfinite(solvers.sample(oracle, built, x, keys=jax.random.split(jax.random.key(1), 8))).all()
  )


def test_jumps_of_one_coordinate_have_exact_marginals_whatever_the_grid():
  """At every node the share still masked is 1 - alpha, and the unmasked ones have the data's law: chi-square
  of 20,000 samples below 21.1, the 0.9999 quantile with three degrees of freedom."""
  probability, count = np.array([0.2, 0.5, 0.3]), 20_000
  denoiser = every_solver.MaskedOracle(jnp.log(jnp.asarray(probability, jnp.float32)))
  process = processes.masked(every_solver.MASK, (1,), schedule=processes.cosine_keep())
  alpha = lambda t: 1.0 - np.sin(0.5 * np.pi * t)
  grid = np.array([1.0, 0.9, 0.35, 0.3, 0.0])
  solver = solvers.masked_ancestral(process, grid)
  x = jnp.full((count, 1), every_solver.MASK, jnp.int32)
  keys = jax.random.split(jax.random.key(0), count)
  _, states = solvers.sample(denoiser, solver, x, keys=keys, trajectory=True)
  for t, state in zip(grid[1:], np.asarray(states)[1:, :, 0]):
    wanted = count * np.append(alpha(t) * probability, 1.0 - alpha(t))
    counts, known = np.bincount(state, minlength=4), wanted > 1e-9
    assert (counts[~known] == 0).all()
    assert np.sum((counts - wanted)[known] ** 2 / wanted[known]) < 21.1, (t, counts, wanted)
  # What is unmasked stays.
  moved = np.diff(np.asarray(states)[..., 0], axis=0) != 0
  assert (moved.sum(axis=0) == 1).all()


@pytest.mark.slow
def test_the_error_of_jumps_of_several_coordinates_is_of_order_one():
  """Two equal coordinates: those that are unmasked in one of n equal steps are drawn apart, so a share 1 /
  (2n) of pairs differs; within 4.5 standard errors, and none where the first coordinate is given."""
  count = 20_000
  denoiser = every_solver.MaskedOracle(jnp.log(0.5 * jnp.eye(2, dtype=jnp.float32)))
  keys = jax.random.split(jax.random.key(1), count)
  x = jnp.full((count, 2), every_solver.MASK, jnp.int32)
  shares, process = [], processes.masked(every_solver.MASK, (2,))
  for n in (2, 4, 8, 16):
    solver = solvers.masked_ancestral(process, process.default_grid(n))
    out = np.asarray(solvers.sample(denoiser, solver, x, keys=keys))
    assert set(np.unique(out)) == {0, 1}
    exact, share = 1 / (2 * n), (out[:, 0] != out[:, 1]).mean()
    assert abs(share - exact) < 4.5 * np.sqrt(exact * (1 - exact) / count), (n, share)
    shares.append(share)
  assert abs(slope((2, 4, 8, 16), shares) - solver.order) < 0.15, shares
  given = x.at[:, 0].set(jnp.arange(count) % 2)
  out = np.asarray(solvers.sample(denoiser, solver, given, keys=keys))
  np.testing.assert_array_equal(out[:, 0], np.arange(count) % 2)
  np.testing.assert_array_equal(out[:, 1], out[:, 0])


def test_jumps_over_categories_that_hold_the_mask_never_draw_it():
  """Logits over 4 categories of which the last is the mask, the most probable by far."""

  @struct.dataclass
  class Eager(WithoutParameters):
    process = None

    def __call__(self, x, t, cond=None, *, views, key=None, train=False):
      return Prediction(logits=jnp.broadcast_to(jnp.array([0.0, 0.0, 0.0, 50.0]), (*x.shape, 4)))

  solver = solvers.masked_ancestral(processes.masked(3, (4,)), [1.0, 0.0])
  x, keys = jnp.full((500, 4), 3, jnp.int32), jax.random.split(jax.random.key(0), 500)
  out = np.asarray(solvers.sample(Eager(), solver, x, keys=keys))
  assert set(np.unique(out)) == {0, 1, 2}


def test_mistakes_of_jumps_are_named():
  of = lambda noised: processes.masked(3, (1,), schedule=lambda t: Keep(1.0 - noised(t), noised(t), 0.0 * t))
  masked = processes.masked(3, (1,))
  for build, says in (
    (lambda: solvers.masked_ancestral(masked, [0.0, 1.0]), "strictly decrease"),
    (lambda: solvers.masked_ancestral(of(lambda t: 1.0 - t), [1.0, 0.0]), "falls from at most 1"),
    (lambda: solvers.masked_ancestral(of(lambda t: 0.0 * t), [1.0, 0.0]), "above 0 before the last"),
    (lambda: solvers.masked_ancestral(processes.edm(), [1.0, 0.0]), "'edm' ends in 'normal'"),
    (lambda: solvers.build("ddim", masked, 4), "'masked' is discrete: choose one of masked_ancestral"),
    (lambda: solvers.build("masked_ancestral", processes.edm(), 4), "kind discrete, and 'edm' is gaussian"),
    (
      lambda: solvers.build("masked_ancestral", masked, 4, grid="karras"),
      "leave it out for the process's own",
    ),
  ):
    with pytest.raises(ValueError, match=says):
      build()
  solver, keys = solvers.masked_ancestral(masked, [1.0, 0.0]), jax.random.split(jax.random.key(0), 2)
  with pytest.raises(TypeError, match="masked_ancestral takes whole numbers"):
    solvers.sample(every_solver.MaskedOracle(jnp.zeros(3)), solver, jnp.ones((2, 1)), keys=keys)
  process = processes.edm()
  with pytest.raises(TypeError, match="ddim takes floating-point"):
    solvers.sample(
      oracles.gaussian(process, [0.0], 1.0), solvers.build("ddim", process, 2), jnp.ones((2, 1), int)
    )
  with pytest.raises(TypeError, match="takes the process itself, got its name 'edm'"):
    solvers.About("mine", 1, "edm")


# Starting between noise and data, from a draw of the marginal there: mean and variance at the end.
FROM_A_GIVEN_X = {
  "dpm_solver_adaptive": lambda process, t: solvers.dpm_solver_adaptive(
    process, t_max=t, rtol=1e-3, atol=1e-3, denoise=False
  ),
  "adaptive_sde": lambda process, t: solvers.adaptive_sde(
    process, t_max=t, rtol=0.02, atol=0.005, h_max=0.3, denoise=False
  ),
  "predictor_corrector": lambda process, t: solvers.predictor_corrector(
    process, solvers.grids.uniform(process, 100, t_max=t), corrector=solvers.annealed, snr=0.1, denoise=False
  ),
  "time_shift": lambda process, t: solvers.time_shift(
    process, solvers.grids.quadratic(process, 60, t_max=t), window=0.0, cutoff=2.0
  ),
  **{
    name: lambda process, t, name=name: solvers.build(
      name, process, 60, grid=solvers.grids.quadratic(process, 60, t_max=t)
    )
    for name in ("heun", "ancestral", "dpmpp_2m_sde")
  },
}


@pytest.mark.parametrize(
  "name", [pytest.param(name, marks=[pytest.mark.slow] * (name == "adaptive_sde")) for name in FROM_A_GIVEN_X]
)
@pytest.mark.parametrize("start", ["prior", "given"])
def test_marginals_from_the_prior_and_from_a_given_x(name, start):
  """4,000 numbers of N(0.5, 0.3): mean and variance within 4.5 standard errors, and 3% for the steps' own
  bias."""
  process, rows, dim = processes.vp_linear(), 250, 16
  oracle = oracles.gaussian(process, [0.5] * dim, 0.3)
  t = 1.0 if start == "prior" else 0.4
  key = jax.random.key(5)
  x = (
    process.prior(jax.random.split(key, rows), (dim,)) if start == "prior" else oracle.sample(key, rows, t=t)
  )
  solver = FROM_A_GIVEN_X[name](process, t)
  out = solvers.sample(oracle, solver, x, keys=jax.random.split(jax.random.key(6), rows))
  out, m = np.asarray(out, np.float64), process.marginal(process.t_min)
  exact, count = m.alpha**2 * 0.3 + m.sigma**2, rows * dim
  assert abs(out.mean() - 0.5 * m.alpha) < 4.5 * np.sqrt(exact / count) + 0.03 * np.sqrt(exact)
  assert abs(out.var() / exact - 1) < 4.5 * np.sqrt(2 / count) + 0.03
