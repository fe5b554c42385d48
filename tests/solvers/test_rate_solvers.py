"""Solvers that follow rates and posteriors of discrete processes, held to exact laws of listed states."""

import functools
import itertools
from typing import Any

import discrete_cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from discrete_kernels import chain
from flax import struct

from diffusion import oracles, processes, solvers
from diffusion.denoisers.contract import Prediction, Wrapper
from diffusion.processes import neighbourhoods

LAW = discrete_cases.joint_5x3().law
UNIFORM = processes.uniform_resample(3, (5,))
MASKED = processes.masked(3, (5,), t_min=0.0)
STARTS = {"uniform": 0.9, "masked": 1.0}
PROCESSES = {"uniform": UNIFORM, "masked": MASKED}
BUILDERS = {
  "d3pm_ancestral": solvers.d3pm_ancestral,
  "euler_rates": solvers.euler_rates,
  "tau_leaping": solvers.tau_leaping,
  "flow_predictor_corrector": solvers.flow_predictor_corrector,
}


QUICK = [("uniform", "d3pm_ancestral"), ("uniform", "tau_leaping")]  # others are in the slow tier
SAME = ("d3pm_ancestral", "euler_rates")  # whose draws others make by the same code


@functools.cache
def oracle(name):
  return oracles.discrete(PROCESSES[name], LAW, dtype=np.float32)


@functools.cache
def states(name):
  process = PROCESSES[name]
  return jnp.asarray(list(itertools.product(range(process.num_states), repeat=5)), jnp.int32)


@jax.jit
def chances(solver, oracle, x):
  """Of the first step of a solver, at every state: [S, D, S]."""
  state = solver.begin(x, None)
  x, t, views = solver.ask(state, 0)
  if solver.name.startswith("flow"):
    state = state.replace(given=jnp.zeros_like(state.given))  # from all masks, nothing is given
  return solver.chances(state, 0, oracle(x, t, views=views))


def law_of(name, builder, grid):
  """The exact law [3] * 5 of a solver's result, from the law of x_t where the grid starts."""
  process, x = PROCESSES[name], states(name)
  first = jnp.full(1, grid[0], jnp.float32)
  now = np.asarray(oracle(name).law(first)[0], np.float64).reshape(-1)
  for t, s in itertools.pairwise(grid):
    each = np.asarray(chances(builder(process, [t, s]), oracle(name), x), np.float64)
    each /= each.sum(-1, keepdims=True)
    # The kernel is a product over coordinates: applied to the law one coordinate after another.
    kernel = each[:, 0] * now[:, None]
    for d in range(1, 5):
      kernel = (kernel[:, :, None] * each[:, d][:, None, :]).reshape(len(x), -1)
    now = kernel.sum(axis=0)
  table = now.reshape((process.num_states,) * 5)[(slice(3),) * 5]
  np.testing.assert_allclose(table.sum(), 1.0, atol=1e-5)
  return table


def distance(first, second):
  return 0.5 * float(np.abs(first - second).sum())


@pytest.mark.parametrize(
  "name,solver",
  [
    pytest.param(name, solver, marks=() if (name, solver) in QUICK else pytest.mark.slow)
    for name in PROCESSES
    for solver in BUILDERS
  ],
)
def test_the_error_of_the_law_is_of_order_one(name, solver):
  """Total variation from the data, without sampling: it halves where the number of steps doubles."""
  grids = [np.linspace(STARTS[name], 0.0, n + 1) for n in (8, 16, 32)]
  errors = [distance(law_of(name, BUILDERS[solver], grid), LAW) for grid in grids]
  orders = np.log2(np.array(errors[:-1]) / np.array(errors[1:]))
  assert 0.7 < orders[-1] < 1.3 and errors[-1] < 0.1, (errors, orders)


