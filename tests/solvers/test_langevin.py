"""Annealed Langevin and the predictor-corrector against closed forms of Gaussian data."""

import jax
import numpy as np
import pytest
from solver_cases import Moments, table_moments

from diffusion import oracles, processes, solvers


def test_variance_of_annealed_langevin_is_the_closed_form_of_ncsnv2():
  """var_T = r^(2T) var_0 + 2a (1 - r^(2T))/(1 - r^2), r = 1 - a/s^2, at every level (arXiv:2006.09011,
  proposition 3)."""
  process = processes.ve()
  levels = np.geomspace(1.0, 0.2, 6)
  grid = process.t_of_log_snr(-2 * np.log(levels))
  T, step = 3, 0.01
  table = solvers.annealed_langevin(
    process, grid, steps_per_level=T, step=step, denoise=False, dtype=np.float64
  )
  assert table.cost == 18
  variance = 2.0
  for sigma in process.marginal(grid).sigma:
    a = step * sigma**2 / process.marginal(grid[-1]).sigma ** 2
    r = 1 - a / sigma**2  # a point of data at 0: the level's density is N(0, sigma^2)
    variance = r ** (2 * T) * variance + 2 * a * (1 - r ** (2 * T)) / (1 - r**2)
  np.testing.assert_allclose(
    table_moments(process, table, 0.0, 0.0, Moments(0.0, 2.0)).variance, variance, rtol=1e-10
  )


def test_stationary_variance_of_langevin_and_the_final_denoising():
  """x + a s + sqrt(2a) z on N(0, v) settles at v / (1 - a/(2v)); the last evaluation returns the posterior
  mean."""
  process = processes.ve()
  t = float(process.t_of_log_snr(-2 * np.log(0.5)))
  v = 0.3 + 0.25
  options = dict(steps_per_level=400, step=0.05, dtype=np.float64)
  table = solvers.annealed_langevin(process, np.array([t * (1 + 1e-9), t]), denoise=False, **options)
  out = table_moments(process, table, 0.0, 0.3, Moments(1.0, 4.0))
  np.testing.assert_allclose([out.mean, out.variance], [0.0, v / (1 - 0.05 / (2 * v))], rtol=1e-6, atol=1e-12)
  table = solvers.annealed_langevin(process, np.array([t * (1 + 1e-9), t]), **options)
  assert table.cost == 801
  denoised = table_moments(process, table, 0.0, 0.3, Moments(1.0, 4.0))
  np.testing.assert_allclose(denoised.variance, out.variance * (0.3 / v) ** 2, rtol=1e-6)


@pytest.mark.slow
def test_samples_of_annealed_langevin_have_the_tables_variance():
  """Within 5 standard errors."""
  process = processes.ve(sigma_min=0.1, sigma_max=2.0)
  grid = solvers.grids.log_snr(process, 5)
  table = solvers.annealed_langevin(process, grid, steps_per_level=2, step=0.002)
  oracle = oracles.gaussian(process, [0.5], [0.3])
  count = 20_000
  x = oracle.sample(jax.random.key(0), count, t=float(grid[0]))
  out = np.asarray(
    solvers.sample(oracle, table, x, keys=jax.random.split(jax.random.key(1), count)), np.float64
  )
  start = Moments(0.5, 0.3 + float(process.marginal(grid[0]).sigma) ** 2)
  exact = table_moments(process, table, 0.5, 0.3, start)
  assert abs(out.mean() - exact.mean) < 5 * np.sqrt(exact.variance / count)
  assert abs(out.var() / exact.variance - 1) < 5 * np.sqrt(2 / count)


