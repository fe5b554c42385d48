"""Frechet distance between Gaussians, and the statistics it needs, in float64 on the host.

FID (arXiv:1706.08500) is this distance between the means and covariances of features of two sets of images.
Numbers computed with different features, sizes or image scalings do not compare; the distance itself is a
pure function of (mean, covariance).
"""

import dataclasses

import numpy as np
from numpy.typing import ArrayLike


@dataclasses.dataclass(frozen=True)
class Statistics:
  """The count, mean and scatter of a set of feature vectors.

  The mean is [D]. The scatter is [D, D], the sum of outer products of deviations from the mean.
  """

  count: int
  mean: np.ndarray
  scatter: np.ndarray

  @property
  def covariance(self) -> np.ndarray:
    """Unbiased covariance [D, D], scatter / (count - 1)."""
    if self.count < 2:
      raise ValueError(
        f"a covariance needs at least 2 feature vectors, and these statistics hold {self.count}: add more "
        "samples"
      )
    return self.scatter / (self.count - 1)


def statistics(features: ArrayLike) -> Statistics:
  """Statistics of features [N, D], in float64.

  Raises ValueError where features is not a matrix with at least one row or holds a NaN or an infinity.

  >>> statistics([[0.0, 1.0], [2.0, 1.0]]).mean.tolist()
  [1.0, 1.0]
  """
  features = np.asarray(features, dtype=np.float64)
  if features.ndim != 2 or features.shape[0] < 1:
    raise ValueError(
      f"features must be a matrix [N, D] with N at least 1, and these have shape {features.shape}: flatten "
      "each sample"
    )
  if not np.isfinite(features).all():
    rows = int((~np.isfinite(features)).any(axis=1).sum())
    raise ValueError(
      f"{rows} of {len(features)} feature vectors hold a NaN or an infinity: drop those samples or find "
      "their cause first"
    )
  mean = features.mean(axis=0)
  deviations = features - mean
  return Statistics(len(features), mean, deviations.T @ deviations)


def merge(a: Statistics, b: Statistics) -> Statistics:
  """The statistics of two sets together, from the statistics of each.

  This is the pairwise update of Chan, Golub and LeVeque. Streamed features need no more than this: reduce
  `merge` over the statistics of the batches, in any order or tree.

  >>> whole = merge(statistics([[0.0], [1.0]]), statistics([[5.0]]))
  >>> whole.count, whole.mean.tolist(), whole.scatter.tolist()
  (3, [2.0], [[14.0]])
  """
  if a.mean.shape != b.mean.shape:
    raise ValueError(
      f"statistics of {a.mean.shape[0]} and of {b.mean.shape[0]} features cannot be merged: use one feature "
      "map for both"
    )
  count = a.count + b.count
  shift = b.mean - a.mean
  mean = a.mean + shift * (b.count / count)
  scatter = a.scatter + b.scatter + np.outer(shift, shift) * (a.count * b.count / count)
  return Statistics(count, mean, scatter)


def gaussian_frechet(
  mean_a: ArrayLike, covariance_a: ArrayLike, mean_b: ArrayLike, covariance_b: ArrayLike
) -> float:
  """Squared 2-Wasserstein distance between N(mean_a, covariance_a) and N(mean_b, covariance_b), a float.

  |m_a - m_b|^2 + tr(A + B) - 2 tr((A^1/2 B A^1/2)^1/2). The last trace is the sum of the singular values of
  A^1/2 B^1/2, with symmetric square roots from eigenvalues cut at zero: singular covariances need no jitter,
  nothing turns complex, and near-zero values keep full precision (a root of the eigenvalues of the product
  would keep only half of the digits).

  Means [D], covariances [D, D]; raises ValueError for other shapes, for matrices that are not symmetric, and
  for those with a clearly negative eigenvalue.

  >>> gaussian_frechet([0.0], [[1.0]], [3.0], [[4.0]])  # (0 - 3)^2 + (1 - 2)^2
  10.0
  """
  mean_a, mean_b = np.asarray(mean_a, np.float64), np.asarray(mean_b, np.float64)
  if mean_a.ndim != 1 or mean_a.shape != mean_b.shape:
    raise ValueError(
      f"means must be vectors [D] of one length, and these have shapes {mean_a.shape} and {mean_b.shape}"
    )
  root_a = symmetric_root(covariance_a, mean_a.shape[0])
  root_b = symmetric_root(covariance_b, mean_b.shape[0])
  shift = mean_a - mean_b
  overlap = np.linalg.svd(root_a @ root_b, compute_uv=False).sum()
  # tr(A) is |A^1/2|^2: taken from the roots, so that equal covariances cancel as far as rounding allows.
  distance = shift @ shift + np.sum(root_a**2) + np.sum(root_b**2) - 2.0 * overlap
  return float(max(distance, 0.0))


def symmetric_root(covariance: ArrayLike, dimension: int) -> np.ndarray:
  """The symmetric square root of a positive semi-definite matrix [dimension, dimension].

  Eigenvalues below zero by rounding count as zero.
  """
  covariance = np.asarray(covariance, np.float64)
  if covariance.shape != (dimension, dimension):
    raise ValueError(
      f"the covariance must have shape {(dimension, dimension)} like the mean, and this one has "
      f"{covariance.shape}"
    )
  largest = np.abs(covariance).max(initial=0.0)
  if not np.isfinite(largest):
    raise ValueError("the covariance holds a NaN or an infinity: look at the features it was computed from")
  if np.abs(covariance - covariance.T).max(initial=0.0) > 1e-6 * largest:
    raise ValueError("the covariance is not symmetric: it must be the covariance of real features")
  values, vectors = np.linalg.eigh(0.5 * (covariance + covariance.T))
  if values.size and values[0] < -1e-6 * max(values[-1], 0.0) - 1e-300:
    raise ValueError(
      f"the covariance has the negative eigenvalue {values[0]:.3g} (largest {values[-1]:.3g}): it is no "
      "covariance"
    )
  return (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T


def frechet_distance(a: Statistics, b: Statistics) -> float:
  """Frechet distance (squared, as FID is) of two Statistics, a float.

  >>> round(frechet_distance(statistics([[0.0], [2.0]]), statistics([[1.0], [3.0]])), 12)
  1.0
  """
  return gaussian_frechet(a.mean, a.covariance, b.mean, b.covariance)
