"""Discrete processes.

Ratios are those of a normalised kernel, draws follow it, and its ends are the data and noise.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion import oracles, processes

SIZES = np.array([4, 3])
CASES = {
  "uniform_resample": processes.uniform_resample(SIZES),
  "gaussian_circle": processes.discretised_gaussian(SIZES),
  "gaussian_line": processes.discretised_gaussian(SIZES, wrap=False),
}


def kernel(process, size, t):
  """q(value | x_0) [K_0, K] from the ratios alone."""
  clean, value = np.meshgrid(np.arange(size), np.arange(size), indexing="ij")
  rows = [jnp.asarray(a.reshape(1, -1), jnp.int32) for a in (clean, np.zeros_like(clean), value)]
  ratio = jax.jit(lambda x0, old, new, t: process.ratio(x0, old, new, np.full(size * size, size), t))
  weight = np.asarray(ratio(*rows, jnp.full(1, t)), np.float64).reshape(size, size)
  return weight / weight.sum(1, keepdims=True)


def test_ratios_are_those_of_the_kernels_as_written():
  t, size = 0.6, 4
  stay = 1 - t + t / size
  np.testing.assert_allclose(
    kernel(CASES["uniform_resample"], size, t), np.where(np.eye(size), stay, t / size), rtol=1e-5
  )
  for name, turns in (("gaussian_line", range(1)), ("gaussian_circle", range(-6, 7))):
    sigma = float(CASES[name].clock(t).sigma)
    distance = np.arange(size)[None, :] - np.arange(size)[:, None]
    weight = sum(np.exp(-0.5 * ((distance + turn * size) / sigma) ** 2) for turn in turns)
    np.testing.assert_allclose(kernel(CASES[name], size, t), weight / weight.sum(1, keepdims=True), rtol=1e-5)


@pytest.mark.parametrize(
  "name", [pytest.param(name, marks=() if name == "gaussian_circle" else pytest.mark.slow) for name in CASES]
)
def test_draws_follow_the_kernel_and_rows_their_keys(name):
  """Pearson's statistic over 12 states: chi-squared with 11 degrees, above 46 once in 3e5."""
  process, n, t = CASES[name], 30_000, 0.35
  x0 = jnp.tile(jnp.array([[2, 1]], jnp.int32), (n, 1))
  keys = jax.random.split(jax.random.key(0), n)
  corrupt = jax.jit(lambda keys, x0, t: process.corrupt(x0, process.noise(keys, x0), t))
  x = np.asarray(corrupt(keys, x0, jnp.full(n, t)))
  expected = n * np.outer(kernel(process, 4, t)[2], kernel(process, 3, t)[1]).reshape(-1)
  counts = np.bincount(x[:, 0] * 3 + x[:, 1], minlength=12)
  assert np.sum((counts - expected) ** 2 / expected) < 46.0
  order = np.random.default_rng(0).permutation(n)
  np.testing.assert_array_equal(corrupt(keys[order], x0, jnp.full(n, t)), x[order])


@pytest.mark.slow
def test_the_resampling_oracle_has_this_kernel():
  """log q of the oracle of `oracles.uniform_resample_categorical`, whose clock is the same."""
  oracle = oracles.uniform_resample_categorical(np.ones((4, 3)))
  x0 = jnp.array([[2, 1]] * 4, jnp.int32)
  x = jnp.array([[2, 1], [2, 0], [3, 1], [0, 2]], jnp.int32)
  t = jnp.full(4, 0.35)
  expected = np.exp(oracle.log_kernel(x, x0, t) - oracle.log_kernel(x0, x0, t))
  np.testing.assert_allclose(
    jnp.prod(CASES["uniform_resample"].ratio(x0, x0, x, SIZES, t), axis=1), expected, rtol=1e-5
  )


@pytest.mark.slow
def test_ends_are_noise_and_nearly_the_data():
  for name, process in CASES.items():
    np.testing.assert_allclose(kernel(process, 4, 1.0), 0.25, atol=0.03 if name == "gaussian_line" else 3e-3)
    assert np.diag(kernel(process, 4, float(process.t_min))).min() > 0.7
    prior = np.asarray(process.prior(jax.random.split(jax.random.key(0), 2000), process.shape))
    assert prior.shape == (2000, 2) and prior.min() == 0 and prior.max(0).tolist() == [3, 2]
    np.testing.assert_array_equal(
      prior[:7], process.prior(jax.random.split(jax.random.key(0), 7), process.shape)
    )


@pytest.mark.parametrize(
  "build,words",
  [
    (lambda: processes.uniform_resample(1), "two or more values"),
    (lambda: processes.uniform_resample([3, 4], (3,)), "do not fit: give one number for all"),
    (lambda: processes.uniform_resample(3, t_min=0.5, t_max=0.5), "larger t_max"),
    (lambda: processes.discretised_gaussian(3, sigma_min=0.0), "sigma_min > 0"),
    (lambda: processes.discretised_gaussian(3, t_max=2.0), "within"),
  ],
)
def test_mistakes_raise_a_sentence(build, words):
  with pytest.raises(ValueError, match=words):
    build()
