"""Noise levels for few steps, in float64 on the host."""

import numpy as np

from diffusion.processes.contract import check_steps

# Where a process ends without signal, the first step from pure noise lands at half log-SNR -5.1
# (arXiv:2211.01095, for the cosine process); where it ends without noise, the last step starts at EDM's
# smallest noise.
LARGEST, SMALLEST = float(np.exp(5.1)), 0.002
BETA_MIN, BETA_MAX = 0.1, 20.0


def vp_time(largest: float, smallest: float, n: int) -> np.ndarray:
  """n + 1 falling noise levels sigma/alpha, even in the square root of the linear VP process's time.

  In that clock sigma/alpha grows like sqrt(t), then t, then exp(5 t^2), so that steps are fine where data
  of unit size take shape (arXiv:2204.13902, section 4, in the levels of arXiv:2011.13456, eq. 33).

  Args:
    largest, smallest: the first level and the last; infinity and 0 are nodes of their own.
    n: number of steps.

  Raises ValueError for n below 1.

  >>> vp_time(float("inf"), 0.0, 3).round(3).tolist()
  [inf, 164.022, 0.002, 0.0]
  """
  check_steps(n)
  head = [largest] if np.isinf(largest) else []
  tail = [smallest] if smallest == 0 else []
  count = n + 1 - len(head) - len(tail)
  high, low = (_root_time(level) for level in (LARGEST if head else largest, SMALLEST if tail else smallest))
  inner = np.linspace(high, low, count) if count > 1 else np.array([high] * count)
  return np.concatenate([head, _level(inner**2), tail])


def _root_time(level):
  """The root of the time at which the linear VP process has this level."""
  integral, slope = np.log1p(level**2), BETA_MAX - BETA_MIN
  return np.sqrt(2.0 * integral / (BETA_MIN + np.sqrt(BETA_MIN**2 + 2.0 * slope * integral)))


def _level(t):
  return np.sqrt(np.expm1(t * (BETA_MIN + 0.5 * t * (BETA_MAX - BETA_MIN))))
