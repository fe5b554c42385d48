"""Log-likelihood against closed-form densities, for every process."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion import data, likelihood, oracles, processes
from diffusion.likelihood import probability_flow


def mixture(process, dtype=jnp.float64):
  means = jnp.asarray([[1.0, -0.5], [-1.0, 0.3]], dtype)
  covariances = jnp.asarray([[[0.3, 0.1], [0.1, 0.2]], [[0.15, 0.0], [0.0, 0.4]]], dtype)
  return oracles.gaussian_mixture(process, jnp.asarray([0.3, 0.7], dtype), means, covariances)


@pytest.mark.parametrize("name", sorted(processes.PROCESSES))
def test_exact_divergence_gives_the_density(name, x64):
  """Within 1e-3 nats a dimension of the closed form, from the oracle's own terminal density."""
  process = processes.PROCESSES[name]()
  oracle = mixture(process)
  x = oracle.sample(jax.random.key(0), 8)
  last = probability_flow.time_nodes(process, 1)[-1]
  terminal = lambda x: oracle.log_prob(x, jnp.full(x.shape[:1], last))
  value, error = likelihood.log_likelihood(oracle, x, prior_log_prob=terminal)
  expected = oracle.log_prob(x, jnp.full((8,), process.t_min))
  np.testing.assert_allclose(value, expected, atol=2e-3)
  np.testing.assert_array_equal(error, 0)


def test_error_falls_with_the_fourth_power_of_the_step(x64):
  process = processes.vp_linear()
  oracle = mixture(process)
  x = oracle.sample(jax.random.key(1), 16)
  terminal = lambda x: oracle.log_prob(x, jnp.full(x.shape[:1], process.t_max))
  exact = oracle.log_prob(x, jnp.full((16,), process.t_min))
  errors = [float(jnp.abs(likelihood.log_likelihood(oracle, x, num_steps=n, prior_log_prob=terminal)[0] - exact).mean()) for n in (24, 48)]
  assert 3.3 < np.log2(errors[0] / errors[1]) < 5.0


@pytest.mark.parametrize("divergence", ["rademacher", "gaussian"])
def test_estimate_is_unbiased_within_its_error_bar(divergence):
  """The mean over 64 samples of (estimate - exact)/error is below 4/sqrt(64): a 6e-5 event otherwise."""
  process = processes.edm()
  oracle = mixture(process, jnp.float32)
  x = oracle.sample(jax.random.key(2), 64)
  exact, _ = likelihood.log_likelihood(oracle, x, num_steps=32)
  keys = jax.random.split(jax.random.key(3), 64)
  value, error = likelihood.log_likelihood(oracle, x, keys=keys, num_steps=32, divergence=divergence, probes=32)
  z = np.asarray((value - exact) / error)
  assert abs(z.mean()) < 0.5
  assert np.mean(np.abs(z) < 2.1) > 0.8


def test_bits_per_dim_of_a_uniform_density():
  """A uniform density over all levels costs log2(levels) bits a dimension, whatever the scaling."""
  for centered in (True, False):
    scaling = data.Scaling(17, centered=centered, dequantization="uniform")
    width = 2.0 if centered else 1.0
    log_prob = jnp.full((3,), -64 * np.log(width).item())
    np.testing.assert_allclose(likelihood.bits_per_dim(log_prob, (8, 8, 1), scaling), np.log2(17), rtol=1e-6)


def test_errors():
  oracle = mixture(processes.edm(), jnp.float32)
  with pytest.raises(ValueError, match="rademacher"):
    likelihood.log_likelihood(oracle, jnp.zeros((2, 2)), divergence="hutchinson")
  with pytest.raises(ValueError, match="give keys"):
    likelihood.log_likelihood(oracle, jnp.zeros((2, 2)), divergence="gaussian")
  with pytest.raises(ValueError, match="raise t_min"):
    likelihood.log_likelihood(oracle, jnp.zeros((2, 2)), t_min=0.0)
