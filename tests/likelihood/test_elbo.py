"""The variational bound against closed forms for Gaussian data, whose exact denoiser's errors are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from likelihood_cases import EVERY_PROCESS, MEAN, VARIANCES, keys, record, shifted

from diffusion import data, denoisers, likelihood, processes

ROWS, STEPS = 2048, 32
POINTS = np.array([[1.2, -1.5], [2.2, 0.3]])  # each repeated, so that rows average the noise


def rows():
  return np.repeat(POINTS, ROWS // 2, axis=0).astype(np.float32)


def mean_and_error(values):
  """[ROWS] -> mean and standard error at each of the two points."""
  values = np.asarray(values).reshape(2, -1)
  return values.mean(axis=1), values.std(axis=1) / np.sqrt(values.shape[1])


def squared_error(snr):
  """E |x - x0_hat|^2 a dimension at some SNR [T]: [2, T, 2]."""
  shrink = 1 / (1 + snr[:, None] * VARIANCES)
  return (shrink * (POINTS - MEAN)[:, None]) ** 2 + snr[:, None] * (shrink * VARIANCES) ** 2


def limit(high, low):
  """1/2 int E |x - x0_hat|^2 d SNR from low to high: [2]."""

  def antiderivative(snr):
    return (
      np.log1p(snr * VARIANCES)
      + 1 / (1 + snr * VARIANCES)
      - (POINTS - MEAN) ** 2 / VARIANCES / (1 + snr * VARIANCES)
    )

  return 0.5 * (antiderivative(high) - antiderivative(low)).sum(axis=1)


def known_terms(process, first, last):
  """log p(x) - bound that flat decoder and approximate prior add to the limit, in closed form: [2]."""
  m, top = process.marginal(first), process.marginal(last)
  log_density = lambda square, variance: -0.5 * (np.log(2 * np.pi * variance) + square / variance).sum(axis=1)
  posterior = VARIANCES * m.sigma**2 / (m.alpha**2 * VARIANCES + m.sigma**2)
  decoder = log_density(squared_error(np.exp(process.log_snr(first)).reshape(1))[:, 0], posterior)
  decoder = decoder + 0.5 * 2 * (1 + np.log(2 * np.pi * m.noise_to_signal**2))
  from_mean = (top.alpha * (POINTS - MEAN)) ** 2 + top.sigma**2
  from_zero = (top.alpha * POINTS) ** 2 + top.sigma**2
  prior = log_density(from_mean, top.alpha**2 * VARIANCES + top.sigma**2) - log_density(
    from_zero, process.prior_std**2 * np.ones(2)
  )
  return decoder + prior


def log_density():
  return -0.5 * ((POINTS - MEAN) ** 2 / VARIANCES + np.log(2 * np.pi * VARIANCES)).sum(axis=1)


@pytest.mark.parametrize("name", sorted(EVERY_PROCESS))
def test_discrete_bound_of_the_exact_denoiser(name):
  """The bound is log p minus the gaps in closed form: steps, decoder and prior; two z-scores below 4.5 (1e-5
  each)."""
  process = EVERY_PROCESS[name]()
  grid = likelihood.log_snr_times(process, STEPS)
  bound = likelihood.discrete_elbo(shifted(record(process, grid)), rows(), grid, keys=keys(ROWS), draws=2)
  snr = np.exp(process.log_snr(grid))
  steps = 0.5 * np.sum((snr[:-1] - snr[1:])[None, :, None] * squared_error(snr[1:]), axis=(1, 2))
  gap = steps - limit(snr[0], snr[-1])
  mean, error = mean_and_error(bound.diffusion)
  assert np.all(np.abs(mean - steps) < 4.5 * error)
  total, _ = mean_and_error(bound.total)
  exact = log_density() - gap - known_terms(process, grid[0], grid[-1])
  print(
    f"{name}: log p {log_density().round(3)}, bound {total.round(3)} ± {error.round(3)}, closed form "
    f"{exact.round(3)}"
  )
  assert np.all(np.abs(total - exact) < 4.5 * error)
  assert np.all(gap > 0)
  # The bar of each row's draws: its square averages to the variance over equal rows, within 20%.
  squares, _ = mean_and_error(bound.error**2)
  np.testing.assert_allclose(squares, np.asarray(bound.total).reshape(2, -1).var(axis=1), rtol=0.2)


@pytest.mark.parametrize("name", ["rectified_flow", "ve"])
def test_continuous_bound_is_tight_up_to_the_known_terms(name):
  """With the exact denoiser no gap is left but decoder and prior's; two z-scores below 4.5 (1e-5 each)."""
  process = processes.PROCESSES[name]()
  bound = likelihood.continuous_elbo(shifted(process), rows(), keys=keys(ROWS), num_times=STEPS)
  ends = likelihood.log_snr_times(process, 1)
  total, error = mean_and_error(bound.total)
  exact = log_density() - known_terms(process, *ends)
  print(
    f"{name}: log p {log_density().round(3)}, bound {total.round(3)} ± {error.round(3)}, closed form "
    f"{exact.round(3)}"
  )
  assert np.all(np.abs(total - exact) < 4.5 * error)
  assert np.all(error < 0.1)


def known_time(params, x, t, cond):
  """x0_hat = w(t) params, whatever x_t: the error has no noise."""
  del cond
  return jnp.broadcast_to(jnp.sin(0.5 * np.pi * (1 - t)).reshape(-1, 1) ** 2 * params, x.shape)


