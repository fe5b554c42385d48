"""The exact likelihood of a masked model in a given order, and the units in which likelihoods are told."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion import denoisers, likelihood, oracles, processes

K, D = 3, 3
TABLE = np.random.default_rng(0).dirichlet(np.full(K**D, 0.7)).reshape((K,) * D)
STATES = np.array(list(itertools.product(range(K), repeat=D)), np.int32)
PROCESS = processes.masked(K, (D,))


def wrong():
  """A model that is consistent with no joint: any logits, which depend on all that is seen."""
  table = jnp.asarray(np.random.default_rng(1).normal(size=(K + 1,) * D + (D, K)), jnp.float32)
  look_up = lambda own, x, t, cond: own[x[:, 0], x[:, 1], x[:, 2]]
  return denoisers.from_function(look_up, PROCESS, denoisers.logits(), table)


def test_the_exact_denoiser_gives_log_p_in_every_order():
  oracle = oracles.masked_categorical(PROCESS, TABLE)
  for order in itertools.permutations(range(D)):
    found = likelihood.log_prob_in_order(oracle, jnp.asarray(STATES), order=np.array(order))
    np.testing.assert_allclose(found, np.log(TABLE.reshape(-1)), atol=2e-5)


def test_of_any_model_it_is_normalised_and_its_mean_over_orders_is_the_bound():
  """The bound by 2,048 draws of each of 27 states: within 4.5 standard errors (2e-4 for all)."""
  model, x = wrong(), jnp.asarray(STATES)
  orders = [
    np.asarray(likelihood.log_prob_in_order(model, x, order=np.array(order)), np.float64)
    for order in itertools.permutations(range(D))
  ]
  for nats in orders:
    np.testing.assert_allclose(np.exp(nats).sum(), 1.0, rtol=1e-5)
  assert np.abs(orders[0] - orders[1]).max() > 0.1
  many = jnp.repeat(x, 64, axis=0)
  keys = jax.random.split(jax.random.key(0), len(many))
  bound = np.asarray(likelihood.masked_elbo(model, many, keys=keys, draws=32), np.float64).reshape(-1, 64)
  error = bound.std(axis=1, ddof=1) / 8.0
  assert np.all(np.abs(bound.mean(1) - np.mean(orders, axis=0)) < 4.5 * error + 1e-5)


def test_units_are_one_number_told_in_different_ways():
  nats = np.log(np.random.default_rng(0).uniform(0.1, 0.9, 16))
  told = {unit: likelihood.measured(nats, (2, 3), unit) for unit in likelihood.UNITS}
  mean = -nats.mean()
  assert all(found.unit == unit for unit, found in told.items())
  np.testing.assert_allclose(told["nats"].value, mean, rtol=1e-12)
  np.testing.assert_allclose(told["nats/dim"].value, mean / 6, rtol=1e-12)
  np.testing.assert_allclose(told["bits/char"].value, mean / 6 / np.log(2), rtol=1e-12)
  assert told["bits/char"][:2] == told["bits/dim"][:2]
  np.testing.assert_allclose(told["perplexity"].value, 2 ** told["bits/dim"].value, rtol=1e-12)
  np.testing.assert_allclose(told["nats"].error, nats.std(ddof=1) / 4, rtol=1e-12)
  np.testing.assert_allclose(
    told["perplexity"].error / told["perplexity"].value, told["nats/dim"].error, rtol=1e-12
  )
  np.testing.assert_allclose(told["bits/dim"].value, likelihood.bits_per_dim(nats, (2, 3)).mean(), rtol=1e-6)


def test_mistakes_are_named():
  model, uniform = wrong(), oracles.uniform_resample_categorical([np.ones(3)] * 3)
  x = jnp.asarray(STATES)
  for call, words in (
    (lambda: likelihood.log_prob_in_order(uniform, x), "ends in 'uniform'"),
    (lambda: likelihood.log_prob_in_order(model, x + 1), "which is the mask"),
    (lambda: likelihood.masked_elbo(model, x - 1, keys=jax.random.split(jax.random.key(0), 27)), "hold the value -1"),
    (lambda: likelihood.log_prob_in_order(model, x, order=np.array([0, 0, 1])), "permutation of the 3"),
    (lambda: likelihood.measured(np.zeros(4), (2,), "bits"), "choose one of nats"),
    (lambda: likelihood.measured(np.zeros(1), (2,), "nats"), "two records"),
  ):
    with pytest.raises(ValueError, match=words):
      call()
