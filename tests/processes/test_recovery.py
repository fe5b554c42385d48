"""Levels of recovery: the published schedule, the composition of its steps, and the size of Langevin's."""

import numpy as np
import pytest

from diffusion import processes

T6 = processes.recovery_levels(processes.ddpm_ladder(), processes.T6_TIMES)


def test_the_published_schedule():
  """arXiv:2012.08125, T = 6: what the authors' code computes from 1000 betas."""
  m = processes.ddpm_ladder().marginal(T6.t)
  np.testing.assert_allclose(
    m.alpha, [0.99995, 0.94612, 0.81015, 0.62770, 0.43997, 0.27892, 0.00635], atol=6e-6
  )
  np.testing.assert_allclose(m.sigma, [0.0100, 0.3238, 0.5862, 0.7785, 0.8980, 0.9603, 0.99998], atol=6e-5)
  np.testing.assert_allclose(T6.gain, [0.94617, 0.85629, 0.77480, 0.70092, 0.63396, 0.02278], atol=6e-6)
  np.testing.assert_allclose(T6.noise, [0.32368, 0.51650, 0.63221, 0.71324, 0.77337, 0.99974], atol=6e-6)
  assert T6.seen.tolist() == [True] * 5 + [False]  # the last level starts from noise itself
  np.testing.assert_allclose(T6.start[:-1] * T6.gain[:-1], 1.0)
  np.testing.assert_allclose(T6.start[-1], 1.0, rtol=1e-5)


@pytest.mark.parametrize("name", processes.PROCESSES)
def test_steps_compose_to_the_process(name):
  """x_T out of x_0 by the steps has the process's own mean and variance, and levels asked for by number are
  even in log-SNR."""
  process = processes.PROCESSES[name]()
  levels = processes.recovery_levels(process, 7)
  m = process.marginal(levels.t)
  alpha, variance = m.alpha[0], m.sigma[0] ** 2
  for gain, noise in zip(levels.gain, levels.noise):
    alpha, variance = gain * alpha, gain**2 * variance + noise**2
  np.testing.assert_allclose([alpha, variance], [m.alpha[-1], m.sigma[-1] ** 2], rtol=1e-9)
  steps = np.diff(process.log_snr(levels.t))
  np.testing.assert_allclose(steps, steps[0], rtol=1e-5)
  np.testing.assert_allclose(levels.deviation**2, m.alpha**2 + m.sigma**2)


def test_a_step_is_a_share_of_the_variance_given_the_noisier_point():
  """For data N(0, std^2): from the covariance of (x_i, x_{i+1})."""
  process, std = processes.vp_linear(), 0.7
  levels = processes.recovery_levels(process, (0.1, 0.4, 1.0), step=0.25, data_std=std)
  m = process.marginal(np.array([0.1, 0.4, 1.0]))
  variance = (m.alpha * std) ** 2 + m.sigma**2
  covariance = levels.gain * variance[:-1]
  np.testing.assert_allclose(levels.step, 0.25 * (variance[:-1] - covariance**2 / variance[1:]), rtol=1e-10)


def test_mistakes_raise_a_sentence():
  process = processes.vp_linear()
  for build, words in (
    (lambda: processes.recovery_levels(process, (0.2, 0.2)), "ascending"),
    (lambda: processes.recovery_levels(process, 3, step=lambda levels, sigma: sigma), "one number a level"),
    (lambda: processes.recovery_levels(process, 3, step=0.0), "positive share"),
    (lambda: processes.recovery_levels(None, 3), "Gaussian process"),
  ):
    with pytest.raises(ValueError, match=words):
      build()
