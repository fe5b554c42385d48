"""Steps sized by their error.

The error follows the tolerance, the cost the order, and every sample is alone.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from solver_cases import slope

from diffusion import denoisers, oracles, processes, solvers
from diffusion.solvers import brownian

PAIRS = [(2, "x0"), (2, "eps"), (3, "x0"), (3, "eps")]
# One by default; the rest, each a program to compile, with -m slow.
DEFAULT = [("rectified_flow", 3, "x0")]
FLOWS = [
  pytest.param(
    name, order, prediction, marks=() if (name, order, prediction) in DEFAULT else pytest.mark.slow
  )
  for name in ("vp_linear", "edm", "rectified_flow")
  for order, prediction in PAIRS
]


def ring(process):
  """Six Gaussians on a circle, of weights 1 to 6."""
  angle = np.arange(6) * np.pi / 3
  return oracles.gaussian_mixture(
    process, np.arange(1, 7), 2 * np.stack([np.cos(angle), np.sin(angle)], axis=1), 0.0625
  )


def noise(process, count, dim=2):
  return process.prior_std * jax.random.normal(jax.random.key(0), (count, dim))


@pytest.mark.parametrize("name, order, prediction", FLOWS)
def test_the_error_is_proportional_to_the_tolerance(name, order, prediction, x64):
  """Against the exact flow of a Gaussian, at every tolerance; the second process is another clock, the third
  starts at alpha = 0."""
  process = processes.PROCESSES[name]()
  oracle = oracles.gaussian(process, [0.5, -1.0], [0.05, 1.5])
  x = noise(process, 16)
  exact = oracle.flow(x, jnp.full(16, process.t_max), jnp.full(16, process.t_min))
  errors, counts = [], []
  for tolerance in (1e-2, 1e-3, 1e-4):
    solver = solvers.dpm_solver_adaptive(
      process, order=order, prediction=prediction, rtol=tolerance, atol=tolerance, denoise=False
    )
    out, count = solvers.sample(oracle, solver, x, evaluations=True)
    errors.append(float(abs(out - exact).max()))
    counts.append(float(count.mean()))
    assert np.all((np.asarray(count) - solver.span.from_noise) % order == 0)
  # The first step from alpha = 0 leaves a relative error of order e^-10.2.
  allowed = (np.array([10, 10, 10]) if prediction == "x0" else np.array([10, 70, 30])) * [
    1e-2,
    1e-3,
    1e-4,
  ] + 1e-4
  assert np.all(errors < allowed), errors
  assert errors[2] < errors[0] / 8 and counts[0] < counts[1] < counts[2], (errors, counts)


@pytest.mark.parametrize(
  "order, tolerances", [(2, (1e-4, 1e-5, 1e-6)), pytest.param(3, (1e-6, 1e-7, 1e-8), marks=pytest.mark.slow)]
)
def test_the_cost_grows_as_tolerance_to_minus_one_over_the_order(order, tolerances, x64):
  process = processes.vp_linear()
  x = noise(process, 4)
  counts, outs = [], []
  for tolerance in tolerances:
    solver = solvers.dpm_solver_adaptive(
      process, order=order, rtol=tolerance, atol=tolerance, denoise=False, max_steps=10**5
    )
    out, count = solvers.sample(ring(process), solver, x, evaluations=True)
    counts.append(float(count.mean()))
    outs.append(np.asarray(out))
  observed = slope(1 / np.array(tolerances), 1 / np.array(counts))
  assert abs(observed - 1 / order) < 0.05, (observed, counts)
  errors = [np.abs(out - outs[-1]).max() for out in outs[:-1]]
  assert errors[0] < 100 * tolerances[0] and errors[1] < errors[0] / 5, errors


@pytest.mark.slow
def test_a_tolerance_means_the_same_on_every_process(x64):
  """Processes that run through the same log-SNR take the same steps to the same data: EDM started at the
  noise of VP is VP."""
  vp, edm = processes.vp_linear(), processes.edm()
  rho = [float(vp.marginal(t).noise_to_signal) for t in (vp.t_max, vp.t_min)]
  x = noise(vp, 8)
  options = dict(rtol=1e-3, atol=1e-3)
  of_vp = solvers.sample(ring(vp), solvers.dpm_solver_adaptive(vp, **options), x, evaluations=True)
  scale = np.sqrt(1 + rho[0] ** 2)
  of_edm = solvers.sample(
    ring(edm),
    solvers.dpm_solver_adaptive(edm, t_max=rho[0], t_min=rho[1], **options),
    scale * x,
    evaluations=True,
  )
  np.testing.assert_allclose(of_vp[0], of_edm[0], rtol=1e-8)
  np.testing.assert_array_equal(of_vp[1], of_edm[1])


traces, calls = [], []
VP = processes.vp_linear()


def network(params, x, t, cond):
  """The denoiser of N(0, 0.1), counted."""
  traces.append(x.shape)
  jax.debug.callback(lambda: calls.append(1))
  m = VP.marginal(t)
  return (
    params * (m.alpha * 0.1 / (0.1 * m.alpha**2 + m.sigma**2))[:, None] * x
    + 0.1 * cond["label"].astype(x.dtype)[:, None]
  )


def counted(scale=1.0):
  return denoisers.from_function(network, VP, denoisers.x0(), jnp.float32(scale))


@pytest.mark.parametrize("name", ["dpm_solver_adaptive", "adaptive_sde"])
def test_each_sample_is_alone_and_new_tolerances_do_not_retrace(name):
  build = getattr(solvers, name)
  keys = jax.random.split(jax.random.key(3), 8)
  x = jax.vmap(lambda key: jax.random.normal(key, (3,)))(keys)
  labels = jnp.arange(8) % 5
  run = lambda solver, rows=slice(None): solvers.sample(
    counted(), solver, x[rows], keys=keys[rows], cond={"label": labels[rows]}, evaluations=True
  )
  solver = build(VP)
  run(solver)
  jax.effects_barrier()
  calls.clear(), traces.clear()
  out, count = run(solver)
  jax.effects_barrier()
  # The network ran as often as the slowest sample needed, and the others have counted their own steps only.
  assert len(calls) == int(count.max()) and len(set(count.tolist())) > 1

  calls.clear()
  tight, more = run(build(VP, rtol=0.01, atol=0.001, max_steps=500, h_init=0.1))
  assert not traces and np.all(more[1:] > count[1:]) and float(abs(tight - out).max()) > 1e-5

  order = np.array([3, 1, 7, 0, 2, 6, 5, 4])
  moved, moved_count = run(solver, order)
  np.testing.assert_array_equal(moved, out[order])
  np.testing.assert_array_equal(moved_count, count[order])
  others = solvers.sample(
    counted(), solver, x.at[:4].set(50.0), keys=keys, cond={"label": labels.at[:4].set(3)}, evaluations=True
  )
  np.testing.assert_array_equal(others[0][4:], out[4:])
  np.testing.assert_array_equal(others[1][4:], count[4:])
  assert not traces


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dpm_solver_adaptive", "adaptive_sde"])
def test_the_size_of_the_batch_changes_rounding_only(name):
  solver, process = getattr(solvers, name)(VP, rtol=1e-3, atol=1e-3), VP
  x, keys = noise(process, 8), jax.random.split(jax.random.key(3), 8)
  whole, few = (
    solvers.sample(ring(process), solver, x[rows], keys=keys[rows]) for rows in (slice(None), slice(2, 5))
  )
  np.testing.assert_allclose(few, whole[2:5], rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dpm_solver_adaptive", "adaptive_sde"])
def test_spread_over_devices_and_inside_a_users_own_vmap_and_shard_map(name):
  """To rounding: it hardly ever reaches the length of a step."""
  process = processes.vp_linear()
  solver, oracle = getattr(solvers, name)(process, rtol=1e-3, atol=1e-3), ring(process)
  x, keys = noise(process, 16), jax.random.split(jax.random.key(3), 16)
  run = lambda x, keys: solvers.sample(oracle, solver, x, keys=keys)
  expected, count = solvers.sample(oracle, solver, x, keys=keys, evaluations=True)
  close = lambda out: np.testing.assert_allclose(
    np.asarray(out).reshape(16, 2), expected, rtol=1e-4, atol=1e-4
  )
  mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
  data = jax.sharding.PartitionSpec("data")
  place = lambda tree: jax.device_put(tree, jax.sharding.NamedSharding(mesh, data))
  spread, spread_count = solvers.sample(oracle, solver, place(x), keys=place(keys), evaluations=True)
  close(spread)
  np.testing.assert_array_equal(spread_count, count)
  close(jax.vmap(run)(x.reshape(4, 4, 2), keys.reshape(4, 4)))
  close(jax.jit(jax.shard_map(run, mesh=mesh, in_specs=(data, data), out_specs=data))(x, keys))


@pytest.mark.slow
def test_the_hook_acts_after_steps_that_are_kept():
  """A projection of one coordinate holds at the end, and the others go on."""
  process = processes.vp_linear()
  oracle = oracles.gaussian(process, [0.5, -1.0], [0.05, 1.5])
  x = noise(process, 4)
  known = lambda x, t, keys, prediction: x.at[:, 0].set(0.25 * process.marginal(t).alpha)
  solver = solvers.dpm_solver_adaptive(process, denoise=False)
  out = solvers.sample(oracle, solver, x, post_step=known)
  np.testing.assert_allclose(out[:, 0], 0.25 * process.marginal(1e-3).alpha, rtol=1e-5)
  np.testing.assert_allclose(out[:, 1], solvers.sample(oracle, solver, x)[:, 1], atol=0.05)


def test_brownian_increments_are_independent_and_of_the_right_size():
  """Over 8,000 paths: variances of increments within 4 standard errors, 6%, and correlations within
  4/sqrt(8,000), 4%."""
  keys = jax.random.split(jax.random.key(1), 8_000)
  like = jnp.zeros((8_000, 1))
  read = jax.jit(lambda at: brownian.path(keys, jnp.full(8_000, at), -5.0, 6.0, like)[:, 0])
  places = [-5.0, -4.9, -1.3, 0.1, 0.12, 5.0, 6.0]
  values = [np.asarray(read(at), np.float64) for at in places]
  np.testing.assert_allclose(values[0], 0, atol=1e-6)
  steps = [
    (b - a) / np.sqrt(np.exp(2 * p1) - np.exp(2 * p0))
    for a, b, p0, p1 in zip(values, values[1:], places, places[1:])
  ]
  covariance = np.cov(steps)
  assert np.abs(np.diag(covariance) - 1).max() < 4 * np.sqrt(2 / 8_000)
  assert np.abs(covariance - np.diag(np.diag(covariance))).max() < 4 / np.sqrt(8_000)


@pytest.mark.slow
def test_the_adaptive_sde_reaches_the_marginals():
  """Mean and variance of 500 samples in 16 dimensions within 4 standard errors of the oracle's, and 1% for
  the steps' bias."""
  process = processes.vp_linear()
  oracle = oracles.gaussian(process, [0.5] * 16, [0.3] * 16)
  rows, count = 500, 8_000
  solver = solvers.adaptive_sde(process, rtol=0.02, atol=0.005, denoise=False)
  keys = jax.random.split(jax.random.key(4), rows)
  start = oracle.sample(jax.random.key(3), rows, t=1.0)
  out, evaluations = solvers.sample(oracle, solver, start, keys=keys, evaluations=True)
  out = np.asarray(out, np.float64)
  m = process.marginal(process.t_min)
  exact = m.alpha**2 * 0.3 + m.sigma**2
  assert abs(out.mean() - 0.5 * m.alpha) < 4 * np.sqrt(exact / count) + 0.01 * np.sqrt(exact)
  assert abs(out.var() / exact - 1) < 4 * np.sqrt(2 / count) + 0.01
  assert 50 < float(evaluations.mean()) < 250


