"""Log-likelihood against closed-form densities, for every process."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from likelihood_cases import (
  EVERY_PROCESS,
  MEAN,
  VARIANCES,
  case,
  draws,
  flow,
  log_prob,
  mixture,
  shifted,
  shifted_twice,
)

from diffusion import likelihood, oracles, processes


@pytest.mark.parametrize("name", sorted(EVERY_PROCESS))
def test_exact_divergence_gives_the_density(name, x64):
  """Within 1e-3 nats a dimension of the closed form, from the oracle's own terminal density."""
  process, first, last, steps, _ = case(name)
  oracle, x = mixture(process), draws()
  value, error = likelihood.log_likelihood(
    oracle, x, steps=steps, prior_log_prob=lambda z: log_prob(oracle, z, last)
  )
  off = np.abs(np.asarray(value) - np.asarray(log_prob(oracle, x, first))) / 2
  print(f"{name}: largest error {off.max():.1e} nats a dimension")
  assert off.max() < 1e-3
  assert not np.asarray(error).any()


@pytest.mark.parametrize("name", sorted(EVERY_PROCESS))
def test_the_prior_costs_its_closed_form(name, x64):
  """For shifted Gaussian data, log-likelihood minus log-density is log prior - log p_T at the latent, -KL on
  average."""
  process, first, last, steps, _ = case(name)
  oracle, exact = shifted_twice(process), shifted(process)
  # Four points of p_T that match its mean and covariance, so that the mean of a quadratic over them is exact.
  m = EVERY_PROCESS[name]().marginal(last)
  width = np.diag(np.sqrt(2 * (m.alpha**2 * VARIANCES + m.sigma**2)))
  z = np.concatenate([m.alpha * MEAN + width, m.alpha * MEAN - width] * 2)
  x = np.asarray(flow(exact, z, last, first))
  value, _ = likelihood.log_likelihood(oracle, x, steps=steps)
  measured = np.asarray(log_prob(exact, x, first)) - np.asarray(value)
  pointwise = np.asarray(log_prob(exact, z, last)) - np.asarray(process.prior_log_prob(z))
  closed = float(likelihood.prior_gap(shifted(EVERY_PROCESS[name]()), jnp.asarray(last)))
  print(
    f"{name}: the prior costs {measured.mean():.5f} nats, closed form {closed:.5f}; at single points up to "
    f"{np.abs(pointwise).max():.4f}"
  )
  np.testing.assert_allclose(measured, pointwise, atol=2e-3)
  np.testing.assert_allclose(pointwise.mean(), closed, rtol=1e-6, atol=1e-12)
  np.testing.assert_allclose(measured.mean(), closed, atol=1e-3)


def test_error_falls_with_the_fourth_power_of_the_step(x64):
  errors = []
  for num_steps in (24, 48):
    process, first, last, steps, _ = case("vp_linear", num_steps)
    oracle, x = mixture(process), draws(seed=1)
    value, _ = likelihood.log_likelihood(
      oracle, x, steps=steps, prior_log_prob=lambda z: log_prob(oracle, z, last)
    )
    errors.append(np.abs(np.asarray(value) - np.asarray(log_prob(oracle, x, first))).mean())
  assert 3.3 < np.log2(errors[0] / errors[1]) < 5.0


def test_samples_come_with_the_likelihood_that_they_are_given_afterwards(x64):
  process, _, _, forward, backward = case("vp_linear")
  oracle = mixture(process)
  x, value, _ = likelihood.decode_with_log_likelihood(oracle, draws(seed=2), steps=backward)
  afterwards, _ = likelihood.log_likelihood(oracle, x, steps=forward)
  np.testing.assert_allclose(value, afterwards, atol=1e-3)


def test_single_precision_and_the_process_itself():
  """In float32 from the process's own formulas on the device, the density is still within 1e-3 nats a
  dimension."""
  oracle = mixture(processes.edm(), jnp.float32)
  x = draws().astype(np.float32)
  value, _ = likelihood.log_likelihood(
    oracle, x, num_steps=48, prior_log_prob=lambda z: log_prob(oracle, z, 80.0)
  )
  np.testing.assert_allclose(value, log_prob(oracle, x, 0.002), atol=2e-3)


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (dict(divergence="hutchinson"), "rademacher"),
    (dict(divergence="gaussian"), "give keys"),
    (dict(divergence="gaussian", keys=jax.random.split(jax.random.key(0), 3)), r"got shape \(3,\)"),
    (dict(divergence="gaussian", keys=jax.random.split(jax.random.key(0), 2), probes=0), "one is the least"),
    (dict(t_min=0.0), "raise t_min"),
    (dict(t_min=2.0, t_max=1.0), "decreasing"),
    (dict(num_steps=0), "one is the least"),
  ],
)
def test_errors(change, message):
  oracle = oracles.gaussian(processes.edm(), np.zeros(2), 1.0)
  with pytest.raises(ValueError, match=message):
    likelihood.log_likelihood(oracle, np.zeros((2, 2), np.float32), **change)
