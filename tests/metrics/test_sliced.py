"""Sliced Wasserstein and total variation against closed forms."""

import numpy as np
import pytest
import scipy.stats

from diffusion.metrics import sliced_wasserstein, total_variation, total_variation_floor
from diffusion.metrics.sliced import directions, wasserstein_1d


def normal(seed, *shape):
  return np.random.default_rng(seed).normal(size=shape)


def test_a_shift_in_the_plane():
  x, shift = normal(0, 200, 2), np.array([1.0, -2.0])
  size = np.linalg.norm(shift)
  # Evenly spaced angles average cos^2 to 1/2 exactly, and |cos| to 2/pi up to O(count^-2).
  assert sliced_wasserstein(x, x + shift, order=2) == pytest.approx(size / np.sqrt(2), rel=1e-12)
  assert sliced_wasserstein(x, x + shift, order=1, count=512) == pytest.approx(size * 2 / np.pi, rel=1e-4)


def test_a_shift_in_many_dimensions():
  x, shift = normal(1, 50, 20), np.full(20, 0.5)
  values = [sliced_wasserstein(x, x + shift, count=500, seed=seed) ** 2 for seed in range(20)]
  # The mean over random directions is |s|^2 / D, with 4 standard errors.
  assert np.mean(values) == pytest.approx(np.sum(shift**2) / 20, abs=4 * np.std(values) / np.sqrt(20))


def test_gaussians_of_different_width():
  # On quantile grids the 1-D distance of N(0, 1) and N(1, 4) is known: (1 - 0)^2 + (2 - 1)^2.
  grid = scipy.stats.norm.ppf((np.arange(100_000) + 0.5) / 100_000)[:, None]
  assert wasserstein_1d(grid, 1.0 + 2.0 * grid)[0] == pytest.approx(2.0, rel=1e-3)


def test_unequal_sizes_equal_scipy_and_repeated_rows_change_nothing():
  x, y = normal(2, 35, 3), normal(3, 21, 3) + 0.3
  expected = [scipy.stats.wasserstein_distance(x[:, k], y[:, k]) for k in range(3)]
  np.testing.assert_allclose(wasserstein_1d(x, y, order=1), expected, rtol=1e-10)
  np.testing.assert_allclose(wasserstein_1d(np.repeat(x, 3, axis=0), y), wasserstein_1d(x, y), rtol=1e-10)
  assert sliced_wasserstein(x, np.repeat(x[::-1], 2, axis=0)) == 0.0


def test_directions_are_fixed_unit_vectors():
  for dimension in (1, 2, 3, 30):
    vectors = directions(dimension, 16)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, rtol=1e-12)
    np.testing.assert_array_equal(vectors, directions(dimension, 16))


def test_total_variation_of_known_shares():
  data = np.repeat([[0.0, 0.0], [1.0, 1.0]], 50, axis=0)
  samples = np.repeat([[0.0, 0.0], [1.0, 1.0], [5.0, 5.0]], [80, 10, 10], axis=0)
  # |.8 - .5| + |.1 - .5| + |.1 - 0|, halved: what lies outside the box counts.
  assert total_variation(samples, data, bins=4) == pytest.approx(0.4, abs=1e-12)
  assert total_variation(data, data) == 0.0
  assert total_variation(samples + 9.0, data) == pytest.approx(1.0, abs=1e-12)


def test_floor_of_total_variation_is_what_fresh_samples_have():
  box = ((-3.0, 3.0), (-3.0, 3.0))
  found = [total_variation(normal((4, k), 2000, 2), normal((5, k), 3000, 2), 8, box) for k in range(60)]
  floor = total_variation_floor(normal(6, 3000, 2), 2000, 8, box)
  # Cells of few points are not normal, which the formula ignores: 3% on top of 4 standard errors.
  assert np.mean(found) == pytest.approx(floor, abs=4 * np.std(found) / np.sqrt(60) + 0.03 * floor)


def test_errors():
  with pytest.raises(ValueError, match="one space"):
    sliced_wasserstein(np.zeros((3, 2)), np.zeros((3, 4)))
  with pytest.raises(ValueError, match="at least 1"):
    sliced_wasserstein(np.zeros((3, 2)), np.zeros((3, 2)), order=0.5)
  with pytest.raises(ValueError, match="in the plane"):
    total_variation(np.zeros((3, 3)), np.zeros((3, 3)))
  with pytest.raises(ValueError, match="NaN"):
    total_variation(np.full((3, 2), np.nan), np.zeros((3, 2)))
