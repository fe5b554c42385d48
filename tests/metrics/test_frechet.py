"""The Frechet distance against closed forms, and its statistics against those of the whole set."""

import functools

import numpy as np
import pytest
import scipy.linalg

from diffusion.metrics import frechet_distance, gaussian_frechet, merge, statistics


def covariance(seed, dimension, rank=None):
  factor = np.random.default_rng(seed).normal(size=(dimension, rank or dimension))
  return factor @ factor.T


def test_one_dimension():
  for m1, s1, m2, s2 in [(0.0, 1.0, 3.0, 2.0), (-1.0, 0.3, 4.0, 0.0), (2.0, 1e-8, 2.0, 3e-8)]:
    expected = (m1 - m2) ** 2 + (s1 - s2) ** 2
    assert gaussian_frechet([m1], [[s1**2]], [m2], [[s2**2]]) == pytest.approx(expected, rel=1e-6, abs=1e-20)


def test_commuting_covariances():
  basis = np.linalg.qr(np.random.default_rng(0).normal(size=(5, 5)))[0]
  a, b = np.array([4.0, 1.0, 0.25, 9.0, 0.0]), np.array([1.0, 2.0, 0.5, 0.0, 3.0])
  distance = gaussian_frechet(np.zeros(5), basis * a @ basis.T, np.ones(5), basis * b @ basis.T)
  assert distance == pytest.approx(5.0 + np.sum((np.sqrt(a) - np.sqrt(b)) ** 2), rel=1e-6)


@pytest.mark.parametrize("dimension", [2, 7, 48])
def test_covariances_that_do_not_commute(dimension):
  a, b = covariance(1, dimension), covariance(2, dimension)
  assert np.abs(a @ b - b @ a).max() > 0.1
  shift = np.arange(dimension) / dimension
  expected = shift @ shift + np.trace(a + b - 2.0 * np.real(scipy.linalg.sqrtm(a @ b)))
  assert gaussian_frechet(np.zeros(dimension), a, shift, b) == pytest.approx(expected, rel=1e-8)


def test_is_a_squared_metric_invariant_under_rotation():
  a, b, c = covariance(1, 6), covariance(2, 6, rank=3), covariance(3, 6)
  mean = np.linspace(-1, 1, 6)
  distance = gaussian_frechet(np.zeros(6), a, mean, b)
  assert gaussian_frechet(mean, b, np.zeros(6), a) == pytest.approx(distance, rel=1e-12)
  turn = np.linalg.qr(np.random.default_rng(4).normal(size=(6, 6)))[0]
  assert gaussian_frechet(np.zeros(6), turn @ a @ turn.T, turn @ mean, turn @ b @ turn.T) == pytest.approx(
    distance, rel=1e-7
  )
  via = np.sqrt(gaussian_frechet(np.zeros(6), a, mean, c)) + np.sqrt(gaussian_frechet(mean, c, mean, b))
  assert np.sqrt(distance) <= via


@pytest.mark.parametrize("rank", [1, 3, 10])
def test_zero_for_equal_gaussians_even_singular_ones(rank):
  a = covariance(5, 10, rank)
  assert 0.0 <= gaussian_frechet(np.ones(10), a, np.ones(10), a) < 1e-12 * np.trace(a)


def test_fewer_samples_than_features():
  features = np.random.default_rng(6).normal(size=(5, 40))
  assert frechet_distance(statistics(features), statistics(features + 1.0)) == pytest.approx(40.0, rel=1e-9)


def test_merged_batches_equal_the_whole_set_in_any_tree():
  features = 1e4 + np.random.default_rng(7).normal(size=(101, 6)) @ covariance(8, 6)
  whole = statistics(features)
  batches = [statistics(batch) for batch in np.array_split(features, [1, 17, 18, 60])]
  left = functools.reduce(merge, batches)
  tree = merge(merge(batches[3], batches[0]), merge(batches[4], merge(batches[2], batches[1])))
  for merged in (left, tree):
    assert merged.count == 101
    np.testing.assert_allclose(merged.mean, np.mean(features, axis=0), rtol=1e-12)
    np.testing.assert_allclose(merged.covariance, np.cov(features.T), rtol=1e-9)
    assert frechet_distance(merged, whole) < 1e-9 * np.trace(whole.covariance)


def test_float32_features_are_summed_in_float64():
  features = (1000.0 + np.random.default_rng(9).normal(size=(20000, 2))).astype(np.float32)
  np.testing.assert_allclose(
    statistics(features).covariance, np.cov(features.astype(np.float64).T), rtol=1e-9
  )


def test_what_is_no_gaussian_is_refused():
  with pytest.raises(ValueError, match="not symmetric"):
    gaussian_frechet([0.0, 0.0], [[1.0, 1.0], [0.0, 1.0]], [0.0, 0.0], np.eye(2))
  with pytest.raises(ValueError, match="negative eigenvalue"):
    gaussian_frechet([0.0, 0.0], np.diag([1.0, -1.0]), [0.0, 0.0], np.eye(2))
  with pytest.raises(ValueError, match="one length"):
    gaussian_frechet([0.0], np.eye(1), [0.0, 0.0], np.eye(2))
  with pytest.raises(ValueError, match="1 of 2 feature vectors"):
    statistics([[0.0], [np.nan]])
  with pytest.raises(ValueError, match="at least 2"):
    frechet_distance(statistics([[0.0]]), statistics([[0.0], [1.0]]))
