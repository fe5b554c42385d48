"""The flow and the reverse SDE by diffrax, in strict promotion."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion import denoisers, oracles, processes, solvers

diffrax = pytest.importorskip("diffrax")


# diffrax's loops take XLA several seconds to compile: one by default.
CASES = [
  (name, method)
  for name in ("edm", "vp_linear", "rectified_flow")
  for method in (diffrax.Heun(), diffrax.Tsit5())
]


@pytest.mark.parametrize(
  "name, method",
  [CASES[0]] + [pytest.param(*case, marks=pytest.mark.slow) for case in CASES[1:]],
  ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_the_error_of_the_flow_follows_the_tolerance(name, method, x64):
  process = processes.PROCESSES[name]()
  oracle = oracles.gaussian(process, [0.5, -1.0], [0.05, 1.5])
  x = process.prior_std * jax.random.normal(jax.random.key(0), (8, 2))
  exact = oracle.flow(x, jnp.full(8, process.t_max), jnp.full(8, process.t_min))
  errors, counts = [], []
  for tolerance in (1e-3, 1e-5):
    solver = solvers.diffrax_ode(
      process, method=method, rtol=tolerance, atol=tolerance, denoise=False, max_steps=4000
    )
    out, count = solvers.sample(oracle, solver, x, evaluations=True)
    errors.append(float(abs(out - exact).max()))
    counts.append(float(count.mean()))
  assert errors[0] < 0.1 and errors[1] < 2e-3 and errors[1] < errors[0] / 10 and counts[1] > counts[0], (
    errors,
    counts,
  )


@pytest.mark.slow
def test_evaluations_are_counted_and_samples_alone():
  process = processes.vp_linear()
  calls, traces = [], []

  def network(params, x, t, cond):
    traces.append(1)
    jax.debug.callback(lambda: calls.append(1))
    m = process.marginal(t)
    return (m.alpha * 0.1 / (0.1 * m.alpha**2 + m.sigma**2))[:, None] * x + 0.1 * cond["label"].astype(
      x.dtype
    )[:, None]

  denoiser = denoisers.from_function(network, process, denoisers.x0())
  keys = jax.random.split(jax.random.key(3), 8)
  x = jax.vmap(lambda key: jax.random.normal(key, (3,)))(keys)
  labels = jnp.arange(8) % 3
  for build in (solvers.diffrax_ode, solvers.diffrax_sde):
    run = lambda rows, solver=build(process): solvers.sample(
      denoiser, solver, x[rows], keys=keys[rows], cond={"label": labels[rows]}, evaluations=True
    )
    one = slice(2, 3)
    run(one)
    jax.effects_barrier()
    calls.clear(), traces.clear()
    _, count = run(one)
    jax.effects_barrier()
    assert len(calls) == int(count[0])
    run(one, build(process, rtol=0.02, atol=0.02))
    assert not traces  # tolerances are data
    out, count = run(slice(None))
    order = np.array([3, 1, 7, 0, 2, 6, 5, 4])
    moved, moved_count = run(order)
    np.testing.assert_array_equal(moved, out[order])
    np.testing.assert_array_equal(moved_count, count[order])


@pytest.mark.slow
def test_the_reverse_sde_reaches_the_marginals():
  """Within 4 standard errors over 200 samples in 16 dimensions, and 2% for the steps' bias."""
  process = processes.vp_linear()
  oracle = oracles.gaussian(process, [0.5] * 16, [0.3] * 16)
  rows, count = 200, 3_200
  start = oracle.sample(jax.random.key(3), rows, t=1.0)
  solver = solvers.diffrax_sde(process, rtol=0.02, atol=0.02, denoise=False)
  out = np.asarray(
    solvers.sample(oracle, solver, start, keys=jax.random.split(jax.random.key(4), rows)), np.float64
  )
  m = process.marginal(process.t_min)
  exact = m.alpha**2 * 0.3 + m.sigma**2
  assert abs(out.mean() - 0.5 * m.alpha) < 4 * np.sqrt(exact / count) + 0.01
  assert abs(out.var() / exact - 1) < 4 * np.sqrt(2 / count) + 0.02


def test_mistakes_are_named():
  process = processes.vp_linear()
  with pytest.raises(TypeError, match="explicit Runge-Kutta"):
    solvers.diffrax_ode(process, method=diffrax.ImplicitEuler())
  with pytest.raises(TypeError, match="ShARK"):
    solvers.diffrax_sde(process, method=diffrax.SEA())
  with pytest.raises(ValueError, match="tolerances"):
    solvers.diffrax_ode(process, rtol=-1.0)
  with pytest.raises(TypeError, match="log-SNR"):
    solvers.diffrax_sde(object())
  oracle = oracles.gaussian(process, [0.5], [0.3])
  with pytest.raises(ValueError, match="post_step"):
    solvers.sample(
      oracle, solvers.diffrax_ode(process), jnp.ones((2, 1)), post_step=lambda x, t, keys, prediction: x
    )
