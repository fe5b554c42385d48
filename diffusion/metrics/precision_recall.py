"""Improved precision and recall (arXiv:1904.06991), exactly and in tiles, in float64 on the host."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from diffusion.metrics.kernel import squared_distances


class PrecisionRecall(NamedTuple):
  """Shares of samples among real data, and of real data among samples."""

  precision: float
  recall: float


def precision_recall(
  samples: ArrayLike, real: ArrayLike, neighbours: int = 3, chunk: int = 2048
) -> PrecisionRecall:
  """Precision and recall of features samples [N, D] against real [M, D].

  A sample counts where it lies in the ball of some real datum, whose radius is the distance to that datum's
  `neighbours`-th nearest other one; recall the other way round.

  Raises ValueError for shapes that do not fit, and for sets of no more than `neighbours` rows.

  >>> precision_recall([[0.0], [1.0], [9.0]], [[0.0], [1.0], [2.0]], neighbours=1)
  PrecisionRecall(precision=0.6666666666666666, recall=1.0)
  """
  sets = [np.asarray(rows, np.float64) for rows in (samples, real)]
  for rows, name in zip(sets, ("samples", "real data")):
    if rows.ndim != 2 or rows.shape[1:] != sets[0].shape[1:]:
      raise ValueError(f"{name} have shape {rows.shape}: both must be matrices of features of one length")
    if len(rows) <= neighbours:
      raise ValueError(
        f"precision and recall with {neighbours} neighbours need more than {neighbours} {name}, and there "
        "are "
        f"{len(rows)}"
      )
  centre = sets[1].mean(axis=0)
  one, two = (rows - centre for rows in sets)  # squares lose fewer digits near zero
  radii = [_radii(rows, neighbours, chunk) for rows in (one, two)]
  inside = [np.zeros(len(one), bool), np.zeros(len(two), bool)]
  for i in range(0, len(one), chunk):
    for j in range(0, len(two), chunk):
      squares = squared_distances(one[i : i + chunk], two[j : j + chunk])
      inside[0][i : i + chunk] |= (squares <= radii[1][None, j : j + chunk]).any(axis=1)
      inside[1][j : j + chunk] |= (squares <= radii[0][i : i + chunk, None]).any(axis=0)
  return PrecisionRecall(float(inside[0].mean()), float(inside[1].mean()))


def _radii(rows, neighbours, chunk):
  """Squared distance of each row to its `neighbours`-th nearest other row."""
  found = np.empty(len(rows))
  for i in range(0, len(rows), chunk):
    squares = np.concatenate(
      [squared_distances(rows[i : i + chunk], rows[j : j + chunk]) for j in range(0, len(rows), chunk)],
      axis=1,
    )
    at = np.arange(len(squares))
    squares[at, i + at] = 0.0  # itself, which rounding may have moved
    found[i : i + chunk] = np.partition(squares, neighbours, axis=1)[:, neighbours]
  return found
