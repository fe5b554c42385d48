"""NCSNv2's choice of the noise levels of a score model (arXiv:2006.09011).

Its five techniques, in float64 on the host.

1. `initial_sigma`: the largest noise is the largest distance between two training examples.
2. `spacing_ratio`, `num_levels`, `noise_levels`: neighbouring levels overlap by a given amount.
3. One network that is not told the noise level, its output divided by sigma: in this package the
   parameterisation `denoisers.scaled_score` around a network that ignores its time input, so it has no
   function here.
4. `langevin_step_size`, `langevin_variance_ratio`: the step size that keeps annealed Langevin in equilibrium.
5. An average of the weights at test time: `ema_half_life` and `ema_decay` convert the paper's decay a step to
   the half-life in images that training uses.
"""

import math

import numpy as np
from numpy.typing import ArrayLike

from diffusion.processes.ladders import geometric_sigmas


def initial_sigma(data: ArrayLike, subsample: int | None = None, seed: int = 0, chunk: int = 1024) -> float:
  """Technique 1: the largest Euclidean distance between two examples, exactly.

  Examples are visited from the outermost inwards and the search stops where the triangle inequality through
  the mean rules every remaining pair out: on MNIST about a tenth of the pairs is left, on data all equally
  far from its mean every pair, which is when to ask for a subsample.

  Args:
    data: [n, ...] real numbers in the scale that the model is trained on.
    subsample: use this many examples drawn without replacement; the answer is then a lower bound.
    seed: of the subsample.
    chunk: examples to a block; memory is about `chunk` times two rows of data and `chunk`^2 distances, in
      float64.

  Returns:
    The distance, in the units of the data.

  Raises:
    ValueError: fewer than two examples, or a value that is not finite.

  >>> float(initial_sigma(np.array([[0.0, 0.0], [3.0, 4.0], [1.0, 1.0]])))
  5.0
  """
  data = np.asarray(data)
  if data.ndim < 1 or data.shape[0] < 2:
    raise ValueError(f"initial_sigma needs two or more examples on the first axis, got shape {data.shape}")
  data = data.reshape(data.shape[0], -1)
  if subsample is not None and subsample < data.shape[0]:
    if subsample < 2:
      raise ValueError(f"subsample must be 2 or more to have a pair, got {subsample}")
    data = data[np.random.default_rng(seed).choice(data.shape[0], subsample, replace=False)]
  count = data.shape[0]

  mean = data.mean(axis=0, dtype=np.float64)
  radius = np.concatenate(
    [np.linalg.norm(data[i : i + chunk] - mean, axis=1) for i in range(0, count, chunk)]
  )
  if not np.all(np.isfinite(radius)):
    raise ValueError("initial_sigma needs finite data: remove the examples with NaN or infinite values")
  order = np.argsort(-radius, kind="stable")
  radius = radius[order]

  best, pair = -1.0, (order[0], order[1])
  for start in range(0, count, chunk):
    rows = order[start : start + chunk]
    left = data[rows] - mean
    # |x - y| <= |x - mean| + |y - mean|, and the rows are sorted by radius; pairs with an earlier row are
    # done.
    for other in range(start, count, chunk):
      if radius[start] + radius[other] <= best:
        break
      columns = order[other : other + chunk]
      right = data[columns] - mean
      # Centred, so that the largest distance is no smaller than the largest norm and nothing cancels.
      squares = (
        radius[start : start + chunk, None] ** 2
        + radius[None, other : other + chunk] ** 2
        - 2.0 * left @ right.T
      )
      i, j = np.unravel_index(np.argmax(squares), squares.shape)
      distance = math.sqrt(max(squares[i, j], 0.0))
      if distance > best:
        best, pair = distance, (rows[i], columns[j])
  return float(np.linalg.norm(data[pair[0]].astype(np.float64) - data[pair[1]].astype(np.float64)))


def level_overlap(ratio: float, dim: int) -> float:
  """The overlap of two levels of ratio g: Phi(sqrt(2D)(g - 1) + 3g) - Phi(sqrt(2D)(g - 1) - 3g).

  It is the share of the radii |x|, x ~ N(0, sigma^2 I_D), within three deviations of the typical radius of
  the level above, g sigma (arXiv:2006.09011, section 3.2).

  >>> round(level_overlap(1.0, 3072), 4)
  0.9973
  """
  shift = math.sqrt(2.0 * dim) * (ratio - 1.0)
  root2 = math.sqrt(2.0)
  return 0.5 * (math.erf((shift + 3.0 * ratio) / root2) - math.erf((shift - 3.0 * ratio) / root2))


def spacing_ratio(dim: int, overlap: float = 0.5) -> float:
  """Technique 2: the ratio of neighbouring levels whose overlap has the given value.

  The ratio is gamma = sigma_(i-1) / sigma_i.

  Args:
    dim: number of dimensions D of an example.
    overlap: share of common radii, below Phi(3) - Phi(-3) = 0.9973.

  Returns:
    gamma > 1.

  Raises:
    ValueError: D < 5, where neighbouring levels overlap by more than half at every ratio, or an overlap out
      of range.

  >>> round(spacing_ratio(3072), 4)
  1.0398
  """
  if dim < 5:
    raise ValueError(
      f"the spacing rule says nothing in {dim} dimensions: the overlap falls to a half only where sqrt(2D) > "
      "3, so D >= 5; "
      "choose the ratio yourself (1.5 to 2 works in 2-D)"
    )
  largest = level_overlap(1.0, dim)
  if not 0.0 < overlap < largest:
    raise ValueError(
      f"overlap must lie between 0 and {largest:.4f}, its value for equal levels, got {overlap}"
    )
  # From g = 1 the overlap first grows and then falls for good, so there is one root above 1.
  low, high = 1.0, 2.0
  while level_overlap(high, dim) > overlap:
    high *= 2.0
  while True:
    middle = 0.5 * (low + high)
    if middle in (low, high):
      return high
    low, high = (middle, high) if level_overlap(middle, dim) > overlap else (low, middle)


