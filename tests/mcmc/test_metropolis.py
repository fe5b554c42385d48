"""Metropolis-Hastings from a concrete score: the stationary law on a small state space, exactly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mcmc import discrete_targets as targets

from diffusion import mcmc


def transitions(kernel, of):
  """The transition matrix [S, S]: every move of every state, chosen evenly and accepted as the kernel
  says."""
  x = jnp.asarray(of.states)
  count = of.neighbourhood.num_neighbours + of.neighbourhood.num_reverse

  @jax.jit
  def everything(kernel):
    exists = kernel.moves(x)[1]
    y, log_acceptance = jax.vmap(lambda move: kernel.propose(x, jnp.full(len(x), move)), out_axes=1)(
      jnp.arange(count, dtype=jnp.int32)
    )
    return exists, y, jnp.exp(log_acceptance)

  exists, y, accepted = map(np.asarray, everything(kernel))
  y = targets.numbers(y, of.neighbourhood.sizes).reshape(exists.shape)
  matrix = np.zeros((len(x), len(x)))
  for state in range(len(x)):
    np.add.at(matrix[state], y[state][exists[state]], accepted[state][exists[state]] / exists[state].sum())
  return matrix + np.diag(1.0 - matrix.sum(1))


@pytest.mark.parametrize(
  "name",
  ["star", *(pytest.param(name, marks=pytest.mark.slow) for name in ("cycle", "grid", "wrapped", "flips"))],
)
def test_the_stationary_law_is_that_of_the_concrete_score(name, x64):
  """p P = p and detailed balance to rounding, with ends, with moves that have no inverse, and with states of
  unequal degree."""
  of = targets.target(name)
  matrix = transitions(mcmc.metropolis(of.concrete, of.neighbourhood), of)
  assert matrix.min() >= 0.0
  np.testing.assert_allclose(of.p @ matrix, of.p, rtol=1e-12)
  np.testing.assert_allclose(of.p[:, None] * matrix, (of.p[:, None] * matrix).T, rtol=1e-10, atol=1e-15)
  # Irreducible: nothing else is stationary.
  assert np.sort(np.abs(np.linalg.eigvals(matrix)))[-2] < 1.0 - 1e-6


@pytest.mark.slow
def test_a_step_is_drawn_from_the_transition_matrix():
  """20,000 steps from each state of the star: Pearson's statistic with at most 9 degrees, above 47 once in
  2e6; the chain's own law too."""
  of, n = targets.target("star", jnp.float32), 20_000
  kernel = mcmc.metropolis(of.concrete, of.neighbourhood)
  x = jnp.asarray(np.repeat(of.states, n, axis=0))
  done = mcmc.run(kernel, x, jax.random.key(0), 1)
  matrix = transitions(kernel, of)
  counts = np.array([np.bincount(part, minlength=4) for part in np.asarray(done.x)[:, 0].reshape(4, n)])
  expected = n * matrix
  assert not counts[expected == 0].any()
  assert np.sum((counts - expected) ** 2 / np.where(expected > 0, expected, 1.0)) < 47.0
  moved = matrix * (1 - np.eye(4))
  np.testing.assert_allclose(np.asarray(done.info["accepted"]).reshape(4, n).mean(1), moved.sum(1), atol=0.02)
  np.testing.assert_array_equal(
    mcmc.run(kernel, x[5:9], jax.random.split(jax.random.key(1), 9)[5:9], 1).x,
    mcmc.run(kernel, x[:9].at[5:9].set(x[5:9]), jax.random.split(jax.random.key(1), 9), 1).x[5:9],
  )


def test_a_ratio_that_the_model_makes_negative_is_a_small_one(x64):
  of = targets.target("cycle")
  kernel = mcmc.metropolis(
    jax.tree_util.Partial(lambda x, t, cond: jnp.full((x.shape[0], 1), -3.0)), of.neighbourhood
  )
  y, log_acceptance = jax.jit(kernel.propose)(jnp.zeros((2, 1), jnp.int32), jnp.array([0, 1], jnp.int32))
  assert y[:, 0].tolist() == [1, 4]
  np.testing.assert_allclose(log_acceptance, [np.log(1e-8), 0.0])
