"""The area under the curve against closed forms, and its standard error against its spread."""

import numpy as np
import pytest
import scipy.stats

from diffusion import metrics


def test_two_normals_have_the_area_of_their_distance():
  """Phi(d / sqrt 2) within 4.5 of its standard errors (fails by chance with probability 7e-6 a case)."""
  rng = np.random.default_rng(0)
  for d in (0.0, 0.5, 2.0):
    found = metrics.auroc(rng.normal(d, 1, 4000), rng.normal(0, 1, 3000))
    assert abs(found.value - scipy.stats.norm.cdf(d / np.sqrt(2))) < 4.5 * found.error and found.error < 0.01


def test_the_standard_error_is_the_spread():
  """Over 400 draws of few examples, whose spread has a relative error of 3.5%: within 20%."""
  rng = np.random.default_rng(1)
  found = [metrics.auroc(rng.normal(1, 1, 30), rng.normal(0, 1, 80)) for _ in range(400)]
  values, errors = np.transpose(found)
  assert abs(np.sqrt(np.mean(errors**2)) / values.std() - 1.0) < 0.2


def test_exact_small_cases():
  assert metrics.auroc([2, 3], [0, 1]).value == 1.0 and metrics.auroc([0, 1], [2, 3]).value == 0.0
  assert metrics.auroc([1, 1, 1], [1, 1]).value == 0.5
  rng = np.random.default_rng(2)
  found, usual = rng.integers(0, 5, 40), rng.integers(0, 4, 30)
  pairs = np.subtract.outer(found, usual)
  np.testing.assert_allclose(metrics.auroc(found, usual).value, np.mean((pairs > 0) + 0.5 * (pairs == 0)))
  # A monotone map changes nothing, the negative score exchanges the kinds.
  np.testing.assert_allclose(
    metrics.auroc(np.exp(found), np.exp(usual)).value, metrics.auroc(found, usual).value
  )
  np.testing.assert_allclose(metrics.auroc(-found, -usual).value, 1 - metrics.auroc(found, usual).value)


def test_the_rate_at_a_share_that_passes():
  """Of two normals: 1 - Phi(Phi^-1(kept) - d)."""
  rng = np.random.default_rng(3)
  usual = rng.normal(0, 1, 20_000)
  rate = metrics.detection_rate(rng.normal(2, 1, 20_000), usual, kept=0.9)
  assert abs(rate - scipy.stats.norm.sf(scipy.stats.norm.ppf(0.9) - 2)) < 0.02
  assert np.mean(usual <= np.sort(usual)[int(0.9 * len(usual)) - 1]) >= 0.9
  assert metrics.detection_rate([5.0, 1.0], [1.0, 2.0, 3.0], kept=1.0) == 0.5


@pytest.mark.parametrize(
  "make,words",
  [
    (lambda: metrics.auroc([1.0], [0.0, 2.0]), "2 or more scores"),
    (lambda: metrics.auroc(np.ones((3, 1)), np.ones(3)), r"shape \[3, 1\]"),
    (lambda: metrics.auroc([1.0, np.nan], [0.0, 2.0]), "1 of 2 scores in found are NaN"),
    (lambda: metrics.detection_rate([1.0], [0.0], kept=95), "share of the usual"),
  ],
)
def test_mistakes_are_named(make, words):
  with pytest.raises(ValueError, match=words):
    make()