@pytest.mark.slow
@pytest.mark.parametrize(
  "solver",
  [pytest.param(name, marks=pytest.mark.slow) if name in SAME else name for name in BUILDERS],
)
def test_draws_have_the_law_that_is_listed(solver):
  """4 steps of 8,000 samples: total variation within the sampling floor and a margin of once in 1e4."""
  count, name = 8000, "uniform" if solver in ("euler_rates", "tau_leaping") else "masked"
  grid = np.linspace(STARTS[name], 0.0, 5)
  wanted = law_of(name, BUILDERS[solver], grid)
  keys = jax.random.split(jax.random.key(1), count)
  start = oracle(name).sample(jax.random.key(2), count, grid[0])
  out = solvers.sample(oracle(name), BUILDERS[solver](PROCESSES[name], grid), start, keys=keys)
  found = discrete_cases.total_variation(out, wanted)
  assert found < discrete_cases.floor(wanted, count) + discrete_cases.margin(count)
  assert discrete_cases.total_variation(out, LAW) > found


@pytest.mark.parametrize(
  "name",
  [
    pytest.param(
      name, marks=() if name in ("walk_around", "d3pm_gaussian", "masked_uniform") else pytest.mark.slow
    )
    for name in processes.CHAINS
  ],
)
def test_one_coordinate_is_exact_on_any_grid(name, x64):
  """Ancestral steps of one coordinate, from the law of x_t where they start: float64, 1e-6."""
  process = processes.CHAINS[name](3, (1,))
  law = np.array([0.6, 0.3, 0.1])
  exact = oracles.discrete(process, law)
  x = jnp.arange(process.num_states)[:, None]
  grid = np.array([0.95, 0.7, 0.25, 0.0])
  now = np.asarray(exact.law(jnp.full(1, grid[0]))[0])
  step = jax.jit(lambda solver, x: solver.chances(x, 0, exact(*solver.ask(x, 0)[:2], views=solver.views)))
  for t, s in itertools.pairwise(grid):
    now = now @ np.asarray(step(solvers.d3pm_ancestral(process, [t, s], dtype=np.float64), x))[:, 0]
  np.testing.assert_allclose(now[:3], law, atol=1e-6)


def test_flow_matching_without_noise_is_eulers_rule_and_what_is_given_stays():
  x = states("masked")[::7]
  grid, keys = [0.8, 0.5, 0.2], jax.random.split(jax.random.key(0), len(x))
  plain, none, much = (
    solvers.sample(oracle("masked"), solver, x, keys=keys)
    for solver in (
      solvers.euler_rates(MASKED, grid),
      solvers.flow_predictor_corrector(MASKED, grid, stochasticity=0.0),
      solvers.flow_predictor_corrector(MASKED, grid, stochasticity=20.0),
    )
  )
  np.testing.assert_array_equal(plain, none)
  given = np.asarray(x) != 3
  np.testing.assert_array_equal(np.asarray(much)[given], np.asarray(x)[given])
  assert (np.asarray(much) != np.asarray(plain)).any()


def gibbs_kernel(exact):
  """One coordinate of those that have a value, uniform among them, is masked and drawn: [S, S]."""
  kernel, seen = np.zeros((len(exact.states),) * 2), ~exact.masked
  count = seen.sum(axis=1)
  for d in range(exact.size):
    place = np.arange(exact.size)[None, :] == d
    hide = exact.product(np.where((place & seen)[..., None], exact.hidden, exact.stay))
    redraw = exact.places(np.broadcast_to(place, exact.masked.shape))
    kernel += np.where(seen[:, d], 1.0 / np.maximum(count, 1), 0.0)[:, None] * (hide @ redraw)
  kernel[count == 0] = np.eye(len(exact.states))[count == 0]
  return kernel


def gibbs_law(n, moves):
  exact = chain(discrete_cases.joint_5x3)
  grid, kernel = np.linspace(1.0, 0.0, n + 1), gibbs_kernel(exact)
  steps = []
  for t, s in itertools.pairwise(grid):
    steps += [exact.jumps(1.0 - s / t), *[kernel] * moves]
  return exact.run(steps)


