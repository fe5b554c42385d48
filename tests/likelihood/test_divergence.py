"""The estimated divergence.

Unbiased, inside its own error bar as often as it says, and usable from one probe.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from likelihood_cases import keys, normals

from diffusion import likelihood, oracles, processes
from diffusion.likelihood import divergence

ROWS, DIM, PROBES, STEPS = 512, 8, 32, 6


@pytest.fixture(scope="module")
def exact():
  """(oracle, x, exact log-likelihood); a coarse grid has the same bias for all methods, which see the same
  path."""
  root = normals(DIM, DIM, seed=1) / np.sqrt(DIM)
  oracle = oracles.gaussian(
    processes.vp_linear(), np.ones(DIM), root @ root.T + 0.1 * np.eye(DIM), dtype=jnp.float32
  )
  x = jnp.asarray(normals(ROWS, DIM), jnp.float32)
  return oracle, x, likelihood.log_likelihood(oracle, x, num_steps=STEPS)[0]


@pytest.mark.parametrize("method", ["rademacher", "gaussian"])
def test_the_exact_value_is_inside_the_95_percent_interval_95_percent_of_the_time(method, exact):
  """Of 512 independent intervals, 0.95 ± 3.5 binomial deviations hold the truth: a 5e-4 event otherwise."""
  oracle, x, truth = exact
  value, error = likelihood.log_likelihood(
    oracle, x, keys=keys(ROWS), num_steps=STEPS, divergence=method, probes=PROBES
  )
  z = np.asarray((value - truth) / error)
  inside = np.mean(np.abs(z) < scipy.stats.t.ppf(0.975, PROBES - 1))
  print(f"{method}: {inside:.3f} inside; mean of z {z.mean():+.3f}")
  assert abs(inside - 0.95) < 3.5 * np.sqrt(0.95 * 0.05 / ROWS)
  # Unbiased: the mean of 512 values, in units of its own error, is below 4.
  off = np.asarray(value - truth)
  assert abs(off.mean()) < 4 * off.std() / np.sqrt(ROWS)


@pytest.mark.parametrize("method", ["rademacher", "gaussian"])
def test_one_probe_an_example_gives_an_error_bar_of_the_batch(method, exact):
  """The bar from one probe is the true deviation of the batch's mean, and the mean lies within 4 of it."""
  oracle, x, truth = exact
  value, error = likelihood.log_likelihood(oracle, x, keys=keys(ROWS, 1), num_steps=STEPS, divergence=method)
  assert np.isnan(error).all()
  mean, bar = likelihood.over_batch(value)
  within, without = np.std(value - truth), np.std(truth)
  np.testing.assert_allclose(bar, np.hypot(within, without) / np.sqrt(ROWS), rtol=0.15)
  assert abs(mean - truth.mean()) < 4 * within / np.sqrt(ROWS)


def test_the_error_of_the_error_bar():
  """Standard error of the mean of 16 draws: its square averages to 1/16 over 4096 rows, within 5
  deviations."""
  values = jnp.asarray(np.random.default_rng(0).standard_normal((16, 4096)))
  _, error = likelihood.over_draws(values)
  np.testing.assert_allclose(np.mean(error**2), 1 / 16, rtol=5 * np.sqrt(2 / 15 / 4096))


@pytest.mark.parametrize("dim", [3, 21])
def test_exact_trace_of_a_known_map(dim, x64):
  """tanh(A x) has divergence sum_i A_ii (1 - tanh^2), for dimensions that do and do not fill the chunks."""
  matrix, x = normals(dim, dim), normals(5, dim, seed=1).reshape(5, dim, 1)
  units = np.broadcast_to(np.eye(dim)[:, None, :, None], (dim, *x.shape))

  @jax.jit
  def traces(x):
    _, derivative = jax.linearize(lambda x: jnp.tanh(jnp.einsum("ij,bjk->bik", matrix, x)), x)
    return divergence.exact(derivative, x)[0], divergence.estimates(derivative, units).sum(axis=0)

  expected = np.sum(np.diag(matrix) * (1 - np.tanh(x[..., 0] @ matrix.T) ** 2), axis=1)
  for found in traces(x):
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("method", ["rademacher", "gaussian"])
def test_probes_have_unit_covariance_and_belong_to_their_row(method):
  x = jnp.zeros((6, 2))
  probes = divergence.draw_probes(method, keys(6), x, 4096)
  moments = np.einsum("pbi,pbj->bij", probes, probes) / 4096
  # The largest of 24 entries with deviation sqrt(2 / 4096) at most: beyond 5 deviations one time in 70000.
  np.testing.assert_allclose(moments, np.broadcast_to(np.eye(2), (6, 2, 2)), atol=5 * np.sqrt(2 / 4096))
  np.testing.assert_array_equal(probes[:, 2:4], divergence.draw_probes(method, keys(6)[2:4], x[2:4], 4096))
