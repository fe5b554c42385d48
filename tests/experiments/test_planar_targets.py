"""The densities that samples in the plane are compared with.

Normalised, noised as their samples are, and with exact masses of blocks.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion import processes
from experiments.drl import planar_targets

PROCESS = processes.vp_cosine()


@pytest.mark.parametrize("name", planar_targets.TARGETS)
def test_densities_masses_and_samples_agree(name):
  """The density at a noise level sums to one and has the samples' masses within 4.5 standard errors; blocks
  of clean samples likewise."""
  goal, t, count = planar_targets.target(name, PROCESS), 0.05, 20_000
  line = np.linspace(-3.0, 3.0, 241)
  grid = np.stack(np.meshgrid(line, line, indexing="ij"), axis=-1).reshape(-1, 2)
  density = np.exp(
    np.asarray(jax.jit(goal.log_prob)(jnp.asarray(grid, jnp.float32), jnp.full(len(grid), t)), np.float64)
  )
  cell = (line[1] - line[0]) ** 2
  np.testing.assert_allclose(density.sum() * cell, 1.0, rtol=2e-3)
  x = goal.sample(jax.random.key(0), count)
  m = PROCESS.marginal(np.array(t))
  noisy = float(m.alpha) * x + float(m.sigma) * jax.random.normal(jax.random.key(1), x.shape)
  for region in (
    lambda x: (x[:, 0] > 0.2) & (x[:, 1] > 0.1),
    lambda x: np.abs(x).max(axis=1) < 0.8,
    lambda x: x[:, 0] - x[:, 1] > 1.0,
  ):
    share = density[region(grid)].sum() * cell
    assert abs(region(np.asarray(noisy)).mean() - share) < 4.5 * np.sqrt(share * (1 - share) / count) + 0.012
  assert abs(float(jnp.std(x)) - 1.0) < 0.02
  # Of 64 shares with this many points: the mean total variation is about 0.4 sqrt(64 / count).
  assert planar_targets.block_variation(x, goal) < 0.035
  assert planar_targets.block_variation(0.5 * x, goal) > 0.3
  assert np.mean(goal.inside(x)) > 0.98 and goal.masses.sum() > 0.98


@pytest.mark.slow
def test_far_tails_of_the_checkerboard_are_those_of_its_nearest_corner():
  """Where both tails of a cell underflow the logarithm stays: falling by x / sigma^2 a unit of length."""
  goal = planar_targets.target("checkerboard", PROCESS)
  sigma = float(PROCESS.marginal(np.array(0.05)).sigma)
  slope = jax.grad(lambda x: goal.log_prob(x, jnp.full(1, 0.05)).sum())
  away = np.asarray(slope(jnp.array([[4.0, 1.0]])))[0, 0]
  edge = float(PROCESS.marginal(np.array(0.05)).alpha) * 2.0 / np.sqrt(4 / 3)
  np.testing.assert_allclose(away, -(4.0 - edge) / sigma**2, rtol=0.01)


def test_an_unknown_set_is_a_sentence():
  with pytest.raises(ValueError, match="checkerboard, eight_gaussians"):
    planar_targets.target("moons", PROCESS)