def test_gibbs_moves_keep_the_law_and_take_the_error_of_steps_away():
  """p_t is kept to rounding; two steps with more and more moves tend to the data."""
  exact = chain(discrete_cases.joint_5x3)
  law = np.asarray(oracle("masked").law(jnp.full(1, 0.4))[0], np.float64).reshape(-1)
  np.testing.assert_allclose(law @ gibbs_kernel(exact), law, atol=1e-7)
  errors = [exact.distance(gibbs_law(2, moves)) for moves in (0, 2, 8)]
  assert errors[0] > 1.5 * errors[1] and errors[1] > 1.5 * errors[2], errors


@pytest.mark.slow
def test_the_gibbs_corrector_draws_this_law():
  """3 steps with 2 moves each, 8,000 samples, and what was given stays."""
  case, count = discrete_cases.joint_5x3(), 8000
  wanted, grid = gibbs_law(3, 2), np.linspace(1.0, 0.0, 4)
  keys = jax.random.split(jax.random.key(3), count)
  run = lambda solver, x: solvers.sample(case.denoiser, solver, x, keys=keys)
  out = run(solvers.gibbs_corrector(case.process, grid, moves=2), case.masks(count))
  bound = discrete_cases.floor(wanted, count) + discrete_cases.margin(count)
  assert discrete_cases.total_variation(out, wanted) < bound
  start = case.masks(count).at[:, 1].set(2).at[:, 3].set(0)
  filled = np.asarray(run(solvers.gibbs_corrector(case.process, grid, moves=2), start))
  assert (filled[:, 1] == 2).all() and (filled[:, 3] == 0).all() and filled.max() < 3


@pytest.mark.slow
@pytest.mark.parametrize(
  "build,n,options",
  [(solvers.d3pm_ancestral, 128, {}), (solvers.gibbs_corrector, 32, {"moves": 3})],
)
def test_a_hidden_markov_chain_is_reached_to_the_sampling_floor(build, n, options):
  """Eight tokens, 128 evaluations, 8,000 samples: within a margin of once in 1e4 of exact draws."""
  case, count = discrete_cases.hidden_markov_8(), 8000
  keys = jax.random.split(jax.random.key(4), count)
  solver = build(case.process, case.process.default_grid(n), **options)
  found = discrete_cases.total_variation(
    solvers.sample(case.denoiser, solver, case.masks(count), keys=keys), case.law
  )
  assert found < discrete_cases.floor(case.law, count) + discrete_cases.margin(count)


@pytest.mark.slow
def test_informed_moves_take_most_of_the_error_of_long_steps_away():
  """Two steps and four moves: well below the law of two steps alone, by 8,000 samples."""
  case, count = discrete_cases.joint_5x3(), 8000
  keys = jax.random.split(jax.random.key(3), count)
  solver = solvers.informed_corrector(case.process, np.linspace(1.0, 0.0, 3), moves=4, temperature=1.0)
  out = solvers.sample(case.denoiser, solver, case.masks(count), keys=keys)
  alone = distance(gibbs_law(2, 0), case.law)
  found = discrete_cases.total_variation(out, case.law)
  assert found < 0.75 * alone, (found, alone)


@struct.dataclass
class Concrete(Wrapper):
  """The concrete score of a neighbourhood, from the ratios of another denoiser."""

  inner: Any
  neighbourhood: Any

  def __call__(self, x, t, cond=None, *, views, key=None, train=False):
    assert views == ("concrete_score",)
    ratios = self.inner(x, t, cond, views=("ratios",)).ratios
    return Prediction(concrete_score=processes.concrete_score(self.neighbourhood, ratios, x))