@pytest.mark.slow
def test_paths_of_the_adaptive_sde_converge(x64):
  """With one Brownian path a sample, a smaller tolerance is nearer to that path's limit; fresh noise after a
  rejection would not be."""
  process = processes.vp_linear()
  x, keys = noise(process, 8), jax.random.split(jax.random.key(1), 8)
  run = lambda tolerance: np.asarray(
    solvers.sample(
      ring(process),
      solvers.adaptive_sde(process, rtol=tolerance, atol=tolerance, denoise=False, max_steps=10**4),
      x,
      keys=keys,
    )
  )
  limit = run(2e-4)
  far, near = (np.median(np.abs(run(tolerance) - limit)) for tolerance in (5e-2, 1e-3))
  assert near < far / 4 and near < 0.05, (far, near)


@pytest.mark.slow
def test_a_point_of_data_takes_a_few_steps_only(x64):
  """D is constant, so both orders are exact and steps grow to the end."""
  process = processes.edm()
  oracle = oracles.atoms(process, [[0.3, -0.7]])
  x, keys = noise(process, 4), jax.random.split(jax.random.key(0), 4)
  for solver in (solvers.dpm_solver_adaptive(process), solvers.adaptive_sde(process, h_max=10.0)):
    out, count = solvers.sample(oracle, solver, x, keys=keys, evaluations=True)
    np.testing.assert_allclose(out, np.broadcast_to([0.3, -0.7], (4, 2)), atol=1e-6)
    assert int(count.max()) < 40, count