def num_levels(sigma_1: float, sigma_L: float, ratio: float) -> int:
  """Technique 2: how many levels from sigma_1 down to sigma_L have the ratio nearest to `ratio`; at least 2.

  >>> num_levels(50.0, 0.01, spacing_ratio(3072))
  219
  """
  _check_levels(sigma_1, sigma_L)
  if not ratio > 1:
    raise ValueError(f"the ratio of neighbouring levels must be above 1, got {ratio}")
  return max(2, 1 + round(math.log(sigma_1 / sigma_L) / math.log(ratio)))


def noise_levels(sigma_1: float, sigma_L: float, num: int) -> np.ndarray:
  """Technique 2: `num` geometric levels in the order of annealing, sigma_1 first: [num] float64.

  >>> [round(float(sigma), 9) for sigma in noise_levels(1.0, 0.01, 3)]
  [1.0, 0.1, 0.01]
  """
  _check_levels(sigma_1, sigma_L)
  if num < 2:
    raise ValueError(f"a ladder from sigma_1 to sigma_L needs two or more levels, got {num}")
  return geometric_sigmas(num, sigma_L, sigma_1)[::-1].copy()


def langevin_variance_ratio(step: float, ratio: float, sigma_L: float, num_steps: int) -> float:
  """Technique 4: variance over sigma_i^2 after the Langevin steps of one level.

  Source: arXiv:2006.09011, eq. 4 and proposition 3.

  The steps x <- x + a s(x) + sqrt(2 a) z with a = step sigma_i^2 / sigma_L^2 start from N(0, sigma_(i-1)^2 I)
  and use the score of N(0, sigma_i^2 I); the ratio is 1 in equilibrium and the same at every level.

  Args:
    step: epsilon, the Langevin step at the last level, in squared units of the data. Below sigma_L^2.
    ratio: gamma = sigma_(i-1) / sigma_i.
    sigma_L: the last level.
    num_steps: T, steps to a level.

  >>> round(langevin_variance_ratio(6.2e-6, 1.03756, 0.01, 5), 4)
  1.0555
  """
  relative = step / sigma_L**2
  if not 0.0 < relative < 2.0:
    raise ValueError(
      f"Langevin steps are stable for 0 < step < 2 sigma_L^2 = {2 * sigma_L**2:.6g}, got {step:.6g}"
    )
  # With r = 1 - e: 2e / (1 - r^2) = 1 / (1 - e/2).
  equilibrium = 1.0 / (1.0 - 0.5 * relative)
  return (1.0 - relative) ** (2 * num_steps) * (ratio**2 - equilibrium) + equilibrium


def langevin_step_size(ratio: float, sigma_L: float, num_steps: int) -> float:
  """Technique 4: the epsilon in (0, sigma_L^2] that brings `langevin_variance_ratio` closest to 1.

  Args:
    ratio: gamma = sigma_(i-1) / sigma_i, above 1.
    sigma_L: the last level.
    num_steps: T, steps to a level, as many as can be afforded.

  Returns:
    epsilon, in squared units of the data.

  >>> f"{langevin_step_size(1.03756, 0.01, 5):.2e}"
  '6.18e-06'
  """
  if not ratio > 1:
    raise ValueError(f"the ratio of neighbouring levels must be above 1, got {ratio}")
  if num_steps < 1:
    raise ValueError(f"a level needs one Langevin step or more, got {num_steps}")
  # The value is a mean of ratio^2 and the equilibrium, both above 1, so closest to 1 is smallest; it falls
  # and then rises.
  value = lambda log_e: langevin_variance_ratio(math.exp(log_e), ratio, 1.0, num_steps)
  grid = np.linspace(math.log(1e-12), 0.0, 1001)
  best = int(np.argmin([value(g) for g in grid]))
  low, high = float(grid[max(best - 1, 0)]), float(grid[min(best + 1, grid.size - 1)])
  golden = 0.5 * (math.sqrt(5.0) - 1.0)
  while high - low > 1e-9:
    left, right = high - golden * (high - low), low + golden * (high - low)
    low, high = (low, right) if value(left) < value(right) else (left, high)
  return math.exp(0.5 * (low + high)) * sigma_L**2


def ema_half_life(decay: float, batch_size: int) -> float:
  """Technique 5: images seen until an average with this decay a step has forgotten half.

  >>> round(ema_half_life(0.999, 128))
  88678
  """
  if not 0.0 < decay < 1.0:
    raise ValueError(f"the decay a step must lie between 0 and 1, got {decay}")
  return batch_size * math.log(0.5) / math.log(decay)


def ema_decay(half_life: float, batch_size: int) -> float:
  """Technique 5: the decay a step whose half-life is `half_life` images; inverse of `ema_half_life`.

  >>> round(ema_decay(ema_half_life(0.999, 128), 128), 12)
  0.999
  """
  if not half_life > 0:
    raise ValueError(f"the half-life in images must be positive, got {half_life}")
  return 0.5 ** (batch_size / half_life)


def _check_levels(sigma_1, sigma_L):
  if not sigma_1 > sigma_L > 0:
    raise ValueError(
      f"levels go down from sigma_1 to sigma_L > 0, got sigma_1 = {sigma_1}, sigma_L = {sigma_L}"
    )
