"""The sets on which conditional scores are measured.

Their densities are densities, and those of their samples.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from ml_collections import ConfigDict

from experiments.ar_csm import autoregressive


@pytest.mark.standard_promotion
@pytest.mark.parametrize(
  "name",
  [
    "checkerboard",
    pytest.param("ring", marks=pytest.mark.slow),
    pytest.param("gmm4", marks=pytest.mark.slow),
  ],
)
def test_samples_fall_into_cells_as_the_density_says(name):
  """Mass one on a grid to 1e-4; counts of 20,000 samples in 9 x 9 cells by a chi-squared test, 4.5 standard
  deviations of it."""
  draw, log_density = autoregressive.plane_set(name)
  line = (np.arange(360) + 0.5) / 40.0 - 4.5
  points = jnp.asarray(np.stack(np.meshgrid(line, line, indexing="ij"), -1).reshape(-1, 2), jnp.float32)
  mass = (
    np.exp(np.asarray(jax.jit(log_density)(points), np.float64)).reshape(9, 40, 9, 40).sum((1, 3)) / 1600.0
  )
  assert abs(mass.sum() - 1.0) < 1e-4
  x = np.asarray(jax.jit(lambda: draw(jax.random.key(0), 20_000))())
  counts = np.histogram2d(x[:, 0], x[:, 1], bins=np.arange(10) - 4.5)[0]
  expected = 20_000 * mass
  kept = expected > 5.0
  statistic, freedom = np.sum((counts - expected)[kept] ** 2 / expected[kept]), kept.sum()
  assert (
    statistic < freedom + 4.5 * np.sqrt(2.0 * freedom) and counts[~kept].sum() < expected[~kept].sum() + 30.0
  )


@pytest.mark.standard_promotion
def test_the_background_comes_off_the_exact_mixture_without_a_trace():
  """Of q = (1 - e) p + e n in closed form what remains is p, where p is above a thousandth of q."""
  config = ConfigDict(dict(background=dict(share=0.1, std=2.0)))
  draw, log_density = autoregressive.plane_set("ring")
  x = draw(jax.random.key(1), 500)
  log_p = np.asarray(log_density(x), np.float64)
  log_n = scipy.stats.multivariate_normal(np.zeros(2), 4.0 * np.eye(2)).logpdf(np.asarray(x, np.float64))
  log_q = np.logaddexp(np.log(0.9) + log_p, np.log(0.1) + log_n)
  seen = 0.9 * np.exp(log_p - log_q) > 2e-3
  np.testing.assert_allclose(
    autoregressive.without_background(config, x, log_q)[seen], log_p[seen], atol=1e-9
  )
  assert seen.mean() > 0.99


def test_an_unknown_set_raises_a_sentence():
  with pytest.raises(ValueError, match="choose one of ring"):
    autoregressive.plane_set("moons")
