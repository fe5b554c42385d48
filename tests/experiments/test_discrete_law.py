"""What the measurements of objectives of whole numbers rest on: bounds that are exact for exact models."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion import oracles
from experiments.discrete import known_law

P = known_law.joint(2, 3)
ENTROPY = -np.sum(P * np.log(P))


@pytest.mark.parametrize("name", ["masked", "score_entropy_uniform", "uniform"])
def test_the_bound_of_an_exact_model_is_the_entropy(name):
  """In float32 and by 24 nodes, which is what the measurements take: to 2e-3 nats."""
  of = known_law.model(name, 3, 2, 4)
  oracle, states = oracles.discrete(of.process, P), known_law.every(of.process.num_states, 2)

  @jax.jit
  def tabulate(t):
    return oracle(states, jnp.full(len(states), t), views=(of.kind,))[of.kind]

  found = known_law.continuous(of, P, lambda t: jnp.maximum(tabulate(t), -80.0), 24)
  assert abs(found - ENTROPY) < 2e-3


def test_the_steps_of_an_exact_model_cost_more_the_fewer_there_are():
  of = known_law.model("d3pm_uniform", 3, 2, 4)
  oracle, states = oracles.discrete(of.process, P), known_law.every(3, 2)
  tabulate = lambda t: oracle(states, jnp.full(len(states), t), views=("logits",)).logits
  few, more = (known_law.stepwise(of, P, tabulate, steps) - ENTROPY for steps in (2, 8))
  assert few > 2 * more > 1e-3


def test_draws_have_the_law():
  """Pearson's statistic of 20,000 draws over 9 states: 8 degrees, above 45 four times in 10^7."""
  x = np.asarray(known_law.draws_of(P, 20_000)(jax.random.key(0))["x"])
  counts = np.bincount(np.ravel_multi_index(x.T, P.shape), minlength=9)
  expected = 20_000 * P.reshape(-1)
  assert np.sum((counts - expected) ** 2 / expected) < 45.0


def test_an_unknown_model_is_named():
  with pytest.raises(ValueError, match="there is no model 'gaussian'"):
    known_law.model("gaussian", 3, 2, 4)
