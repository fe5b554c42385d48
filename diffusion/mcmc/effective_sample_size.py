"""How many independent draws the draws of correlated chains are worth."""

from typing import Any

import numpy as np


def effective_sample_size(samples: Any) -> np.ndarray:
  """The effective number of draws for the mean of each coordinate: [*event].

  The smallest is what a report should give. The number is C N / (1 + 2 sum of autocorrelations), the sum cut
  where Geyer's initial sequence of pairs stops being positive and held to decrease (Statistical Science 7,
  1992). Several chains are pooled as in arXiv:1903.08008: what chains disagree about counts as correlation,
  so chains that sit in different modes are worth little. It can be above C N, where draws alternate.

  Args:
    samples: [N, C, *event] numbers, such as `run(..., thin=1).samples` without the first steps; N at least 4.

  Raises ValueError for fewer draws. A coordinate that never moves, or is not finite, is worth 0.

  >>> rng = np.random.default_rng(0)
  >>> bool(abs(effective_sample_size(rng.normal(size=(2000, 4, 1)))[0] / 8000 - 1) < 0.1)
  True
  """
  samples = np.asarray(samples, np.float64)
  if samples.ndim < 2 or samples.shape[0] < 4:
    raise ValueError(
      f"samples are [N, C, ...] with N at least 4 draws of C chains, got shape {samples.shape}: run more "
      "steps"
    )
  number, chains, event = samples.shape[0], samples.shape[1], samples.shape[2:]
  flat = samples.reshape(number, chains, -1)
  values = [_of_one(flat[:, :, d]) for d in range(flat.shape[-1])]
  return np.array(values).reshape(event)


def _of_one(draws):
  """Of one coordinate, draws: [N, C]."""
  number, chains = draws.shape
  if not np.all(np.isfinite(draws)):
    return 0.0
  covariance = autocovariance(draws).mean(axis=1)
  within = covariance[0] * number / (number - 1.0)
  total = covariance[0] + (draws.mean(axis=0).var(ddof=1) if chains > 1 else 0.0)
  if not total > 0:
    return 0.0
  correlation = (
    1.0 - (within - covariance * number / (number - 1.0)) / total
    if chains > 1
    else covariance / covariance[0]
  )
  correlation[0] = 1.0
  even = correlation[: number // 2 * 2].reshape(-1, 2).sum(axis=1)
  negative = np.flatnonzero(even <= 0)
  pairs = np.minimum.accumulate(even[: negative[0] if negative.size else len(even)])
  time = 2.0 * pairs.sum() - 1.0
  # Alternating draws: no estimate of a time below this can be told from chance (arXiv:1903.08008).
  return chains * number / max(time, 1.0 / np.log10(chains * number))


def autocovariance(draws: np.ndarray) -> np.ndarray:
  """Of each column at lags 0..N-1, divided by N: [N, C] -> [N, C], by FFT.

  >>> autocovariance(np.array([[1.0], [-1.0], [1.0], [-1.0]])).ravel().round(6).tolist()
  [1.0, -0.75, 0.5, -0.25]
  """
  number = draws.shape[0]
  centred = draws - draws.mean(axis=0)
  size = 1 << (2 * number - 1).bit_length()
  spectrum = np.abs(np.fft.rfft(centred, size, axis=0)) ** 2
  return np.fft.irfft(spectrum, size, axis=0)[:number] / number
