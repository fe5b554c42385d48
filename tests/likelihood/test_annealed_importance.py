"""Annealed importance sampling on densities whose normaliser is known, from below and from above."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion import likelihood

CHAINS = 400
CENTRES = np.array([[-1.5, 0.0], [1.0, 1.0], [0.5, -1.2]])
WIDTH = 0.25
LOG_Z = np.log(3 * 2 * np.pi * WIDTH**2) + 1.7


def gaussian(precision, x):
  """A correlated Gaussian about (0.5, -0.3), unnormalised; log Z = log(2 pi) - log det / 2."""
  y = x - jnp.asarray([[0.5, -0.3]], x.dtype)
  return 0.5 * jnp.sum(y * (y @ precision), axis=1)


def mixture(x):
  """Three Gaussians, unnormalised."""
  square = jnp.sum(jnp.square(x[:, None] - jnp.asarray(CENTRES, x.dtype)[None]), axis=2)
  return -1.7 - jax.nn.logsumexp(-0.5 * square / WIDTH**2, axis=1)


def of_mixture(count):
  rng = np.random.default_rng(0)
  return jnp.asarray(
    CENTRES[rng.integers(0, 3, count)] + WIDTH * rng.standard_normal((count, 2)), jnp.float32
  )


def keys(seed=0, count=CHAINS):
  return jax.random.split(jax.random.key(seed), count)


@pytest.mark.parametrize("leapfrog,step", [(1, 0.5), pytest.param(3, 0.25, marks=pytest.mark.slow)])
def test_the_normaliser_of_a_gaussian(leapfrog, step):
  """Within 4 standard errors, which are small; parameters are data."""
  options = dict(std=1.5, scale=0.5, num_steps=200, leapfrog=leapfrog, step=step)
  for precision in ([[4.0, 1.0], [1.0, 2.0]], [[1.0, -0.5], [-0.5, 3.0]]):
    precision = jnp.asarray(precision)
    found = likelihood.annealed_importance(
      gaussian, jnp.zeros((CHAINS, 2)), keys(), params=precision, **options
    )
    exact = np.log(2 * np.pi) - 0.5 * np.linalg.slogdet(np.asarray(precision))[1]
    assert abs(found.value - exact) < 4 * found.standard_error and found.standard_error < 0.03
    assert found.acceptance > 0.8 and found.effective > 0.7 * CHAINS


def test_both_directions_enclose_the_normaliser_of_a_mixture():
  """Few temperatures: the mean log-weights are off to both sides, as Jensen says, and both values right
  within 4 standard errors."""
  options = dict(std=1.5, scale=WIDTH, num_steps=100)
  up = likelihood.annealed_importance(mixture, jnp.zeros((CHAINS, 2)), keys(), **options)
  down = likelihood.annealed_importance(mixture, of_mixture(CHAINS), keys(1), reverse=True, **options)
  for found in (up, down):
    assert abs(found.value - LOG_Z) < 4 * found.standard_error and found.standard_error < 0.1
  log_base = np.log(2 * np.pi * 1.5**2)
  below, above = log_base + np.mean(up.log_weights), log_base - np.mean(down.log_weights)
  assert below < LOG_Z - 0.01 and above > LOG_Z + 0.01
  # The ends of the chains lie on the mixture and on the base.
  assert np.sqrt(np.min(np.sum((np.asarray(up.x)[:, None] - CENTRES) ** 2, 2), 1)).max() < 6 * WIDTH
  assert abs(np.var(down.x) / 1.5**2 - 1) < 5 * np.sqrt(2 / (2 * CHAINS))


def test_a_single_temperature_is_importance_sampling_and_its_error_bar_is_right():
  """Over 200 repeats of 50 chains the values spread as their errors say (10% at 95%), and mean weights are
  unbiased within 4.5 errors."""
  energy = lambda x: 0.5 * jnp.sum(x * x, axis=1)

  def one(key):
    return likelihood.annealed_importance(
      energy, jnp.zeros((50, 1)), jax.random.split(key, 50), std=2.0, num_steps=1
    )

  found = jax.jit(jax.vmap(one))(keys(2, 200))
  relative = np.exp(np.asarray(found.value) - 0.5 * np.log(2 * np.pi))
  assert abs(relative.mean() - 1) < 4.5 * relative.std() / np.sqrt(200)
  exact = np.sqrt((4 / np.sqrt(7) - 1) / 50)  # E w^2 = std^2 / sqrt(2 std^2 - 1) for w of mean one
  assert abs(np.sqrt(np.mean(np.square(found.standard_error))) / exact - 1) < 0.1
  assert abs(relative.std() / exact - 1) < 0.2


@pytest.mark.parametrize(
  "options,words",
  [
    (dict(num_steps=0), "num_steps=1 or more"),
    (dict(leapfrog=0), "leapfrog=1 or more"),
    (dict(std=0.0), "std is positive"),
    (dict(step=-1.0), "step is positive"),
    (dict(keys=jax.random.split(jax.random.key(0), 3)), "one typed key a chain"),
  ],
)
def test_mistakes_raise_a_sentence(options, words):
  given = dict(keys=keys(0, 4)) | options
  with pytest.raises(ValueError, match=words):
    likelihood.annealed_importance(mixture, jnp.zeros((4, 2)), given.pop("keys"), **given)
