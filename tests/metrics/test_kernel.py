"""The MMD estimate: unbiased, with an honest standard error, against closed forms and brute force."""

import numpy as np
import pytest

from diffusion.metrics import RBF, Polynomial, median_bandwidth, mmd_squared


def gaussian_rbf_mmd(mean, variance_x, variance_y, bandwidth):
  """Closed form of MMD^2 for N(0, variance_x I) and N(mean, variance_y I) under the RBF kernel."""
  dimension, squared = len(mean), np.sum(np.square(mean))

  def expected(variance, shift):
    total = bandwidth**2 + variance
    return (bandwidth**2 / total) ** (dimension / 2) * np.exp(-0.5 * shift / total)

  return (
    expected(2 * variance_x, 0.0)
    + expected(2 * variance_y, 0.0)
    - 2 * expected(variance_x + variance_y, squared)
  )


def draws(seed, n, m, mean=(0.0, 0.0, 0.0), scale=1.0):
  rng = np.random.default_rng(seed)
  return rng.normal(size=(n, len(mean))), np.asarray(mean) + scale * rng.normal(size=(m, len(mean)))


@pytest.mark.parametrize("kernel", [Polynomial(), RBF(1.5)], ids=["polynomial", "rbf"])
@pytest.mark.parametrize(
  "mean, scale", [((0.0, 0.0, 0.0), 1.0), ((0.6, 0.0, 0.0), 1.3)], ids=["equal", "different"]
)
def test_unbiased_with_an_honest_standard_error(kernel, mean, scale):
  estimates = np.array([mmd_squared(*draws(seed, 40, 60, mean, scale), kernel) for seed in range(400)])
  values, errors = estimates.T
  if isinstance(kernel, RBF):
    truth = gaussian_rbf_mmd(mean, 1.0, scale**2, kernel.bandwidth)
  else:
    truth = polynomial_mmd(np.asarray(mean), scale**2)
  # 4 standard errors of the mean: a false alarm once in 16,000.
  assert abs(values.mean() - truth) < 4 * values.std() / np.sqrt(len(values))
  # The mean estimated variance is the variance of the estimates, within 4 errors of a variance (kurtosis up
  # to 9); for equal distributions the parts cut at zero add to it.
  ratio, tolerance = np.mean(errors**2) / values.var(), 4 * np.sqrt(8 / len(values))
  assert 1 - tolerance < ratio < (2.0 if scale == 1.0 else 1.0) + tolerance


def polynomial_mmd(mean, variance):
  """E k over Gaussians, for k = (x.y/3 + 1)^3: x.y has moments from the means and covariances, here expanded
  term by term.

  The cube of 1 + x.y/D has an explicit feature map of monomials up to degree 3; MMD^2 is the squared distance
  of their means, that is sum over orders k of binom(3, k) |M_k(x) - M_k(y)|^2 / D^k with the moment tensors
  M_k.
  """
  dimension = len(mean)

  def moments(mu, v):
    eye = np.eye(dimension)
    second = v * eye + np.outer(mu, mu)
    third = np.einsum("i,j,k->ijk", mu, mu, mu)
    third = third + v * (
      np.einsum("i,jk->ijk", mu, eye) + np.einsum("j,ik->ijk", mu, eye) + np.einsum("k,ij->ijk", mu, eye)
    )
    return mu, second, third

  pairs = zip(moments(np.zeros(dimension), 1.0), moments(mean, variance), (3, 3, 1), (1, 2, 3))
  return sum(binomial * np.sum((a - b) ** 2) / dimension**order for a, b, binomial, order in pairs)


def test_equals_the_sum_over_all_pairs_whatever_the_tile():
  x, y = draws(0, 33, 21, (0.5, 0.0))
  kernel = RBF(0.8)
  xx, yy, xy = kernel(x, x), kernel(y, y), kernel(x, y)
  brute = (xx.sum() - 33) / (33 * 32) + (yy.sum() - 21) / (21 * 20) - 2 * xy.mean()
  whole = mmd_squared(x, y, kernel)
  assert whole.value == pytest.approx(brute, rel=1e-10)
  for chunk in (1, 8, 33):
    np.testing.assert_allclose(mmd_squared(x, y, kernel, chunk), whole, rtol=1e-9)


def test_median_bandwidth_scales_with_the_data():
  x, y = draws(1, 300, 200)
  assert median_bandwidth(5 * x, 5 * y) == pytest.approx(5 * median_bandwidth(x, y), rel=1e-12)
  # Squared distances of standard normals in 3 dimensions are 2 chi^2_3, with median 2 * 2.366.
  assert median_bandwidth(x, y) == pytest.approx(np.sqrt(2 * 2.366), rel=0.05)


def test_errors():
  with pytest.raises(ValueError, match="at least 4"):
    mmd_squared(np.zeros((3, 2)), np.zeros((5, 2)))
  with pytest.raises(ValueError, match="one feature map"):
    mmd_squared(np.zeros((4, 2)), np.zeros((5, 3)))
  with pytest.raises(ValueError, match="NaN"):
    mmd_squared(np.full((4, 2), np.nan), np.zeros((5, 2)))
  with pytest.raises(ValueError, match="sets no bandwidth"):
    median_bandwidth(np.zeros((4, 2)), np.zeros((4, 2)))
