"""Each time sampler against its density."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from diffusion import denoisers, losses, processes

CASES = [
  (name, process)
  for name in losses.TIME_SAMPLERS
  if name != "ladder_times"
  for process in ("vp_linear", "edm", "rectified_flow")
]


def closed(name, process):
  objective = losses.denoising_score_matching(process)
  roles = losses.roles(model=denoisers.from_functions(eps=lambda params, x, t, cond: x))
  return losses.chain(objective, losses.at_times(losses.TIME_SAMPLERS[name](), roles=roles)).sampler


def distribution(sampler, num=20001):
  """Nodes and the CDF by the trapezoidal rule on exp(log_density)."""
  low, high = float(sampler.t_min), float(sampler.t_max)
  t = low + (high - low) * np.linspace(0, 1, num) ** 2
  density = np.exp(np.asarray(sampler.log_density(jnp.asarray(t, jnp.float32)), np.float64))
  density[[0, -1]] = density[[1, -2]]  # float32 may round an end out of the interval
  return t, np.concatenate([[0], np.cumsum(0.5 * (density[1:] + density[:-1]) * np.diff(t))])


@pytest.mark.parametrize("name,process_name", CASES)
def test_samples_follow_the_density(name, process_name):
  """Kolmogorov-Smirnov, p > 1e-4 in each of 15 cases; a stratified sample passes by far."""
  process = processes.PROCESSES[process_name]()
  sampler = closed(name, process)
  t = np.asarray(sampler.sample(jax.random.key(1), 4000), np.float64)
  assert t.min() >= sampler.t_min - 1e-6 and t.max() <= sampler.t_max + 1e-6
  nodes, cdf = distribution(sampler)
  np.testing.assert_allclose(cdf[-1], 1.0, atol=2e-3)
  assert stats.kstest(t, lambda x: np.interp(x, nodes, cdf / cdf[-1])).pvalue > 1e-4


def test_the_density_is_zero_outside():
  process = processes.vp_linear()
  for name in losses.TIME_SAMPLERS:
    outside = closed(name, process).log_density(jnp.array([-0.1, 1.1]))
    np.testing.assert_array_equal(outside, -np.inf)


def test_low_discrepancy_puts_one_time_in_each_stratum():
  base = losses.uniform_times(0.0, 1.0)
  t = np.sort(np.asarray(losses.low_discrepancy(base).sample(jax.random.key(0), 64)))
  np.testing.assert_array_equal(np.floor(t * 64), np.arange(64))
  # Through another quantile the strata are those of equal probability.
  skewed = losses.logit_normal(0.5, 1.0, 0.0, 1.0)
  t = np.asarray(losses.low_discrepancy(skewed).sample(jax.random.key(0), 64))
  strata = np.sort(np.floor(stats.norm.cdf(np.log(t / (1 - t)) - 0.5) * 64 + 1e-3))
  assert len(set(strata)) >= 62


def test_low_discrepancy_lowers_the_variance_of_a_mean():
  """Rotated lattice: the spread of the mean of t^2 over keys falls by far more than the 1/sqrt(n) of
  independence."""
  base = losses.uniform_times(0.0, 1.0)
  spread = [
    np.std([np.mean(np.asarray(s.sample(jax.random.key(i), 64)) ** 2) for i in range(30)])
    for s in (base, losses.low_discrepancy(base))
  ]
  assert spread[1] < spread[0] / 4


def test_log_normal_noise_levels_are_log_normal():
  """Mean and spread of log sigma within 4 standard errors; truncation at EDM's interval is below 1e-5 of the
  mass."""
  sampler = losses.log_normal_sigma(process=processes.edm())
  log_sigma = np.log(np.asarray(sampler.sample(jax.random.key(0), 20000), np.float64))
  assert abs(log_sigma.mean() + 1.2) < 4 * 1.2 / np.sqrt(20000)
  assert abs(log_sigma.std() - 1.2) < 4 * 1.2 / np.sqrt(2 * 20000)


def test_ladder_times_are_the_ladder_and_evenly_taken():
  sampler = losses.ladder_times(10, 1.0)
  t = np.asarray(sampler.sample(jax.random.key(0), 5000))
  rungs, counts = np.unique(np.round(t * 10).astype(int), return_counts=True)
  np.testing.assert_array_equal(rungs, np.arange(1, 11))
  assert stats.chisquare(counts).pvalue > 1e-4
  mass = np.exp(sampler.log_density(jnp.array([0.1, 0.5, 1.0, 0.55, 0.0])))
  np.testing.assert_allclose(mass, [0.1, 0.1, 0.1, 0.0, 0.0], rtol=1e-5)


def test_samplers_are_pytrees_that_a_jitted_function_takes():
  for sampler in (
    losses.uniform_times(0.0, 1.0),
    losses.logit_normal(0.0, 1.0, 0.0, 1.0),
    losses.importance(losses.snr(0.0), processes.vp_linear()),
    losses.ladder_times(7, 1.0),
  ):
    sample = jax.jit(lambda s, key: s.sample(key, 5))
    np.testing.assert_allclose(
      sample(sampler, jax.random.key(0)), sampler.sample(jax.random.key(0), 5), rtol=1e-5
    )
