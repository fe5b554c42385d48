"""Discrete processes as Markov chains: transitions, jump rates and posteriors against closed forms."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import process_cases as cases
import pytest

from diffusion import processes

DISCRETE = [name for name in cases.NAMES if name not in cases.CONTINUOUS]
MARKOV = [name for name in DISCRETE if cases.cases()[name].process.markov]


def sizes_of(case):
  return [(place, size) for place, size in enumerate(case.table.shape)]


@pytest.mark.parametrize("name", DISCRETE)
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


@pytest.mark.parametrize("name", MARKOV)
def test_transitions_compose_and_the_generator_is_their_slope(name):
  """Chapman-Kolmogorov, dT/dt = T Q by central differences, and Q a matrix of jump rates."""
  case = cases.cases()[name]
  process, (r, s, t) = case.process, cases.times(case)
  for _, size in sizes_of(case):
    step = lambda a, b, size=size: process.transition(a, b, size)
    np.testing.assert_allclose(step(r, s) @ step(s, t), step(r, t), rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(step(None, s), step(0.0, s), rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(step(s, s), np.eye(process.num_states), atol=1e-15)
    for time in (r, s, t):
      rates, h = process.generator(time, size), 1e-5
      slope = (step(0.0, time + h) - step(0.0, time - h)) / (2 * h)
      np.testing.assert_allclose(step(0.0, time) @ rates, slope, rtol=1e-6, atol=1e-7)
      np.testing.assert_allclose(rates.sum(-1), 0.0, atol=1e-9)
      assert np.all(rates - np.diag(np.diag(rates)) >= 0)


@pytest.mark.parametrize("name", MARKOV)
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


@pytest.mark.parametrize("name", MARKOV)
def test_the_inflow_and_the_likelihood_are_columns_and_forward_carries_laws(name, x64):
  case = cases.cases()[name]
  process, (s, _, t) = case.process, cases.times(case)
  x, rows = jnp.asarray(cases.states(case)), jnp.ones(len(cases.states(case)))
  weights = np.random.default_rng(0).dirichlet(np.ones(process.num_states), x.shape)
  for place, size in sizes_of(case):
    weights[:, place, size : process.num_values] = 0.0
  weights = jnp.asarray(weights)
  likelihood, inflow = process.likelihood(x, s * rows, t * rows), process.inflow(x, t * rows)
  carried = process.forward(weights, s * rows, t * rows)
  for place, size in sizes_of(case):
    matrix, rates = process.transition(s, t, size), process.generator(t, size)
    exists = [k for k in range(process.num_states) if k < size or k == process.mask]
    own = np.asarray(x)[:, place]
    np.testing.assert_allclose(likelihood[:, place][:, exists], matrix[:, own].T[:, exists], rtol=1e-10)
    np.testing.assert_allclose(carried[:, place], weights[:, place] @ matrix, rtol=1e-10)
    off = rates - np.diag(np.diag(rates))
    np.testing.assert_allclose(inflow[:, place][:, exists], off[:, own].T[:, exists], rtol=1e-10, atol=1e-14)


def test_rates_are_bounded_where_masks_end_and_jumps_of_the_reverse_chain_lead_to_the_data():
  """At alpha = 0 a mask jumps to k at the rate -alpha' p(k), in float32."""
  process = processes.masked(3, (1,))
  probabilities = jnp.asarray([[[0.5, 0.25, 0.25]]])
  found = process.posterior_rates(probabilities, jnp.asarray([[3]]), jnp.ones(1))
  np.testing.assert_allclose(found, [[[0.5, 0.25, 0.25, 0.0]]], rtol=1e-6)


@pytest.mark.parametrize("name", ["uniform_resample", "masked"])
def test_the_reverse_rates_carry_the_law_back(name):
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


def test_what_is_no_chain_says_so():
  process = processes.discretised_gaussian(3)
  for call in (
    lambda: process.transition(0.1, 0.2),
    lambda: process.generator(0.2),
    lambda: process.posterior(jnp.ones((1, 1, 3)) / 3, jnp.zeros((1, 1), int), jnp.zeros(1), jnp.ones(1)),
  ):
    with pytest.raises(ValueError, match="no Markov chain in t"):
      call()
