"""The listed laws are laws, their posteriors are exact, and the floor is what exact draws have."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from discrete_cases import CASES, floor, margin, total_variation

from experiments.discrete import listed_laws


@pytest.mark.parametrize("name", CASES)
def test_the_posterior_is_bayes_on_the_table_at_every_state(name):
  case = CASES[name]()
  np.testing.assert_allclose(case.law.sum(), 1.0, rtol=1e-12)
  values = case.process.num_values
  states = np.array(list(itertools.product(range(values + 1), repeat=case.size)))
  found = jax.jit(lambda x, t: case.denoiser(x, t, views=("probabilities",)).probabilities)(
    jnp.asarray(states, jnp.int32), jnp.full(len(states), 0.5)
  )
  for row in np.random.default_rng(0).choice(len(states), 60, replace=False):
    table = case.law.copy()
    for axis, seen in enumerate(states[row]):
      if seen < values:
        table = table * (np.arange(values) == seen).reshape(
          [-1 if a == axis else 1 for a in range(case.size)]
        )
    axes = range(case.size)
    exact = [table.sum(axis=tuple(a for a in axes if a != d)) / table.sum() for d in axes]
    np.testing.assert_allclose(found[row], exact, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_the_floor_is_the_mean_of_exact_draws(name):
  """The mean of 20 runs of 4,000: each is within its margin, so the mean is within a fifth of that."""
  case, count = CASES[name](), 4000
  found = [total_variation(case.exact(count, seed), case.law) for seed in range(20)]
  assert max(found) < floor(case.law, count) + margin(count)
  assert abs(np.mean(found) - floor(case.law, count)) < 0.2 * margin(count)


@pytest.mark.parametrize("name", CASES)
def test_the_experiments_measure_on_the_same_laws(name):
  np.testing.assert_allclose(listed_laws.LAWS[name](), CASES[name]().law, rtol=1e-12)
  assert listed_laws.floor(CASES[name]().law, 1000) == floor(CASES[name]().law, 1000)
