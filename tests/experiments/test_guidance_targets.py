"""What guidance is measured with.

The trees and what is seen of samples beside them, and the exact product of two classes.
"""

import jax.numpy as jnp
import numpy as np
import pytest

from diffusion import oracles, processes
from experiments.guidance import products, trees


@pytest.fixture(scope="module")
def truth():
  return trees.Truth(processes.edm(), depth=3, seed=0, count=4000)


def test_a_tree_has_as_much_mass_in_every_generation_and_the_stated_deviation():
  weights, means, covariances, labels = trees.trees(4, 1)
  for label in (0, 1):
    own = weights[labels == label]
    ends = 4 * np.cumsum([1, 2, 4, 8])
    np.testing.assert_allclose([own[a:b].sum() for a, b in zip((0, *ends[:-1]), ends)], 0.125, rtol=1e-12)
  second = weights @ (means**2).sum(axis=1) + weights @ np.trace(covariances, axis1=1, axis2=2)
  np.testing.assert_allclose(weights @ means, 0.0, atol=1e-12)
  np.testing.assert_allclose(second / 2, trees.STD**2, rtol=1e-12)


def test_what_is_made_up_and_what_is_lost_is_counted(truth):
  """Of true points at most exp(-8) lie beyond four deviations: among 8,000 more than 12 have a probability
  below 1e-4."""
  exact = truth.seen(truth.points)
  assert exact["outliers"] <= 12 / 8000 and exact["coverage"] == 1.0
  assert exact["distance"] == exact["chosen"] == 0.0
  np.testing.assert_allclose(
    truth.seen(truth.points + np.array([0.3, 0.0]))["distance"], 0.3 / np.sqrt(2), rtol=1e-6
  )
  shifted = truth.points.copy()
  shifted[:800] += 100.0
  assert abs(truth.seen(shifted)["outliers"] - 0.1) < 2e-3
  _, means, _, labels = truth.modes
  trunk = np.where(
    truth.label[:, None] == 0, means[labels == 0][0], means[labels == 1][0]
  )  # all samples on one mode of their class
  lost = truth.seen(trunk)
  assert lost["outliers"] == 0.0 and lost["coverage"] == 2 / len(means)


def test_the_tabulated_product_is_the_product_of_gaussians():
  """N(-1, 1) N(1, 1) / N(0, 4) has the variance 1 / (1 + 1 - 1/4) = 4/7 and the mean 0; in the second
  coordinate both have the mean 1/2, so (1/2 + 1/2) 4/7."""
  oracle = oracles.gaussian_mixture(
    processes.edm(),
    [1e-9, 1e-9, 1.0],
    [[-1.0, 0.5], [1.0, 0.5], [0.0, 0.0]],
    [1.0, 1.0, 4.0],
    labels=[0, 1, 2],
    dtype=jnp.float32,
  )
  points, p = products.tabulated(oracle, 200)
  mean = p @ points
  np.testing.assert_allclose(mean, [0.0, 4 / 7], atol=5e-3)
  np.testing.assert_allclose(
    p @ (points - mean) ** 2, [4 / 7, 4 / 7], rtol=0.02
  )  # the square ends at more than three deviations
  x = np.array([[0.3, -0.2], [-1.0, 1.0]])
  expected = (4 / 7 * x + 0.25 * np.array([0.0, 4 / 7])) / (4 / 7 + 0.25)
  score = products.noised_score(processes.edm(), points, p, jnp.asarray(x, jnp.float32), 0.5)
  np.testing.assert_allclose(score, (expected - x) / 0.25, atol=0.02)
