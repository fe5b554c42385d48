"""The kernel Inception distance (arXiv:1801.01401) as tools report it: a mean over subsets or blocks.

`mmd_squared` is the better estimate, of all rows and with its standard error. These follow conventions: which
rows are compared is decided before any feature is known, so that rows can be chosen as features stream by.
"""

from typing import NamedTuple

import numpy as np

from diffusion.metrics.kernel import Polynomial
from diffusion.metrics.protocols import Subsets


class Kid(NamedTuple):
  """Mean over pairs of subsets, and their standard deviation."""

  mean: float
  deviation: float


def pairs(subsets: Subsets, samples: int, real: int) -> list[tuple[np.ndarray, np.ndarray]]:
  """Rows of samples and of real data that are compared with each other, pair by pair.

  Raises ValueError where there are fewer rows than a subset has.

  >>> [(a.tolist(), b.tolist()) for a, b in pairs(Subsets(count=0, size=3), 5, 4)]
  [([0, 1], [0, 1]), ([2, 3, 4], [2, 3])]
  """
  blocks = -(-max(samples, real) // subsets.size)
  size = min(subsets.size, samples, real) if subsets.smaller else subsets.size
  least = max(size, 2) if subsets.count else 2 * blocks
  if min(samples, real) < least:
    raise ValueError(
      f"KID in {subsets} needs {least} samples and as many real data, and there are {samples} and {real}: "
      "give more"
    )
  if subsets.count:
    rng = np.random.RandomState(subsets.seed)
    draw = lambda num: rng.choice(num, size, replace=False)
    return [(draw(samples), draw(real)) for _ in range(subsets.count)]
  # The larger blocks come last.
  ends = lambda num: np.cumsum([num // blocks + (i >= blocks - num % blocks) for i in range(blocks)])[:-1]
  return list(zip(np.split(np.arange(samples), ends(samples)), np.split(np.arange(real), ends(real))))


def kid(samples: np.ndarray, real: np.ndarray, chosen: list[tuple[np.ndarray, np.ndarray]]) -> Kid:
  """Mean of the unbiased squared MMD with KID's cubic kernel over pairs of subsets.

  Args:
    samples, real: features [N, D] and [M, D]; only chosen rows are read.
    chosen: of `pairs`.
  """
  kernel, values = Polynomial(), []
  for one, two in chosen:
    x, y = np.asarray(samples[one], np.float64), np.asarray(real[two], np.float64)
    xx, yy, xy = kernel(x, x), kernel(y, y), kernel(x, y)
    within = lambda k: (k.sum() - np.trace(k)) / (len(k) * (len(k) - 1))
    values.append(within(xx) + within(yy) - 2 * xy.mean())
  return Kid(float(np.mean(values)), float(np.std(values)))
