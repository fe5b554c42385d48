"""A density from its score on a grid: what is exact in it is exact, the rest converges with its order."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.autoregressive import check_grid, table

CENTRES, SPREAD = np.array([-1.0, 1.2]), 0.5


def mixture(x):
  """(log-density, score, its slope) of half N(-1, 1/4) and half N(1.2, 1/4) at x [..., G], float64."""
  pull = (CENTRES - x[..., None]) / SPREAD**2
  each = -0.5 * pull**2 * SPREAD**2
  log_density = np.logaddexp(each[..., 0], each[..., 1]) - np.log(2 * np.sqrt(2 * np.pi) * SPREAD)
  share = 1.0 / (1.0 + np.exp(each[..., ::-1] - each))
  score = np.sum(share * pull, -1)
  return log_density, score, np.sum(share * pull**2, -1) - score**2 - SPREAD**-2


tabulate = jax.jit(table)


def of_mixture(points, slope=True):
  grid = np.linspace(-5.0, 5.2, points)[None]
  _, first, second = mixture(grid)
  return tabulate(jnp.asarray(grid), jnp.asarray(first), jnp.asarray(second) if slope else None)


def test_the_log_density_converges_with_its_order(x64):
  """Differences of it between nodes at fourth order (second without slopes), its normalisation at second:
  observed within 0.15."""

  def errors(slope):
    relative, absolute = [], []
    for points in (103, 205):
      one = of_mixture(points, slope)
      gap = (np.asarray(one.log_density) - mixture(np.asarray(one.grid))[0])[0]
      inside = np.abs(np.asarray(one.grid)[0]) < 3.0
      relative.append(np.ptp(gap[inside]))
      absolute.append(abs(gap[inside][0]))
    return np.log2(relative[0] / relative[1]), np.log2(absolute[0] / absolute[1])

  for slope, order in ((True, 4.0), (False, 2.0)):
    relative, absolute = errors(slope)
    assert abs(relative - order) < 0.15 and abs(absolute - 2.0) < 0.15, (relative, absolute)


def test_probabilities_and_quantiles_belong_to_the_piecewise_density(x64):
  """The density integrates to one; the distribution function, by Gauss-Legendre in every cell, inverts the
  quantile."""
  one = of_mixture(41)
  nodes, weights = np.polynomial.legendre.leggauss(24)
  grid = np.asarray(one.grid)[0]
  x = grid[:-1, None] + np.diff(grid)[:, None] * 0.5 * (nodes + 1.0)
  many = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (x.size, leaf.shape[1])), one)
  mass = np.sum(
    np.exp(np.asarray(jax.jit(type(many).log_prob)(many, jnp.asarray(x.ravel())))).reshape(x.shape)
    * weights
    * 0.5
    * np.diff(grid)[:, None],
    axis=1,
  )
  np.testing.assert_allclose(mass, np.exp(one.log_mass)[0], rtol=1e-12)
  np.testing.assert_allclose(mass.sum(), 1.0, rtol=1e-12)
  u = np.concatenate([[0.0], np.random.default_rng(0).uniform(size=200), [1.0]])
  many = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (u.size, leaf.shape[1])), one)
  found = np.asarray(jax.jit(type(many).quantile)(many, jnp.asarray(u)))
  cell = np.clip(np.searchsorted(grid, found, side="right") - 1, 0, grid.size - 2)
  low, slope = (
    np.asarray(one.log_density)[0][cell],
    np.diff(np.asarray(one.log_density)[0])[cell] / np.diff(grid)[cell],
  )
  below = np.concatenate([[0.0], np.cumsum(mass)])[cell]
  inside = np.exp(low) * np.expm1(slope * (found - grid[cell])) / slope
  np.testing.assert_allclose(below + inside, u, atol=1e-12)
  assert np.isneginf(one.log_prob(jnp.array([6.0])))[0] and np.isneginf(one.log_prob(jnp.array([-5.5])))[0]


def test_deep_tails_cost_no_digits_in_single_precision():
  """N(0, 0.05^2) on [-4, 4], with a log-density down to -3200: 1e-5 where there is mass, by sums that run
  outwards from the mode."""
  grid = jnp.linspace(-4.0, 4.0, 4001)[None]
  variance = 0.05**2
  one = tabulate(grid, -grid / variance, jnp.full_like(grid, -1.0 / variance))
  exact = -0.5 * np.asarray(grid, np.float64) ** 2 / variance - 0.5 * np.log(2 * np.pi * variance)
  near = np.abs(np.asarray(grid)) < 0.2
  spacing = 8.0 / 4000  # of the second order in it: (h / s)^2 / 12 of the normaliser
  np.testing.assert_allclose(
    np.asarray(one.log_density)[near], exact[near] + spacing**2 / variance / 12, atol=2e-5
  )
  assert np.all(np.isfinite(np.asarray(one.log_density)))


@pytest.mark.parametrize(
  "grid,words",
  [
    (jnp.zeros((2, 2, 2)), "for all coordinates"),
    (jnp.zeros(1), "G >= 2"),
    (jnp.zeros((2, 5)), "or .3, G. with one row"),
    (jnp.array([0.0, 1.0, 1.0]), "increases"),
  ],
)
def test_grids_that_are_none_raise_a_sentence(grid, words):
  with pytest.raises(ValueError, match=words):
    check_grid(grid, 3, "log_prob")
