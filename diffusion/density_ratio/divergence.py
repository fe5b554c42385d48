"""Averages of a log-ratio over samples.

Kullback-Leibler divergence, mutual information, and how sure they are.
"""

import numpy as np
from flax import struct
from numpy.typing import ArrayLike


@struct.dataclass
class Estimate:
  """mean, nats, and the standard error of it that the samples alone make."""

  mean: float
  standard_error: float


def kl_divergence(log_ratios: ArrayLike, max_error: float | None = None) -> Estimate:
  """The divergence KL(p_1 || p_0) from log ratios at samples of p_1.

  The ratios are log p_1(x) - log p_0(x). It is a mutual information where p_0 is the product of margins.

  Args:
    log_ratios: [n], nats.
    max_error: None, or the largest standard error, nats, that is of use.

  Raises:
    ValueError: fewer than two samples, a ratio that is not finite, or too few samples for `max_error`.

  >>> kl_divergence(np.array([1.0, 3.0, 2.0, 2.0]))
  Estimate(mean=2.0, standard_error=0.408...)
  """
  values = np.asarray(log_ratios, np.float64)
  if values.ndim != 1 or values.size < 2:
    raise ValueError(
      f"a divergence is averaged over at least two samples, one log-ratio each, got shape {values.shape}"
    )
  if not np.all(np.isfinite(values)):
    raise ValueError(
      f"{np.sum(~np.isfinite(values))} of {values.size} log-ratios are not finite: integrate them on an "
      "interval where "
      "the time score is finite"
    )
  deviation = values.std(ddof=1)
  error = deviation / np.sqrt(values.size)
  if max_error is not None and error > max_error:
    needed = int(np.ceil((deviation / max_error) ** 2))
    raise ValueError(
      f"{values.size} samples leave a standard error of {error:.3g} nats, above max_error={max_error}: "
      f"average about {needed} samples"
    )
  return Estimate(float(values.mean()), float(error))
