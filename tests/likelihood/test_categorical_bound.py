"""The bound of any discrete process, against log-probabilities that are known."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion import denoisers, likelihood, oracles, processes

K, D = 3, 2
TABLE = np.random.default_rng(0).dirichlet(np.full(K**D, 0.7)).reshape((K,) * D)
STATES = np.stack(np.meshgrid(*[np.arange(K)] * D, indexing="ij"), -1).reshape(-1, D).astype(np.int32)


def process(name):
  if name == "masked":
    return processes.masked(K, (D,))
  return processes.uniform_resample(K, (D,), t_min=1e-3)


def estimate(denoiser, repeats, **options):
  """Means and standard errors of each state's bound, [S], and the mean of its parts."""
  x = jnp.repeat(jnp.asarray(STATES), repeats, axis=0)
  keys = jax.random.split(jax.random.key(0), len(x))
  bound = likelihood.categorical_elbo(denoiser, x, keys=keys, **options)
  found = np.asarray(bound.total, np.float64).reshape(len(STATES), repeats)
  return found.mean(1), found.std(axis=1, ddof=1) / np.sqrt(repeats), bound


EACH = pytest.mark.parametrize("name", [pytest.param("masked", marks=pytest.mark.slow), "uniform_resample"])


@EACH
def test_at_the_exact_denoiser_in_continuous_time_it_is_the_log_probability(name):
  """9 states, 512 estimates each: within 4.5 standard errors (6e-5 for all) and what t_min leaves."""
  oracle = oracles.discrete(process(name), TABLE)
  mean, error, bound = estimate(oracle, 512, num_times=16)
  # Below t_min coordinates are drawn apart: what they tell of each other there is of the order of its square.
  assert np.all(np.abs(mean - np.log(TABLE.reshape(-1))) < 4.5 * error + 1e-4)
  assert np.sqrt(np.sum((TABLE.reshape(-1) * error) ** 2)) < 0.03
  np.testing.assert_allclose(bound.total, bound.reconstruction - bound.prior - bound.diffusion, rtol=1e-5)
  np.testing.assert_array_equal(bound.prior, 0.0)


@EACH
def test_with_steps_it_is_exact_for_one_coordinate_and_below_for_more(name):
  """Within 4.5 standard errors; the mean over the data is below by what coordinates tell of each other."""
  law = TABLE.sum(1)
  one = processes.masked(K, (1,)) if name == "masked" else processes.uniform_resample(K, (1,))
  x = jnp.repeat(jnp.arange(K, dtype=jnp.int32), 512)[:, None]
  keys = jax.random.split(jax.random.key(1), len(x))
  found = likelihood.categorical_elbo(oracles.discrete(one, law), x, keys=keys, steps=3)
  found = np.asarray(found.total, np.float64).reshape(K, -1)
  error = found.std(axis=1, ddof=1) / np.sqrt(512)
  assert np.all(np.abs(found.mean(1) - np.log(law)) < 4.5 * error + 1e-5)
  oracle, weights = oracles.discrete(process(name), TABLE), TABLE.reshape(-1)
  gaps = []
  for steps, repeats in ((1, 4), (4, 2048)):
    mean, error, _ = estimate(oracle, repeats, steps=steps)
    gaps.append(np.sum(weights * (np.log(weights) - mean)))
    spread = np.sqrt(np.sum((weights * error) ** 2))
  marginals = TABLE.sum(1)[:, None] * TABLE.sum(0)[None]
  told = np.sum(TABLE * np.log(TABLE / marginals))
  np.testing.assert_allclose(gaps[0], told, atol=1e-4)  # one step says the coordinates apart, exactly
  assert 4.5 * spread < gaps[1] < gaps[0]


@pytest.mark.slow
def test_under_masks_it_agrees_with_the_bound_of_smaller_variance():
  """Of a wrong model: the same mean within 4.5 standard errors of both, 9 states."""
  of = process("masked")
  own = jnp.asarray(np.random.default_rng(2).normal(size=(K + 1, K + 1, D, K)), jnp.float32)
  model = denoisers.from_function(lambda own, x, t, cond: own[x[:, 0], x[:, 1]], of, denoisers.logits(), own)
  mean, error, _ = estimate(model, 256, num_times=16)
  x = jnp.repeat(jnp.asarray(STATES), 256, axis=0)
  keys = jax.random.split(jax.random.key(3), len(x))
  other = np.asarray(likelihood.masked_elbo(model, x, keys=keys, draws=4), np.float64).reshape(-1, 256)
  spread = np.hypot(error, other.std(axis=1, ddof=1) / 16.0)
  assert np.all(np.abs(mean - other.mean(1)) < 4.5 * spread + 1e-4)
  assert np.mean(other.std(axis=1)) < np.mean(error) * 16.0


@pytest.mark.slow
def test_rows_do_not_meet_and_draws_have_an_error():
  oracle = oracles.discrete(process("uniform_resample"), TABLE)
  x, keys = jnp.asarray(STATES), jax.random.split(jax.random.key(4), len(STATES))
  for options in (dict(num_times=4), dict(steps=3)):
    run = functools.partial(likelihood.categorical_elbo, oracle, draws=3, **options)
    whole, part = run(x, keys=keys), run(x[4:], keys=keys[4:])
    np.testing.assert_allclose(whole.total[4:], part.total, rtol=1e-5)
    np.testing.assert_allclose(whole.error[4:], part.error, rtol=1e-3)
    assert np.all(np.asarray(whole.error) > 0)


@pytest.mark.slow
def test_where_the_noise_ends_counts():
  """KL of the last law from the prior, by its definition; infinite where not all is masked."""
  x = jnp.asarray(STATES)
  early = processes.uniform_resample(K, (D,), t_max=0.5)
  q = np.where(np.eye(K)[0] == 1, 0.5 + 0.5 / K, 0.5 / K)
  wanted = D * np.sum(q * np.log(q * K))
  np.testing.assert_allclose(likelihood.end_kl(early, x, 0.5), np.full(len(x), wanted), rtol=1e-5)
  assert np.all(np.isposinf(likelihood.end_kl(processes.masked(K, (D,)), x, 0.5)))
  ragged = processes.uniform_resample(np.array([2, 3]))
  np.testing.assert_allclose(likelihood.end_kl(ragged, jnp.zeros((1, 2), jnp.int32), 1.0), 0.0, atol=1e-6)


def test_mistakes_are_named():
  oracle, x = oracles.discrete(process("masked"), TABLE), jnp.asarray(STATES)
  keys = jax.random.split(jax.random.key(0), len(x))
  gaussian = oracles.discrete(processes.discretised_gaussian(K, (D,)), TABLE)
  edm = oracles.gaussian(processes.edm(), jnp.zeros(2), 1.0)
  for denoiser, values, options, words in (
    (gaussian, x, {}, "jump rates in continuous time"),
    (edm, x, {}, "jump rates in continuous time"),
    (gaussian, x, dict(steps=4), "Markov chain in t"),
    (oracle, x + 1, {}, "which is the mask"),
    (oracle, x, dict(draws=0), "draws must be at least 1"),
    (oracle, x, dict(num_times=0), "num_times must be at least 1"),
    (oracle, x, dict(steps=[0.5, 1.0]), "increase from 0"),
  ):
    with pytest.raises(ValueError, match=words):
      likelihood.categorical_elbo(denoiser, values, keys=keys, **options)
