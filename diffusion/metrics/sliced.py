"""Distances for low-dimensional sets.

Sliced Wasserstein and total variation on a histogram, in float64 on the host.
"""

import numpy as np
from numpy.typing import ArrayLike


def directions(dimension: int, count: int = 64, seed: int = 0) -> np.ndarray:
  """Fixed unit vectors to slice distributions along: [count, dimension].

  In the plane they are at evenly spaced angles over half a circle, else drawn once from `seed`.

  >>> directions(2, 2).round(6).tolist()
  [[1.0, 0.0], [0.0, 1.0]]
  """
  if dimension < 1 or count < 1:
    raise ValueError(f"dimension {dimension} and count {count} must both be at least 1")
  if dimension == 2:
    angles = np.pi * np.arange(count) / count
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)
  vectors = np.random.default_rng(seed).normal(size=(count, dimension))
  return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def wasserstein_1d(x: ArrayLike, y: ArrayLike, order: float = 2) -> np.ndarray:
  """The Wasserstein distance between columns, to the power of its order: [K].

  It is exact, between the columns of x [N, K] and y [M, K], for any N and M.

  The integral of |quantile_x - quantile_y|^order over (0, 1), where both quantile functions are steps.

  >>> wasserstein_1d([[0.0], [1.0]], [[2.0], [3.0]], order=2).tolist()
  [4.0]
  """
  x, y = np.sort(np.asarray(x, np.float64), axis=0), np.sort(np.asarray(y, np.float64), axis=0)
  n, m = len(x), len(y)
  # Steps end at multiples of 1/N and 1/M: in units of 1/(N M) these are integers, so no step is lost to
  # rounding.
  ends = np.union1d(np.arange(1, n + 1, dtype=np.int64) * m, np.arange(1, m + 1, dtype=np.int64) * n)
  starts = np.concatenate([[0], ends[:-1]])
  gaps = np.abs(x[starts // m] - y[starts // n]) ** order
  return ((ends - starts) / (n * m)) @ gaps


def sliced_wasserstein(
  x: ArrayLike, y: ArrayLike, order: float = 2, count: int = 64, seed: int = 0, chunk: int = 64
) -> float:
  """The sliced Wasserstein distance of x [N, D] and y [M, D], in data units.

  It is (mean over directions of W_order^order)^(1/order). For sets that differ by a shift s it is |s| /
  sqrt(D) at order 2 (averaged over all directions). Raises ValueError for shapes that do not fit, an order
  below 1, NaN or infinity.

  >>> x = np.array([[0.0, 0.0], [1.0, 2.0]])
  >>> round(sliced_wasserstein(x, x + np.array([3.0, 4.0])), 6)  # 5 / sqrt(2)
  3.535534
  """
  x, y = _points(x, "x"), _points(y, "y")
  if x.shape[1] != y.shape[1]:
    raise ValueError(f"x has {x.shape[1]} columns and y has {y.shape[1]}: both must live in one space")
  if order < 1:
    raise ValueError(f"order is {order}: the Wasserstein distance is defined for orders of at least 1")
  vectors = directions(x.shape[1], count, seed)
  powers = [
    wasserstein_1d(x @ vectors[i : i + chunk].T, y @ vectors[i : i + chunk].T, order)
    for i in range(0, count, chunk)
  ]
  return float(np.concatenate(powers).mean() ** (1.0 / order))


def total_variation(
  samples: ArrayLike,
  data: ArrayLike,
  bins: int = 16,
  limits: tuple[tuple[float, float], tuple[float, float]] | None = None,
) -> float:
  """The total variation distance between two point sets in the plane, by a histogram.

  It is in [0, 1], between [N, 2] and [M, 2] on bins x bins cells.

  limits: ((x_low, x_high), (y_low, y_high)); by default the box of `data`. All that falls outside is one
  further cell, so that stray samples count. Compare with `total_variation_floor`: two sets of one
  distribution do not have distance 0.

  >>> total_variation([[0.0, 0.0]] * 3 + [[9.0, 9.0]], [[0.0, 0.0], [1.0, 1.0]], bins=2)
  0.5
  """
  p, q = _histograms(samples, data, bins, limits)
  return float(0.5 * np.abs(p - q).sum())


def total_variation_floor(
  data: ArrayLike,
  count: int,
  bins: int = 16,
  limits: tuple[tuple[float, float], tuple[float, float]] | None = None,
) -> float:
  """The total variation distance to expect between two sets of one distribution.

  It is the expected `total_variation` of `count` fresh samples of the distribution of `data` [M, 2] against
  M of its samples.

  In the normal approximation each cell's difference has mean size sqrt(2/pi p (1-p) (1/count + 1/M)); half
  their sum.

  >>> total_variation_floor([[0.0, 0.0], [1.0, 1.0]] * 50, 100, bins=2) < 0.06
  True
  """
  data = np.asarray(data)
  p, _ = _histograms(data, data, bins, limits)
  return float(0.5 * np.sqrt(2.0 / np.pi * p * (1.0 - p) * (1.0 / count + 1.0 / len(data))).sum())


def _histograms(samples, data, bins, limits):
  samples, data = _points(samples, "samples"), _points(data, "data")
  if samples.shape[1] != 2 or data.shape[1] != 2:
    raise ValueError(
      f"total variation is for points in the plane, and these have {samples.shape[1]} and {data.shape[1]} "
      "columns: use sliced_wasserstein"
    )
  if limits is None:
    limits = tuple(zip(data.min(axis=0), data.max(axis=0)))
  cells = []
  for points in (samples, data):
    inside = np.histogram2d(points[:, 0], points[:, 1], bins=bins, range=limits)[0].ravel() / len(points)
    cells.append(np.append(inside, max(1.0 - inside.sum(), 0.0)))
  return cells


def _points(points, name):
  points = np.asarray(points, np.float64)
  if points.ndim != 2 or not len(points):
    raise ValueError(
      f"{name} must be a matrix [N, D] with N at least 1, and it has shape {points.shape}: flatten each "
      "sample"
    )
  if not np.isfinite(points).all():
    raise ValueError(f"{name} holds a NaN or an infinity: drop those samples or find their cause first")
  return points
