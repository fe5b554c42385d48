"""Nearest neighbours against brute force, and the ratio at copies, fresh data and mixtures of both."""

import numpy as np
import pytest

from diffusion.metrics import nearest_neighbours, neighbour_ratio


def normal(seed, *shape):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("chunk", [1, 7, 100])
def test_equals_brute_force(chunk):
  samples, train = normal(0, 23, 3, 2, 1), normal(1, 40, 3, 2, 1)
  table = np.linalg.norm(samples.reshape(23, 1, 6) - train.reshape(1, 40, 6), axis=-1)
  found = nearest_neighbours(samples, train, chunk)
  np.testing.assert_array_equal(found.indices, table.argmin(axis=1))
  np.testing.assert_allclose(found.distances, table.min(axis=1), rtol=1e-6)


def test_copies_are_at_distance_zero_even_far_from_the_origin():
  train = 1e3 + normal(2, 50, 8)
  order = np.random.default_rng(3).permutation(50)
  found = nearest_neighbours(train[order], train, chunk=16)
  np.testing.assert_array_equal(found.indices, order)
  assert (found.distances == 0.0).all()
  assert neighbour_ratio(train, train + 0.1, train) == 0.0


def test_of_equal_neighbours_the_first_is_taken():
  assert nearest_neighbours([[0.0]], [[1.0], [-1.0], [1.0]], chunk=1).indices.tolist() == [0]


def test_fresh_data_have_ratio_one_and_copied_shares_lower_it_in_proportion():
  train, heldout, fresh = normal(4, 1000, 8), normal(5, 600, 8), normal(6, 600, 8)
  distances = nearest_neighbours(fresh, train).distances
  # Given the training set both means are of independent draws: 4 standard errors of their ratio.
  tolerance = 4 * np.sqrt(2) * distances.std() / distances.mean() / np.sqrt(600)
  assert neighbour_ratio(fresh, heldout, train) == pytest.approx(1.0, abs=tolerance)
  half = np.concatenate([fresh, train[:600]])
  assert neighbour_ratio(half, fresh, train) == pytest.approx(0.5, rel=1e-6)


def test_errors():
  with pytest.raises(ValueError, match="one shape"):
    nearest_neighbours(np.zeros((2, 3)), np.zeros((2, 4)))
  with pytest.raises(ValueError, match="empty"):
    nearest_neighbours(np.zeros((2, 3)), np.zeros((0, 3)))
  with pytest.raises(ValueError, match="NaN"):
    nearest_neighbours(np.full((2, 3), np.nan), np.zeros((2, 3)))
  with pytest.raises(ValueError, match="split the data anew"):
    neighbour_ratio(np.ones((2, 3)), np.zeros((2, 3)), np.zeros((2, 3)))