@pytest.mark.slow
@pytest.mark.parametrize("view", ["ratios", "concrete_score"])
def test_annealed_metropolis_reaches_the_law(view):
  """Many moves at five levels of noise: the law of p at the last, within the floor and a margin."""
  count, exact = 2000, oracle("uniform")
  denoiser = Concrete(exact, neighbourhoods.grid(np.full(5, 3))) if view == "concrete_score" else exact
  grid = np.append(1.0, np.geomspace(0.7, 0.1, 5))
  solver = solvers.annealed_metropolis(UNIFORM, grid, moves=30, view=view)
  keys = jax.random.split(jax.random.key(0), count)
  out = solvers.sample(denoiser, solver, UNIFORM.prior(keys, (5,)), keys=keys)
  wanted = np.asarray(exact.law(jnp.full(1, 0.1))[0], np.float64)
  found = discrete_cases.total_variation(out, wanted)
  assert found < discrete_cases.floor(wanted, count) + discrete_cases.margin(count)


@pytest.mark.slow
def test_ordinal_leaps_reach_the_law_of_a_walk_on_a_line():
  """Jumps of ordered values add up: 64 steps, 8,000 samples, total variation near the floor."""
  line = processes.rate_matrix(processes.walk_rates(neighbourhoods.grid(5, (1, -1), wrap=False)), (2,))
  law = np.random.default_rng(0).dirichlet(np.ones(25)).reshape(5, 5)
  exact, count = oracles.discrete(line, law, dtype=np.float32), 8000
  keys = jax.random.split(jax.random.key(0), count)
  found = {}
  for n in (8, 64):
    solver = solvers.tau_leaping(line, np.linspace(0.95, 0.0, n + 1), ordinal=True)
    start = exact.sample(jax.random.key(1), count, 0.95)
    found[n] = discrete_cases.total_variation(solvers.sample(exact, solver, start, keys=keys), law)
  floor = discrete_cases.floor(law, count)
  assert found[64] < floor + 0.06 and found[64] - floor < 0.4 * (found[8] - floor), (found, floor)


@pytest.mark.parametrize(
  "build,words",
  [
    (lambda: solvers.euler_rates(processes.d3pm_gaussian(3, (1,), [0.5]), [1.0, 0.0]), "follows jump rates"),
    (lambda: solvers.tau_leaping(processes.discretised_gaussian(3), [1.0, 0.0]), "follows jump rates"),
    (
      lambda: solvers.d3pm_ancestral(processes.discretised_gaussian(3), [1.0, 0.0]),
      "posterior at earlier times",
    ),
    (lambda: solvers.d3pm_ancestral(processes.edm(), [1.0, 0.0]), "needs a discrete process"),
    (lambda: solvers.euler_rates(UNIFORM, [0.0, 1.0]), "strictly decrease"),
    (lambda: solvers.euler_rates(UNIFORM, [[1.0, 0.0], [1.0, 0.5]]), "end them alike"),
    (lambda: solvers.tau_leaping(MASKED, [1.0, 0.0], ordinal=True), "leave ordinal out"),
    (lambda: solvers.flow_predictor_corrector(MASKED, [1.0, 0.0], stochasticity=-1.0), "0 or above"),
    (lambda: solvers.gibbs_corrector(UNIFORM, [1.0, 0.0]), "ends in 'uniform'"),
    (lambda: solvers.gibbs_corrector(MASKED, [1.0, 0.0], moves=0), "one or more moves"),
    (lambda: solvers.informed_corrector(MASKED, [1.0, 0.0], temperature=-1.0), "at least 0"),
    (lambda: solvers.annealed_metropolis(MASKED, [1.0, 0.0]), "has masks"),
    (
      lambda: solvers.annealed_metropolis(UNIFORM, [1.0, 0.0], view="logits"),
      "reads ratios or concrete_score",
    ),
    (lambda: solvers.annealed_metropolis(UNIFORM, [1.0, 0.0], moves=0), "one or more moves"),
    (
      lambda: solvers.euler_rates(UNIFORM, [1.0, 0.5]).begin(jnp.zeros((2, 4), jnp.int32), None),
      "states of shape",
    ),
  ],
)
def test_mistakes_raise_a_sentence(build, words):
  with pytest.raises(ValueError, match=words):
    build()
