"""The parametric model against the oracle, and its derivatives where an eigenbasis has none."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion import density_ratio, oracles, processes
from experiments.dre_infinity.density_ratio import correlated, expected_log_ratio


def test_fields_are_those_of_the_oracle_and_differentiate_in_the_covariance(x64):
  path = processes.spherical()
  time_score, score = density_ratio.gaussian_end(path)
  rng = np.random.default_rng(0)
  x, t = jnp.asarray(rng.normal(size=(5, 3))), jnp.linspace(0.1, 1.0, 5)
  root = jnp.asarray(rng.normal(size=(3, 3)) + np.eye(3))
  oracle = oracles.path_mixture(path, None, ([1.0], np.zeros((1, 3)), [np.asarray(root @ root.T)]))
  np.testing.assert_allclose(
    time_score(density_ratio.prepare(root), x, t), oracle.time_score(x, t), rtol=1e-8
  )
  np.testing.assert_allclose(score(density_ratio.prepare(root), x, t), oracle.score(x, t), rtol=1e-8)

  @jax.jit
  def value(root, t):  # with a derivative in time, as the objective takes it
    field = lambda t: time_score(density_ratio.prepare(root), x, t)
    return jnp.sum(jax.jvp(field, (t,), (jnp.ones_like(t),))[1]) + jnp.sum(
      jnp.sin(score(density_ratio.prepare(root), x, t))
    )

  gradient = jax.jit(jax.grad(value))
  for point in (root, 0.7 * jnp.eye(3)):  # the second has equal eigenvalues
    away, step = jnp.asarray(rng.normal(size=(3, 3))), 1e-5
    slope = (value(point + step * away, t) - value(point - step * away, t)) / (2 * step)
    np.testing.assert_allclose(jnp.sum(gradient(point, t) * away), slope, rtol=1e-6)


def test_the_expected_ratio_at_the_truth_is_the_mutual_information():
  for dim in (4, 40):
    covariance, truth = correlated(dim)
    nodes = density_ratio.gauss_legendre(processes.spherical(), 64)
    assert abs(expected_log_ratio(np.linalg.cholesky(covariance), covariance, nodes) - truth) < 1e-10
    # Less at any other covariance: by the divergence of q from the model.
    other = covariance + 0.1 * np.eye(dim)
    lost = 0.5 * (
      np.trace(np.linalg.solve(other, covariance))
      - dim
      + np.linalg.slogdet(other)[1]
      - np.linalg.slogdet(covariance)[1]
    )
    assert abs(expected_log_ratio(np.linalg.cholesky(other), covariance, nodes) - truth + lost) < 1e-9


def test_a_path_without_a_normal_end_raises():
  with pytest.raises(ValueError, match="from a standard normal to data"):
    density_ratio.gaussian_end(processes.linear())
