"""Nearest training neighbours of samples, exactly and in tiles: does a model copy its training set?"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from diffusion.metrics.kernel import squared_distances


class Neighbours(NamedTuple):
  """indices [N] into the training set, and Euclidean distances [N] in data units."""

  indices: np.ndarray
  distances: np.ndarray


def nearest_neighbours(samples: ArrayLike, train: ArrayLike, chunk: int = 2048) -> Neighbours:
  """Nearest training sample of each sample, by Euclidean distance over all entries.

  samples [N, ...] and train [M, ...] of one shape and one scaling. The search runs in tiles of at most chunk
  x chunk distances; the winner's distance is then computed from the difference itself, so that a copy has
  distance exactly 0. Of equally near training samples the first is taken. Raises ValueError for shapes that
  differ, an empty set, NaN or infinity.

  >>> nearest_neighbours([[0.0], [0.9]], [[1.0], [0.0], [5.0]]).indices.tolist()
  [1, 0]
  """
  samples, train = np.asarray(samples), np.asarray(train)
  if samples.shape[1:] != train.shape[1:] or samples.ndim < 2:
    raise ValueError(
      f"samples {samples.shape} and training data {train.shape} must be batches of one shape: scale and "
      "resize both alike"
    )
  if not len(samples) or not len(train):
    raise ValueError(f"there are {len(samples)} samples and {len(train)} training data: neither may be empty")
  samples, train = samples.reshape(len(samples), -1), train.reshape(len(train), -1)
  best = np.full(len(samples), np.inf)
  indices = np.zeros(len(samples), np.int64)
  for j in range(0, len(train), chunk):
    block = _finite(train[j : j + chunk], "training data")
    for i in range(0, len(samples), chunk):
      rows = slice(i, i + chunk)
      squares = squared_distances(_finite(samples[rows], "samples"), block)
      nearest = squares.argmin(axis=1)
      distance = squares[np.arange(len(squares)), nearest]
      closer = distance < best[rows]
      best[rows] = np.where(closer, distance, best[rows])
      indices[rows] = np.where(closer, nearest + j, indices[rows])
  distances = np.empty(len(samples))
  for i in range(0, len(samples), chunk):
    rows = slice(i, i + chunk)
    distances[rows] = np.linalg.norm(
      samples[rows].astype(np.float64) - train[indices[rows]].astype(np.float64), axis=1
    )
  return Neighbours(indices, distances)


def _finite(rows, name):
  rows = rows.astype(np.float64)
  if not np.isfinite(rows).all():
    raise ValueError(f"the {name} hold a NaN or an infinity: drop those rows or find their cause first")
  return rows


def neighbour_ratio(samples: ArrayLike, heldout: ArrayLike, train: ArrayLike, chunk: int = 2048) -> float:
  """Mean distance of the samples to their nearest training data, over the same mean for held-out data.

  Means, not medians: a tenth of samples copied lowers the ratio by a tenth, and a median would not show it. 0
  for copies of training data, about 1 for fresh data of the same distribution, above 1 for blurred or noisy
  samples. Raises ValueError where every held-out sample is also a training sample.

  >>> neighbour_ratio([[1.5]], [[2.0], [4.0]], [[1.0], [3.0]])
  0.5
  """
  reference = nearest_neighbours(heldout, train, chunk).distances.mean()
  if not reference > 0.0:
    raise ValueError(
      "every held-out sample is a copy of a training sample, so there is no distance to compare with: split "
      "the data anew"
    )
  return float(nearest_neighbours(samples, train, chunk).distances.mean() / reference)


def near_zero(*batches: np.ndarray) -> tuple[np.ndarray, ...]:
  """Batches [N, ...] of real numbers less their common offset, where that is large.

  It is taken off where they lie so far from zero that squares of distances would lose their digits: further
  than their deviation, by the last batch. No distance changes.

  >>> near_zero(np.array([[1e9]]), np.array([[1e9], [1e9 + 2]]))[0].tolist()
  [[-1.0]]
  """
  last = np.asarray(batches[-1])
  if last.dtype.kind != "f" or not len(last):
    return batches
  centre = float(last.mean(dtype=np.float64))
  if abs(centre) <= float(last.std(dtype=np.float64)):
    return batches
  return tuple(np.asarray(batch, np.float64) - centre for batch in batches)