def test_mistakes_are_named():
  process = processes.vp_linear()
  for options, says in (
    (dict(rtol=-1.0), "tolerances must be positive"),
    (dict(atol=0.0), "tolerances must be positive"),
    (dict(atol=np.nan), "tolerances must be positive"),
    (dict(max_steps=0), "max_steps"),
    (dict(h_init=0.0), "first step"),
    (dict(safety=1.0), "safety"),
    (dict(t_min=0.0), "no noise at t_min"),
    (dict(t_min=0.9, t_max=0.5), "t_min < t_max"),
  ):
    for build in (solvers.dpm_solver_adaptive, solvers.adaptive_sde):
      with pytest.raises(ValueError, match=says):
        build(process, **options)
  with pytest.raises(ValueError, match="order is 2 or 3"):
    solvers.dpm_solver_adaptive(process, order=4)
  with pytest.raises(TypeError, match="log-SNR"):
    solvers.dpm_solver_adaptive(object())

  oracle, x = oracles.gaussian(process, [0.5, 0.1], 0.3), noise(process, 4)
  solver = solvers.dpm_solver_adaptive(process)
  with pytest.raises(ValueError, match="no trajectory"):
    solvers.sample(oracle, solver, x, trajectory=True)
  with pytest.raises(ValueError, match="process 'vp_linear'"):
    solvers.sample(oracles.gaussian(processes.edm(), [0.5, 0.1], 0.3), solver, x)
  with pytest.raises(ValueError, match="draws noise"):
    solvers.sample(oracle, solvers.adaptive_sde(process), x)
  with pytest.raises(ValueError, match="4 of 4 samples did not reach the end.*max_steps=3"):
    solvers.sample(oracle, solver.replace(max_steps=3), x)
  with pytest.raises(ValueError, match="precision"):  # no float32 step is that good
    solvers.sample(oracle, solver.replace(rtol=0.0, atol=1e-12), x)
  bad = denoisers.from_function(lambda params, x, t, cond: jnp.nan * x, process, denoisers.x0())
  with pytest.raises(ValueError, match="NaN"):
    solvers.sample(bad, solver, x)
  # Where nothing can be raised the samples are NaN.
  inside = jax.jit(lambda x: solvers.sample(oracle, solver.replace(max_steps=3), x))(x)
  assert bool(jnp.isnan(inside).all())


