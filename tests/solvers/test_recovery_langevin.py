"""Level-by-level sampling of recovery likelihood against closed forms of Gaussian data."""

import jax
import numpy as np
import pytest
from solver_cases import Moments, table_moments

from diffusion import oracles, processes, solvers

MEAN, VARIANCE = 0.5, 0.3


@pytest.mark.parametrize(
  "name,step", [("vp_cosine", 0.4), ("edm", 0.4), ("ddpm_ladder", processes.published_step(2e-2))]
)
def test_the_table_is_the_recursion_of_the_paper(name, step):
  """Mean and variance after every level by hand: K steps in p(x_i | x_{i+1}) of the exact energy, from the
  noisy point."""
  process = {**processes.PROCESSES, **processes.LADDERS}[name]()
  times = processes.T6_TIMES if name == "ddpm_ladder" else processes.recovery_levels(process, 5).t
  table = solvers.recovery_langevin(
    process, times[::-1], steps_per_level=7, step=step, noise_scale=0.99, dtype=np.float64
  )
  levels = processes.recovery_levels(process, times, step=step)
  marginal = process.marginal(np.asarray(times))
  assert table.cost == 7 * levels.count
  mean, variance = 0.2, 1.1  # not the marginal of the noisiest level
  for i in reversed(range(levels.count)):
    total = marginal.alpha[i] ** 2 * VARIANCE + marginal.sigma[i] ** 2
    gain, noise, size = levels.gain[i], levels.noise[i], levels.step[i]
    # x = offset + slope x_{i+1} + noise of variance `own`.
    offset, slope, own = 0.0, levels.start[i], 0.0
    for _ in range(7):
      factor = 1.0 - 0.5 * size * (1.0 / total + (gain / noise) ** 2)
      offset = factor * offset + 0.5 * size * marginal.alpha[i] * MEAN / total
      slope = factor * slope + 0.5 * size * gain / noise**2
      own = factor**2 * own + 0.99**2 * size
    mean, variance = offset + slope * mean, own + slope**2 * variance
  found = table_moments(process, table, MEAN, VARIANCE, Moments(0.2, 1.1))
  np.testing.assert_allclose([found.mean, found.variance], [mean, variance], rtol=1e-9)


def test_long_chains_with_small_steps_give_the_law_of_the_least_noisy_level():
  """From the prior, which is nearly the last level's marginal; the bias halves with the step. With `denoise`
  the posterior mean follows."""
  process = processes.vp_cosine()
  grid = processes.recovery_levels(process, 8).t[::-1].copy()
  exact = process.marginal(grid[-1])
  total = exact.alpha**2 * VARIANCE + exact.sigma**2
  off = []
  for step in (0.2, 0.1):
    options = dict(steps_per_level=int(40 / step), step=step, dtype=np.float64)
    found = table_moments(
      process, solvers.recovery_langevin(process, grid, **options), MEAN, VARIANCE, Moments(0.0, 1.0)
    )
    np.testing.assert_allclose(found.mean, exact.alpha * MEAN, atol=2e-3)
    off.append(found.variance / total - 1.0)
  assert abs(off[1]) < 0.05 and 1.8 < off[0] / off[1] < 2.3
  denoised = table_moments(
    process,
    solvers.recovery_langevin(process, grid, denoise=True, **options),
    MEAN,
    VARIANCE,
    Moments(0.0, 1.0),
  )
  np.testing.assert_allclose(
    denoised.variance, found.variance * (exact.alpha * VARIANCE / total) ** 2, rtol=1e-8
  )
  np.testing.assert_allclose(
    denoised.mean, MEAN + exact.alpha * VARIANCE / total * (found.mean - exact.alpha * MEAN), rtol=1e-8
  )


@pytest.mark.slow
def test_samples_of_a_mixture_find_both_modes_in_proportion():
  """Weights 0.25 and 0.75 at -1 and 1: the share of the right mode within 4.5 standard errors, given the
  chains' own small bias."""
  process, count = processes.vp_cosine(), 4000
  oracle = oracles.gaussian_mixture(process, [0.25, 0.75], [[-1.0], [1.0]], 0.01)
  grid = processes.recovery_levels(process, 16).t[::-1].copy()
  table = solvers.recovery_langevin(process, grid, steps_per_level=30, step=0.3)
  x = jax.random.normal(jax.random.key(0), (count, 1))
  out = np.asarray(solvers.sample(oracle, table, x, keys=jax.random.split(jax.random.key(1), count)))
  assert abs((out > 0).mean() - 0.75) < 4.5 * np.sqrt(0.75 * 0.25 / count) + 0.01
  assert np.abs(np.abs(out) - 1.0).max() < 0.6


@pytest.mark.slow
def test_a_post_step_at_the_end_of_a_level_reaches_the_noisy_point_too():
  """The next chain starts and is pulled as if the noisy point had been projected."""
  process = processes.vp_cosine()
  oracle = oracles.gaussian(process, [MEAN], [VARIANCE])
  table = solvers.recovery_langevin(process, np.array([0.6, 0.4, 0.2]), steps_per_level=3)
  keys = jax.random.split(jax.random.key(0), 1)
  state = table.begin(jax.numpy.zeros((1, 1)), keys)
  for i in range(3):
    x, t, views = table.ask(state, i)
    moved = lambda x, t, keys, prediction: 0.0 * x + 2.0
    state = table.tell(state, i, oracle(x, t, views=views), keys, moved)
  np.testing.assert_allclose(state.x, 2.0)
  levels = processes.recovery_levels(process, (0.2, 0.4, 0.6))
  np.testing.assert_allclose(levels.start[0] * state.stack[1], state.stack[0], rtol=1e-6)


def test_mistakes_raise_a_sentence():
  process = processes.vp_cosine()
  for build, words in (
    (lambda: solvers.recovery_langevin(process, [0.5, 0.2], steps_per_level=0), "at least 1"),
    (lambda: solvers.recovery_langevin(process, [0.2, 0.5]), "strictly decreases"),
    (lambda: solvers.recovery_langevin(process, [0.5, 0.2], step=0.0), "positive share"),
  ):
    with pytest.raises(ValueError, match=words):
      build()
