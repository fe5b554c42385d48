"""Discrete processes as Markov chains: transitions, jump rates and posteriors against closed forms."""

import itertools

import closed_chains
import jax
import jax.numpy as jnp
import numpy as np
import process_cases as cases
import pytest

from diffusion import processes

DISCRETE = [name for name in cases.NAMES if name not in cases.CONTINUOUS]
MARKOV = [name for name in DISCRETE if cases.cases()[name].process.markov]
JUMPS = [name for name in DISCRETE if cases.cases()[name].process.jumps]


def sizes_of(case):
  return [(place, size) for place, size in enumerate(case.table.shape)]


@pytest.mark.parametrize("name", cases.params(DISCRETE))
def test_from_the_data_the_transition_is_the_kernel(name, x64):
  """Rows sum to one, those of absent values stay, and a JAX array gives what the host gives."""
  case = cases.cases()[name]
  process, t = case.process, cases.times(case)
  for place, size in sizes_of(case):
    found = process.transition(None, t, size)
    assert found.shape == (3, process.num_states, process.num_states) and found.dtype == np.float64
    np.testing.assert_allclose(found.sum(-1), 1.0, atol=1e-12)
    for here, time in zip(found, t):
      wanted = cases.kernels(case, time)[place]
      own = [*range(size), *([process.mask] if process.mask is not None else [])]
      np.testing.assert_allclose(here[np.ix_(range(size), own)], wanted, rtol=1e-10, atol=1e-12)
      absent = [k for k in range(process.num_values) if k >= size]
      np.testing.assert_array_equal(here[absent], np.eye(process.num_states)[absent])
    np.testing.assert_allclose(
      process.transition(None, jnp.asarray(t, jnp.float32), size), found, rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("name", cases.params(MARKOV))
def test_transitions_compose_and_the_generator_is_their_slope(name):
  """Chapman-Kolmogorov, dT/dt = T Q by central differences, and Q a matrix of jump rates."""
  case = cases.cases()[name]
  process, (r, s, t) = case.process, cases.times(case)
  for _, size in sizes_of(case):
    step = lambda a, b, size=size: process.transition(a, b, size)
    np.testing.assert_allclose(step(r, s) @ step(s, t), step(r, t), rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(step(None, s), step(0.0, s), rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(step(s, s), np.eye(process.num_states), atol=1e-15)
    for time in (r, s, t) if process.jumps else ():
      rates, h = process.generator(time, size), 1e-5
      slope = (step(0.0, time + h) - step(0.0, time - h)) / (2 * h)
      np.testing.assert_allclose(step(0.0, time) @ rates, slope, rtol=1e-6, atol=1e-7)
      np.testing.assert_allclose(rates.sum(-1), 0.0, atol=1e-9)
      assert np.all(rates - np.diag(np.diag(rates)) >= 0)


@pytest.mark.parametrize("name", cases.params(MARKOV))
def test_the_posterior_of_an_earlier_time_is_that_of_bayes(name, x64):
  """p(x_s | x_t) of each coordinate by enumeration of (x_0, x_s, x_t), from the exact p(x_0 | x_t)."""
  case = cases.cases()[name]
  process, (s, _, t) = case.process, cases.times(case)
  x = cases.states(case)
  first, last = cases.chains(case, s), cases.chains(case, t)
  between = [np.linalg.solve(a, b) for a, b in zip(first, last)]
  pad = [max(len(m) for m in first) - n for n in case.table.shape]
  table = np.pad(case.table, [(0, more) for more in pad]) if process.mask is not None else case.table
  joint = np.einsum("ij,ia,jb->ab", table, *first)
  wanted = np.zeros((len(x), 2, process.num_states))
  for row, (a, b) in enumerate(x):
    both = joint * between[0][:, a][:, None] * between[1][:, b][None, :]
    for d, own in enumerate((both.sum(1), both.sum(0))):
      wanted[row, d, : len(own)] = own / own.sum()
  known = jnp.asarray(cases.exact_views(case, t)["probabilities"])
  x, rows = jnp.asarray(x), jnp.ones(len(x))
  found = jax.jit(process.posterior)(known, x, s * rows, t * rows)
  np.testing.assert_allclose(found, wanted, rtol=1e-10, atol=1e-12)
  more = process.num_states - process.num_values
  for start in (None, jnp.zeros(len(x))):
    clean = process.posterior(known, x, start, t * rows)
    np.testing.assert_allclose(clean, np.pad(known, [(0, 0), (0, 0), (0, more)]), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", cases.params(MARKOV))
def test_the_inflow_and_the_likelihood_are_columns_and_forward_carries_laws(name, x64):
  case = cases.cases()[name]
  process, (s, _, t) = case.process, cases.times(case)
  x, rows = jnp.asarray(cases.states(case)), jnp.ones(len(cases.states(case)))
  weights = np.random.default_rng(0).dirichlet(np.ones(process.num_states), x.shape)
  for place, size in sizes_of(case):
    weights[:, place, size : process.num_values] = 0.0
  weights = jnp.asarray(weights)
  likelihood = process.likelihood(x, s * rows, t * rows)
  inflow = process.inflow(x, t * rows) if process.jumps else None
  carried = process.forward(weights, s * rows, t * rows)
  for place, size in sizes_of(case):
    matrix = process.transition(s, t, size)
    exists = [k for k in range(process.num_states) if k < size or k == process.mask]
    own = np.asarray(x)[:, place]
    np.testing.assert_allclose(likelihood[:, place][:, exists], matrix[:, own].T[:, exists], rtol=1e-10)
    np.testing.assert_allclose(carried[:, place], weights[:, place] @ matrix, rtol=1e-10)
    if inflow is None:
      continue
    rates = process.generator(t, size)
    off = rates - np.diag(np.diag(rates))
    np.testing.assert_allclose(inflow[:, place][:, exists], off[:, own].T[:, exists], rtol=1e-10, atol=1e-14)


def test_rates_are_bounded_where_masks_end_and_jumps_of_the_reverse_chain_lead_to_the_data():
  """At alpha = 0 a mask jumps to k at the rate -alpha' p(k), in float32."""
  process = processes.masked(3, (1,))
  probabilities = jnp.asarray([[[0.5, 0.25, 0.25]]])
  found = process.posterior_rates(probabilities, jnp.asarray([[3]]), jnp.ones(1))
  np.testing.assert_allclose(found, [[[0.5, 0.25, 0.25, 0.0]]], rtol=1e-6)


@pytest.mark.parametrize("name", cases.params(JUMPS))
def test_the_reverse_rates_carry_the_law_back(name, x64):
  """dp/dt = -(p R - p r): the reverse chain of the rates has the law p_t, over all states of the joint."""
  case = cases.cases()[name]
  t, h, x = 0.6, 1e-5, [tuple(row) for row in cases.states(case)]
  rates, p = cases.exact_views(case, t)["rates"], cases.table_at(case, t)
  flow = np.zeros((len(x), len(x)))
  for (i, a), (j, b) in itertools.product(enumerate(x), enumerate(x)):
    changed = [d for d in range(2) if a[d] != b[d]]
    if len(changed) == 1:
      flow[i, j] = rates[i, changed[0], b[changed[0]]]
  slope = (cases.table_at(case, t + h) - cases.table_at(case, t - h)) / (2 * h)
  np.testing.assert_allclose(p @ flow - p * flow.sum(1), -slope, atol=1e-7)


def test_a_walk_ends_in_the_law_that_its_jumps_keep():
  """Birth and death at unequal rates: detailed balance gives (6, 3, 1) / 10."""
  process = processes.rate_matrix([[-1.0, 1.0, 0.0], [2.0, -3.0, 1.0], [0.0, 3.0, -3.0]], (4,))
  np.testing.assert_allclose(process.stationary, [0.6, 0.3, 0.1], rtol=1e-12)
  np.testing.assert_allclose(process.transition(None, 1.0), np.tile(process.stationary, (3, 1)), atol=1e-12)
  start = np.asarray(process.prior(jax.random.split(jax.random.key(0), 5000), (4,)))
  counts, wanted = np.bincount(start.reshape(-1), minlength=3), 20_000 * process.stationary
  assert np.sum((counts - wanted) ** 2 / wanted) < 28.0  # chi-squared of 2 degrees, once in 1e6


def test_mixtures_add_rates():
  """The generator of a mixture is the weighted sum, and equal noises of one clock are that noise, faster."""
  shape = (2,)
  uniform, walk = processes.uniform_resample(3, shape), processes.rate_matrix(closed_chains.AROUND, shape)
  both = processes.mixture([uniform, walk], [0.5, 2.0])
  wanted = 0.5 * uniform.generator(0.3) + 2.0 * walk.generator(0.3)
  np.testing.assert_allclose(both.generator(0.3), wanted, rtol=1e-12)
  twice = processes.mixture([processes.masked(3, shape)] * 2, [1.0, 1.0])
  np.testing.assert_allclose(twice.transition(0.0, 0.5), processes.masked(3, shape).transition(0.0, 0.75))
  masked = processes.mixture([processes.masked(3, shape, t_min=0.01), both], [0.3, 1.0])
  assert masked.num_states == 4 and masked.mask == 3
  np.testing.assert_allclose(masked.generator(0.3)[:3, :3], wanted - 0.3 / 0.7 * np.eye(3), rtol=1e-12)


def test_d3pm_ladders_pass_through_their_steps():
  """Given one-step matrices, the ladder of steps and the process in closed form have the same transitions."""
  betas = processes.cosine_betas(10)
  uniform = processes.d3pm_uniform(3, (2,), betas)
  steps = [(1 - beta) * np.eye(3) + beta / 3 for beta in betas]
  ladder = processes.d3pm(steps, (2,))
  for i, j in ((0, 3), (2, 3), (2, 10), (5, 5)):
    np.testing.assert_allclose(
      ladder.transition(i / 10, j / 10), uniform.transition(i / 10, j / 10), atol=1e-14
    )
  absorbing = processes.d3pm_absorbing(3, (2,), 10)
  mask = np.eye(4)[[3]]
  steps = [(1 - beta) * np.eye(4) + beta * mask for beta in 1.0 / (10 - np.arange(10))]
  ladder = processes.d3pm(steps, (2,), mask=True)
  for i, j in ((0, 3), (2, 3), (2, 10)):
    np.testing.assert_allclose(
      ladder.transition(i / 10, j / 10), absorbing.transition(i / 10, j / 10), atol=1e-14
    )
  assert (np.asarray(ladder.prior(jax.random.split(jax.random.key(0), 3), (2,))) == 3).all()


@pytest.mark.parametrize(
  "build,words",
  [
    (lambda: processes.rate_matrix([[-1, 1, 0], [1, -1, 0], [0, 0, 0]], (1,)), "no rate leaves state 2"),
    (
      lambda: processes.rate_matrix([[-1, 1, 0, 0], [1, -1, 0, 0], [0, 0, -1, 1], [0, 0, 1, -1]], (1,)),
      "not connected: no jumps lead from 0 to 2",
    ),
    (lambda: processes.rate_matrix([[-1, 1, 0], [1, -1, 0], [1, 0, -1]], (1,)), "no jumps lead from 0 to 2"),
    (lambda: processes.rate_matrix([[1, -1], [1, -1]], (1,)), "rate from 0 to 1 is -1"),
    (lambda: processes.rate_matrix([[-1, 2], [1, -1]], (1,)), "row 0 of the rates sums to 1, not to 0"),
    (lambda: processes.rate_matrix([[-1, 1]], (1,)), "matrix \\[S, S\\]"),
    (lambda: processes.mixture_path(3, (1,), [0.5, 0.5]), "3 probabilities, or 4 with a mask"),
    (lambda: processes.mixture([processes.masked(3, (1,))], [0.0]), "one weight above 0"),
    (
      lambda: processes.mixture([processes.discretised_gaussian(3, (1,))], [1.0]),
      "'discretised_gaussian' has none",
    ),
    (
      lambda: processes.mixture(
        [
          processes.uniform_resample(3, (1,)),
          processes.uniform_resample(3, (1,), schedule=processes.cosine_keep()),
        ],
        [1.0, 1.0],
      ),
      "share one schedule",
    ),
    (
      lambda: processes.mixture([processes.masked(3, (1,)), processes.masked(2, (1,))], [1, 1]),
      "build them alike",
    ),
    (lambda: processes.d3pm([[[0.5, 0.6], [0.5, 0.5]]], (1,)), "matrix of step 1 is no transition"),
    (lambda: processes.d3pm([np.eye(2)], (1,)).generator(1.0), "no jump rates"),
    (lambda: processes.d3pm([np.eye(2)], (1,)).default_grid(2), "take as many at most"),
    (lambda: processes.ladder_keep([0.1, 1.0, 0.1]), "the last up to 1"),
    (lambda: processes.polynomial_keep(0.0), "power above 0"),
    (lambda: processes.log_linear_keep(0.0), "between 0 and 1"),
    (lambda: processes.slowed_keep(processes.linear_keep(), -1.0), "weight above 0"),
    (
      lambda: processes.walk_rates(processes.neighbourhoods.grid([3, 4])),
      "give the neighbourhood of one coordinate",
    ),
  ],
)
def test_mistakes_raise_a_sentence(build, words):
  with pytest.raises(ValueError, match=words):
    build()


def test_what_is_no_chain_says_so():
  process = processes.discretised_gaussian(3)
  for call in (
    lambda: process.transition(0.1, 0.2),
    lambda: process.generator(0.2),
    lambda: process.posterior(jnp.ones((1, 1, 3)) / 3, jnp.zeros((1, 1), int), jnp.zeros(1), jnp.ones(1)),
  ):
    with pytest.raises(ValueError, match="no Markov chain in t"):
      call()
