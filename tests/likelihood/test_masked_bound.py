"""The bound of a model that fills in masks, against log-probabilities that are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion import denoisers, likelihood, oracles, processes

K, D = 3, 3
TABLE = np.random.default_rng(0).dirichlet(np.full(K**D, 0.7)).reshape((K,) * D)
STATES = np.stack(np.meshgrid(*[np.arange(K)] * D, indexing="ij"), -1).reshape(-1, D).astype(np.int32)


@pytest.mark.parametrize("schedule", [processes.linear_keep(), processes.cosine_keep()])
def test_at_the_exact_denoiser_it_is_the_log_probability(schedule):
  """All 27 states, 512 estimates of 3 draws each: within 4.5 standard errors, and the errors are small."""
  process = processes.masked(K, (D,), schedule=schedule)
  oracle = oracles.masked_categorical(process, [TABLE], np.ones(1))
  repeats = 512
  x = jnp.repeat(jnp.asarray(STATES), repeats, axis=0)
  found = likelihood.masked_elbo(oracle, x, keys=jax.random.split(jax.random.key(0), len(x)), draws=D)
  found = np.asarray(found, np.float64).reshape(len(STATES), repeats)
  error = found.std(axis=1, ddof=1) / np.sqrt(repeats)
  assert np.all(np.abs(found.mean(1) - np.log(TABLE.reshape(-1))) < 4.5 * error + 1e-5)
  assert error.max() < 0.1


def test_of_independent_coordinates_alike_it_is_exact_and_rows_do_not_meet():
  log_p = jnp.log(jnp.array([0.2, 0.5, 0.3]))
  known = denoisers.from_function(
    lambda params, x, t, cond: jnp.broadcast_to(log_p, (*x.shape, 3)),
    processes.masked(3, (2, 5)),
    denoisers.logits(),
  )
  x, keys = jnp.full((4, 2, 5), 1), jax.random.split(jax.random.key(1), 4)
  found = likelihood.masked_elbo(known, x, keys=keys, draws=7)
  np.testing.assert_allclose(found, np.full(4, 10 * np.log(0.5)), rtol=1e-5)
  mixed = jax.random.randint(jax.random.key(2), (4, 2, 5), 0, 3)
  whole = likelihood.masked_elbo(known, mixed, keys=keys, draws=7)
  part = likelihood.masked_elbo(known, mixed[2:], keys=keys[2:], draws=7)
  np.testing.assert_allclose(whole[2:], part, rtol=1e-6)


def test_a_wrong_model_is_below_by_what_it_misses():
  """A model of independent coordinates of the right marginals: the mean of log p less the bound is the
  multi-information of the data, for its bound is its own log-probability."""
  process = processes.masked(K, (D,))
  marginals = np.stack([TABLE.sum(tuple(j for j in range(D) if j != i)) for i in range(D)])
  apart = denoisers.from_function(
    lambda params, x, t, cond: jnp.broadcast_to(jnp.log(jnp.asarray(marginals, jnp.float32)), (*x.shape, K)),
    process,
    denoisers.logits(),
  )
  repeats = 256
  x = jnp.repeat(jnp.asarray(STATES), repeats, axis=0)
  found = likelihood.masked_elbo(apart, x, keys=jax.random.split(jax.random.key(3), len(x)), draws=12)
  exact = sum(np.log(marginals[i][STATES[:, i]]) for i in range(D))
  found = np.asarray(found, np.float64).reshape(len(STATES), repeats)
  error = found.std(axis=1, ddof=1) / np.sqrt(repeats)
  assert np.all(np.abs(found.mean(1) - exact) < 4.5 * error + 1e-5)


def test_mistakes_are_named():
  edm = oracles.gaussian(processes.edm(), jnp.zeros(2), 1.0)
  masked = denoisers.from_function(lambda p, x, t, c: x, processes.masked(2, (2,)), denoisers.logits())
  keys = jax.random.split(jax.random.key(0), 1)
  with pytest.raises(ValueError, match="'edm' ends in 'normal'"):
    likelihood.masked_elbo(edm, jnp.zeros((1, 2), jnp.int32), keys=keys)
  with pytest.raises(ValueError, match="whole numbers"):
    likelihood.masked_elbo(masked, jnp.zeros((1, 2)), keys=keys)
  with pytest.raises(ValueError, match="at least 1"):
    likelihood.masked_elbo(masked, jnp.zeros((1, 2), jnp.int32), keys=keys, draws=0)
