"""Gibbs sampling from a concrete score.

Full conditionals and the stationary law of a sweep, exactly; and chains along falling noise.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mcmc import discrete_targets as targets

from diffusion import mcmc, oracles, processes


@pytest.mark.parametrize(
  "name",
  ["wrapped", *(pytest.param(name, marks=pytest.mark.slow) for name in ("cycle", "grid", "flips", "star"))],
)
def test_full_conditionals_are_exact_and_a_sweep_leaves_the_law(name, x64):
  of = targets.target(name)
  sizes, x = of.neighbourhood.sizes, jnp.asarray(of.states)
  kernel = mcmc.gibbs(of.concrete, of.neighbourhood)
  log_conditional = jax.jit(lambda kernel, place: jax.nn.log_softmax(kernel.log_conditional(x, place)))
  sweep = np.eye(len(x))
  for place, size in enumerate(sizes):
    found = np.exp(np.asarray(log_conditional(kernel, jnp.int32(place))))
    assert not found[:, size:].any()
    matrix, rows = np.zeros((len(x), len(x))), of.states.reshape(len(x), -1)
    for value in range(size):
      moved = rows.copy()
      moved[:, place] = value
      matrix[np.arange(len(x)), targets.numbers(moved, sizes)] += found[:, value]
    along = np.moveaxis(of.p.reshape(sizes), place, -1)
    conditional = np.moveaxis((along / along.sum(-1, keepdims=True)), -1, place).reshape(-1)
    np.testing.assert_allclose(matrix, np.where(matrix > 0, conditional[None], 0.0), rtol=1e-10)
    sweep = sweep @ matrix
  np.testing.assert_allclose(of.p @ sweep, of.p, rtol=1e-12)


def test_around_a_circle_what_does_not_close_is_spread_evenly(x64):
  """Log ratios u of a model that is no gradient: log p differs from step to step by u less its mean."""
  u = np.array([0.3, -0.1, 0.5, -0.2, 0.4])
  kernel = mcmc.gibbs(lambda x, t, cond: jnp.expm1(jnp.asarray(u))[x], processes.neighbourhoods.cycle(5))
  found = np.asarray(jax.jit(kernel.log_conditional)(jnp.zeros((1, 1), jnp.int32), jnp.int32(0)))[0]
  np.testing.assert_allclose(np.roll(found, -1) - found, u - u.mean(), rtol=1e-12)


@pytest.mark.slow
def test_annealed_chains_have_the_law_of_the_last_level():
  """20,000 chains of the oracle over 12 states from noise to b = 0.02: Pearson's statistic with 11 degrees,
  above 46 once in 3e5."""
  joint, n = np.random.default_rng(3).dirichlet(np.full(12, 0.5)).reshape(3, 4), 20_000
  oracle = oracles.uniform_resample_categorical(joint)
  of, process = processes.neighbourhoods.grid([3, 4], (1,)), processes.uniform_resample([3, 4])
  concrete = jax.tree_util.Partial(_next_of, oracle)
  start = process.prior(jax.random.split(jax.random.key(0), n), process.shape)
  done = mcmc.anneal(mcmc.gibbs(concrete, of), start, jax.random.key(1), [1.0, 0.3, 0.1, 0.02], 3)
  x = np.asarray(done.x)
  expected = n * np.asarray(oracle.table(jnp.full(1, 0.02)))[0].reshape(-1)
  counts = np.bincount(x[:, 0] * 4 + x[:, 1], minlength=12)
  assert np.sum((counts - expected) ** 2 / expected) < 46.0
  assert done.info["moved"].shape == (4, n) and done.samples is None
  # At full noise nothing is remembered: a coordinate stays with probability 1/K.
  np.testing.assert_allclose(done.info["moved"][0].mean(), (2 / 3 + 3 / 4) / 2, atol=0.01)


def _next_of(oracle, x, t, cond=None):
  """Of the oracle's table [B, D, K], the entries of x_d + 1."""
  ahead = (x + 1) % jnp.asarray([3, 4], x.dtype)[None]
  return jnp.take_along_axis(oracle.concrete(x, t), ahead[:, :, None], axis=2)[:, :, 0]


@pytest.mark.parametrize(
  "build,error,words",
  [
    (lambda: mcmc.gibbs(1.0, processes.neighbourhoods.cycle(3)), TypeError, "takes a function"),
    (lambda: mcmc.metropolis(1.0, processes.neighbourhoods.cycle(3)), TypeError, "takes a function"),
    (
      lambda: mcmc.anneal(mcmc.langevin(jnp.negative, 0.1), jnp.zeros((2, 1)), jax.random.key(0), [1.0], 2),
      TypeError,
      "field t",
    ),
    (
      lambda: mcmc.anneal(
        mcmc.gibbs(jnp.sin, processes.neighbourhoods.cycle(3)),
        jnp.zeros((2, 1), int),
        jax.random.key(0),
        1.0,
        2,
      ),
      ValueError,
      "one or more times",
    ),
    (
      lambda: mcmc.anneal(
        mcmc.gibbs(jnp.sin, processes.neighbourhoods.cycle(3)),
        jnp.zeros((2, 1), int),
        jax.random.key(0),
        [1.0],
        0,
      ),
      ValueError,
      "num_steps=1 or more",
    ),
  ],
)
def test_mistakes_raise_a_sentence(build, error, words):
  with pytest.raises(error, match=words):
    build()