@pytest.mark.slow
def test_predictor_corrector_reaches_the_data():
  """On N(m, v I) in 64 dimensions the norms hardly vary: samples have its mean and variance, for several
  predictors and correctors."""
  process = processes.vp_linear()
  oracle = oracles.gaussian(process, [0.5] * 64, 0.3)
  grid = solvers.grids.uniform(process, 300, t_min=0.0)
  x = jax.random.normal(jax.random.key(0), (128, 64))
  keys = jax.random.split(jax.random.key(1), 128)
  for predictor, corrector, norm in (
    (solvers.reverse_diffusion, solvers.langevin, "sample"),
    (solvers.euler_maruyama, solvers.langevin, "sample"),
    (solvers.ancestral, solvers.annealed, "sample"),
    (solvers.ddim, solvers.langevin, "batch"),
    (solvers.euler, solvers.annealed, "sample"),
    (solvers.ancestral, None, "sample"),
  ):
    built = solvers.predictor_corrector(
      process, grid, predictor=predictor, corrector=corrector, snr=0.1, norm=norm
    )
    out = np.asarray(solvers.sample(oracle, built, x, keys=keys), np.float64)
    # Four standard errors of the variance are 6%; the predictors' own bias at these steps is about 2%.
    assert abs(out.mean() - 0.5) < 0.025 and abs(out.var() / 0.3 - 1) < 0.08, (
      built.name,
      out.mean(),
      out.var(),
    )


def test_stationary_law_of_the_norm_sized_corrector():
  """With nodes almost equal the predictor does nothing, and Langevin with step a = 2 r^2 |z|^2 v^2/|x|^2 on
  N(0, v I) settles where

  E|x'|^2 = E|x|^2, that is where 2 a |z|^2 + (a/v)^2 |x|^2 balances 2 (a/v) |x|^2: E[1/|x|^2] = 1 / ((D + 2)
  (1 + r^2) v).
  """
  process = processes.ve(sigma_min=0.1, sigma_max=2.0)
  oracle = oracles.gaussian(process, [0.0] * 64, 0.3)
  t, r, count = 0.5, 0.4, 1024
  x = oracle.sample(jax.random.key(0), count, t=t)
  built = solvers.predictor_corrector(
    process, np.linspace(t, t - 1e-4, 3), predictor=solvers.ddim, snr=r, n_corrector=20
  )
  assert built.cost == 2 * 21
  out = np.asarray(
    solvers.sample(oracle, built, x, keys=jax.random.split(jax.random.key(1), count)), np.float64
  )
  v = 0.3 + float(process.marginal(t).sigma) ** 2
  observed = 66 * (1 + r**2) * v / np.sum(out**2, axis=-1)
  assert abs(observed.mean() - 1) < 4 * observed.std() / np.sqrt(count)


def test_predictor_or_corrector_may_be_left_out():
  """No corrector is the predictor's own table; no predictor is Langevin at each level: C2000 of Score SDE,
  with its closed form."""
  process = processes.ve(sigma_min=0.1, sigma_max=2.0)
  grid = solvers.grids.log_snr(process, 4)
  oracle = oracles.gaussian(process, [0.0], 0.3)
  count = 8_000
  x, keys = oracle.sample(jax.random.key(0), count, t=1.0), jax.random.split(jax.random.key(1), count)
  alone = solvers.predictor_corrector(process, grid, corrector=None)
  assert alone.cost == 4
  table = solvers.reverse_diffusion(process, grid)
  np.testing.assert_array_equal(
    solvers.sample(oracle, alone, x, keys=keys), solvers.sample(oracle, table, x, keys=keys)
  )

  r, moves = 0.3, 2
  corrected = solvers.predictor_corrector(
    process, grid, predictor=None, corrector=solvers.annealed, snr=r, n_corrector=moves
  )
  assert corrected.cost == 8 and "no predictor" in str(corrected)
  variance = 0.3 + 4.0
  for sigma in process.marginal(grid[:-1]).sigma:
    v, a = 0.3 + sigma**2, 2 * (r * sigma) ** 2
    for _ in range(moves):
      variance = (1 - a / v) ** 2 * variance + 2 * a
  out = np.asarray(solvers.sample(oracle, corrected, x, keys=keys), np.float64)
  assert abs(out.var() / variance - 1) < 4 * np.sqrt(2 / count)
  with pytest.raises(ValueError, match="nothing moves"):
    solvers.predictor_corrector(process, grid, predictor=None, corrector=None)
