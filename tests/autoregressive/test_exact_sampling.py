"""Likelihood and samples of tabulated conditionals, against Gaussians and mixtures in closed form."""

import conditional_families as family
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion import autoregressive

GRID = jnp.linspace(-7.0, 7.0, 561)


@pytest.fixture(scope="module")
def draws():
  model, key = family.gaussian(), jax.random.key(0)
  return np.asarray(jax.jit(lambda: autoregressive.sample(model, key, 4096, (3,), GRID))(), np.float64)


def test_the_log_density_of_a_gaussian_with_full_covariance():
  """5e-4 nats: (h / s)^2 / 12 of three normalisers, less what interpolation gives back."""
  x = jnp.asarray(
    np.random.default_rng(0).multivariate_normal(family.MEAN, family.COVARIANCE, 64), jnp.float32
  )
  found = np.asarray(jax.jit(lambda x: autoregressive.log_prob(family.gaussian(), x, GRID, width=64))(x))
  centred = np.asarray(x, np.float64) - family.MEAN
  exact = (
    -0.5 * np.sum(centred @ np.linalg.inv(family.COVARIANCE) * centred, 1)
    - 0.5 * np.linalg.slogdet(2 * np.pi * family.COVARIANCE)[1]
  )
  np.testing.assert_allclose(found, exact, atol=5e-4)


def test_the_log_density_of_a_mixture_with_a_grid_for_each_coordinate():
  """1e-3 nats where there is mass; in the valley h^2 / 8 of its curvature, (3 / 0.09)^2."""
  x = np.random.default_rng(1).uniform(-2.5, 2.5, (64, 2))
  grids = jnp.stack([jnp.linspace(-4.0, 4.0, 801), jnp.linspace(-6.0, 6.0, 801)])
  found = jax.jit(lambda x: autoregressive.conditional_log_probs(family.mixture(), x, grids))(
    jnp.asarray(x, jnp.float32)
  )
  exact = family.mixture_log_prob(x)
  gap = np.abs(np.asarray(found).sum(1) - exact)
  assert gap.max() < 0.015**2 / 8 * 1111 + 1e-3 and gap[exact > -8.0].max() < 1e-3


@pytest.mark.slow
def test_samples_have_the_moments_of_a_gaussian(draws):
  """Means and covariances of 4096 samples within 4.5 standard errors (15 numbers at 7e-6 each)."""
  error = np.sqrt(np.diag(family.COVARIANCE) / 4096)
  assert np.all(np.abs(draws.mean(0) - family.MEAN) < 4.5 * error)
  c = family.COVARIANCE
  spread = np.sqrt((c**2 + np.outer(np.diag(c), np.diag(c))) / 4096)
  assert np.all(np.abs(np.cov(draws.T) - c) < 4.5 * spread)


@pytest.mark.slow
def test_a_sample_depends_on_its_key_and_index_alone(draws):
  model, key = family.gaussian(), jax.random.key(0)
  few = jax.jit(lambda: autoregressive.sample(model, key, 5, (3,), GRID, width=2))()
  np.testing.assert_allclose(few, draws[:5], atol=1e-5)


@pytest.mark.slow
def test_samples_of_a_mixture_are_uniform_under_its_distribution_function():
  """Kolmogorov-Smirnov of both conditionals, 4096 samples each: below 2.2 / sqrt(n), which a true sample
  exceeds with chance 1.3e-4."""
  model = family.mixture()
  x = np.asarray(
    jax.jit(lambda: autoregressive.sample(model, jax.random.key(3), 4096, (2,), GRID))(), np.float64
  )
  moved = x - np.concatenate([np.zeros((4096, 1)), x[:, :1]], 1)
  cdf = sum(
    w * np.asarray(jax.scipy.special.ndtr((moved - c) / family.SPREAD))
    for w, c in zip(family.WEIGHTS, family.CENTRES)
  )
  ranks = np.sort(cdf, axis=0)
  steps = np.arange(1, 4097)[:, None] / 4096
  assert np.maximum(steps - ranks, ranks - steps + 1 / 4096).max() < 2.2 / 64


@pytest.mark.slow
def test_an_image_is_sampled_in_the_shape_of_an_image():
  """The same field, keys and order, as 3 numbers or as an image of 1 x 3 pixels."""
  flat, image = (
    jax.jit(
      lambda shape=shape: autoregressive.sample(family.gaussian(), jax.random.key(1), 4, shape, GRID[::8])
    )()
    for shape in ((3,), (1, 3, 1))
  )
  np.testing.assert_array_equal(flat, image.reshape(4, 3))


def test_mistakes_raise_a_sentence_before_anything_is_compiled():
  model = family.gaussian()
  with pytest.raises(ValueError, match="n=1 or more"):
    autoregressive.sample(model, jax.random.key(0), 0, (3,), GRID)
  with pytest.raises(ValueError, match="increases"):
    autoregressive.log_prob(model, jnp.ones((1, 3)), GRID[::-1])