# One by default: each is a program that takes seconds to compile.
BY_NAME = [
  name if name == "dpm_solver_adaptive" else pytest.param(name, marks=pytest.mark.slow)
  for name in solvers.ADAPTIVE
]


@pytest.mark.parametrize("name", BY_NAME)
def test_what_the_catalogue_says_of_each(name):
  """Order, noise and calls an attempt; a tolerance in place of steps; the Gaussian's mean and variance, or
  its very flow."""
  process, entry = processes.vp_linear(), solvers.ADAPTIVE[name]
  tolerance = 0.01 if entry.stochastic else 1e-3
  solver = solvers.build(
    name, process, tolerance=tolerance, denoise=False, **(dict(h_max=0.3) if name == "adaptive_sde" else {})
  )
  assert (solver.order, solver.stochastic, float(solver.rtol), float(solver.atol)) == (
    entry.order,
    entry.stochastic,
    tolerance,
    tolerance,
  )
  oracle = oracles.gaussian(process, [0.5] * 16, 0.3)
  x, keys = noise(process, 250, 16), jax.random.split(jax.random.key(1), 250)
  out, count = solvers.sample(oracle, solver, x, keys=keys, evaluations=True)
  once = int(name == "diffrax_ode")  # the last stage of a step is the first of the next
  assert np.all((np.asarray(count) - once) % entry.evaluations == 0)
  m = process.marginal(process.t_min)
  if entry.stochastic:
    out, exact = np.asarray(out, np.float64), m.alpha**2 * 0.3 + m.sigma**2
    # 4 standard errors over 4,000 numbers, and 2% for the steps' own bias.
    assert abs(out.mean() - 0.5 * m.alpha) < 4 * np.sqrt(exact / 4000) + 0.02 * np.sqrt(exact)
    assert abs(out.var() / exact - 1) < 4 * np.sqrt(2 / 4000) + 0.02
  else:
    assert (
      float(abs(out - oracle.flow(x, jnp.ones(250), jnp.full(250, process.t_min))).max()) < 100 * tolerance
    )


def test_steps_and_tolerances_have_their_solvers():
  process = processes.vp_linear()
  for wrong, says in (
    (lambda: solvers.build("dpm_solver_adaptive", process, 12), "chooses its own steps, got 12"),
    (lambda: solvers.build("adaptive_sde", process, grid="karras"), "the grid 'karras'"),
    (lambda: solvers.build("dpmpp_2m", process, 12, tolerance=0.1), "a tolerance of 0.1 says nothing"),
    (lambda: solvers.build("dpmpp_2m", process), "needs a number of steps"),
    (lambda: solvers.build("dpm_solver_adaptiv", process), "did you mean 'dpm_solver_adaptive'"),
  ):
    with pytest.raises(ValueError, match=says):
      wrong()


def test_evaluations_of_a_table_are_what_it_says():
  process = processes.vp_linear()
  oracle, x = oracles.gaussian(process, [0.5, 0.1], 0.3), noise(process, 4)
  table = solvers.build("heun", process, 5)
  out, states, count = solvers.sample(oracle, table, x, trajectory=True, evaluations=True)
  assert count.tolist() == [table.cost] * 4 and states.shape == (table.num_steps + 1, 4, 2)
  np.testing.assert_array_equal(out, solvers.sample(oracle, table, x, evaluations=True)[0])