def test_discrete_bound_rises_with_the_steps_to_the_limit_with_order_one():
  """For x0_hat = alpha^2 a and x = a the error is (1 - alpha^2)^2 |a|^2: with doubled grids L falls, and its
  gap halves.

  A grid of 128 steps is two of 64, whose costs add up: all are one program.
  """
  process = processes.vp_cosine()
  denoiser = denoisers.from_function(known_time, process, denoisers.x0(), np.array([[1.0, 2.0]], np.float32))
  x = np.array([[1.0, 2.0]] * 2, np.float32)
  nodes = process.t_of_log_snr(np.linspace(6.0, -8.0, 257))
  cost = lambda grid: float(likelihood.discrete_elbo(denoiser, x, grid, keys=keys(2)).diffusion[0])
  costs = [
    sum(cost(nodes[start : start + 64 * every + 1 : every]) for start in range(0, 256, 64 * every))
    for every in (4, 2, 1)
  ]
  # int (1 - alpha^2)^2 d SNR with SNR = s: 1 - alpha^2 = 1 / (1 + s), so the integral is -1 / (1 + s).
  high, low = np.exp([6.0, -8.0])
  gaps = np.array(costs) - 0.5 * 5 * (1 / (1 + low) - 1 / (1 + high))
  print("gaps of 64, 128 and 256 steps", gaps)
  assert gaps[0] > gaps[1] > gaps[2] > 0
  np.testing.assert_allclose(np.log2(gaps[:-1] / gaps[1:]), 1.0, atol=0.1)


def test_any_grid_of_a_constant_guess_telescopes():
  """For x0_hat = a, L = (SNR_0 - SNR_T) |x - a|^2 / 2 exactly, for an uneven grid that ends without signal
  too."""
  process = processes.vp_cosine()
  denoiser = denoisers.from_function(
    lambda params, x, t, cond: jnp.broadcast_to(params, x.shape),
    process,
    denoisers.x0(),
    np.zeros((1, 2), np.float32),
  )
  x = np.array([[1.0, 2.0], [0.0, -3.0]], np.float32)
  grid = np.concatenate([np.sort(np.random.default_rng(0).uniform(0.05, 0.98, 11)), [1.0]])
  bound = likelihood.discrete_elbo(denoiser, x, grid, keys=keys(2), draws=2)
  np.testing.assert_allclose(
    bound.diffusion, 0.5 * np.exp(process.log_snr(grid[0])) * np.sum(x**2, axis=1), rtol=1e-4
  )
  np.testing.assert_allclose(bound.prior, 0, atol=1e-12)
  np.testing.assert_allclose(bound.error / bound.diffusion, 0, atol=1e-4)


def exact_posterior(centre, x, z, m):
  """p(x | z) of data N(centre, 1)."""
  variance = m.sigma**2 / (m.alpha**2 + m.sigma**2)
  mean = centre + m.alpha * (z - m.alpha * centre) / (m.alpha**2 + m.sigma**2)
  return jnp.sum(-0.5 * (x - mean) ** 2 / variance - 0.5 * jnp.log(2 * np.pi * variance), axis=1)


def test_decoders_see_z_at_the_first_time():
  """The data's own posterior as decoder: E log p(x | z) in closed form, z-score below 4.5; levels sum to
  one."""
  process = processes.vp_cosine()
  denoiser = denoisers.from_function(known_time, process, denoisers.x0(), np.array([[1.0, 2.0]], np.float32))
  x, t = np.ones((ROWS, 2), np.float32), 0.3
  decoder = jax.tree_util.Partial(exact_posterior, np.zeros((1, 2), np.float32))
  bound = likelihood.discrete_elbo(denoiser, x, np.array([t, 1.0]), keys=keys(ROWS), decoder=decoder)
  m = process.marginal(t)
  # residual of x given z: sigma^2 x - alpha sigma eps, variance of the posterior sigma^2
  closed = 2 * (
    -0.5 * (m.sigma**4 + m.alpha**2 * m.sigma**2) / m.sigma**2 - 0.5 * np.log(2 * np.pi * m.sigma**2)
  )
  values = np.asarray(bound.reconstruction)
  assert abs(values.mean() - closed) < 4.5 * values.std() / np.sqrt(ROWS)
  scaling = data.Scaling(5)
  decoder = likelihood.level_decoder(scaling)
  grid = scaling.to_model(np.arange(5))
  z = np.array([0.3, -0.8], np.float32)
  pairs = np.stack(np.meshgrid(grid, grid), axis=-1).reshape(25, 2)
  total = np.exp(jax.jit(lambda *a: decoder(*a))(pairs, np.tile(z, (25, 1)), m)).sum()
  np.testing.assert_allclose(total, 1.0, rtol=1e-5)


@pytest.mark.parametrize(
  ("grid", "message"),
  [
    ([0.5, 0.4, 1.0], "ascending"),
    ([0.5], "at least 1"),
    ([0.0, 0.5], "without noise"),
    ([0.1, 1.0], "says nothing of x0"),
  ],
)
def test_errors(grid, message):
  denoiser = denoisers.from_function(lambda params, x, t, cond: x, processes.vp_cosine(), denoisers.eps())
  with pytest.raises(ValueError, match=message):
    likelihood.discrete_elbo(denoiser, np.zeros((2, 2), np.float32), grid, keys=keys(2))
