"""Noise levels between which data are recovered one at a time, and the Langevin steps that recover them."""

import dataclasses
import numbers
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax import struct
from numpy.typing import ArrayLike

from diffusion.processes.base import GaussianProcess
from diffusion.processes.contract import is_gaussian

# x_i of a step is "not seen" in x_{i+1} where its share of the deviation is smaller than this.
UNSEEN = 0.1

T6_TIMES = tuple((np.array([0, 100, 200, 300, 400, 500, 999]) + 1) / 1000)
"""Six steps on `ddpm_ladder()` (arXiv:2012.08125, appendix; the last level keeps 0.6% of the data): times of
the levels, ascending."""


@struct.dataclass
class RecoveryLevels:
  """Levels i = 0..T of a process: x_{i+1} = gain_i x_i + noise_i eps, x_0 the least noisy.

  Float64 on the host.

  Attributes:
    t: [T+1] ascending times.
    gain, noise: [T].
    deviation: [T+1] standard deviation of x_i.
    step: [T] squared Langevin step at level i, in units of x_i^2.
    start: [T] factor that takes x_{i+1} to the start of the chain at level i: 1 / gain, or, where x_{i+1}
      tells next to nothing of x_i, the ratio of their deviations.
    seen: [T] whether it does tell.
    name: of the process.
  """

  t: np.ndarray
  gain: np.ndarray
  noise: np.ndarray
  deviation: np.ndarray
  step: np.ndarray
  start: np.ndarray
  seen: np.ndarray
  name: str = struct.field(pytree_node=False, default="")

  @property
  def count(self) -> int:
    """Steps T."""
    return self.gain.shape[0]


def recovery_levels(
  process: GaussianProcess,
  levels: int | ArrayLike,
  *,
  step: float | Callable[[RecoveryLevels, np.ndarray], np.ndarray] = 0.3,
  data_std: float = 1.0,
) -> RecoveryLevels:
  """The levels of a process at given times, or at `levels` + 1 times that are equally spaced in log-SNR.

  Args:
    process: a Gaussian process.
    levels: a number of steps T, from the process's t_min to its t_max (log-SNR -6 where that is lower), or T
      + 1 times.
    step: the squared Langevin step as a share of the variance of x_i given x_{i+1}, were the data Gaussian:
      above 2 Langevin may diverge. Or a function of the levels that returns [T], in units of x_i^2, such as
      `published_step()`.
    data_std: standard deviation of the data.

  Raises:
    ValueError: fewer than one step, times that do not ascend or have no noise, a step that is not positive.

  >>> from diffusion import processes
  >>> levels = recovery_levels(processes.ddpm_ladder(), T6_TIMES)
  >>> levels.gain.round(5).tolist()
  [0.94617, 0.85629, 0.7748, 0.70092, 0.63396, 0.02278]
  >>> levels.noise.round(5).tolist()
  [0.32368, 0.5165, 0.63221, 0.71324, 0.77337, 0.99974]
  """
  if not is_gaussian(process):
    raise ValueError(
      f"recovery needs a Gaussian process such as processes.vp_linear(), got {type(process).__name__}"
    )
  process = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), process)
  t = np.asarray(_times(process, levels))
  m = process.marginal(t)
  if np.any(m.sigma <= 0):
    raise ValueError(
      f"every level has noise, got sigma {m.sigma.tolist()} at times {t.tolist()}: start later than t = 0"
    )
  gain = np.asarray(m.alpha[1:] / m.alpha[:-1])
  variance = m.sigma[1:] ** 2 - (gain * m.sigma[:-1]) ** 2
  if np.any(variance <= 0):
    raise ValueError(
      f"log-SNR has to fall from each level to the next, got {process.log_snr(t).tolist()}: take fewer levels"
    )
  if not data_std > 0:
    raise ValueError(f"the standard deviation of the data is positive, got {data_std}")
  noise, deviation = np.sqrt(variance), np.sqrt((m.alpha * data_std) ** 2 + m.sigma**2)
  seen = np.asarray(gain * deviation[:-1] > UNSEEN * noise)
  start = np.where(seen, 1.0 / np.where(gain > 0, gain, 1.0), deviation[:-1] / deviation[1:])
  unknown: Any = None  # until the step is found, which may be a function of all the others
  built = RecoveryLevels(t, gain, noise, deviation, unknown, start, seen, process.name)
  if callable(step):
    size = np.asarray(step(built, np.asarray(m.sigma)), np.float64)
  elif isinstance(step, numbers.Real) and step > 0:
    size = step / ((gain / noise) ** 2 + deviation[:-1] ** -2.0)
  else:
    raise ValueError(
      f"step is a positive share of a variance (0.3 is a start) or a function of the levels, got {step!r}"
    )
  if size.shape != gain.shape or not np.all(size > 0):
    raise ValueError(f"a step of Langevin is positive, one number a level [{gain.size}], got {size.tolist()}")
  return dataclasses.replace(built, step=size)


def published_step(b2: float = 2e-4) -> Callable[[RecoveryLevels, np.ndarray], np.ndarray]:
  """The authors' own step b2 (sigma_i / sigma_0) noise_i^2, in units of y_i = gain_i x_i.

  Source: arXiv:2012.08125, repository; b2 = 2e-4.

  They pair it with an energy f / step^2 of a network f, so that the drift from it is half the slope of f. At
  the last level, where x_{i+1} tells nothing, y is x itself.

  >>> from diffusion import processes
  >>> levels = recovery_levels(processes.ddpm_ladder(), T6_TIMES, step=published_step())
  >>> (levels.step * np.where(levels.seen, levels.gain, 1.0) ** 2).round(6).tolist()
  [2.1e-05, 0.001728, 0.004686, 0.00792, 0.010742, 0.019196]
  """

  def steps(levels, sigma):
    in_y = b2 * sigma[:-1] / sigma[0] * levels.noise**2
    return in_y / np.where(levels.seen, levels.gain, 1.0) ** 2

  return steps


def _times(process, levels):
  """Ascending times [T+1]. Raises ValueError."""
  if isinstance(levels, numbers.Integral):
    if levels < 1:
      raise ValueError(f"there is at least one level to recover, got levels={levels}")
    high, low = np.clip(process.log_snr(np.array([process.t_min, process.t_max])), -6.0, 20.0)
    return process.t_of_log_snr(np.linspace(high, low, int(levels) + 1))
  t = np.asarray(levels, np.float64)
  if t.ndim != 1 or t.size < 2 or not np.all(np.diff(t) > 0) or not np.all(np.isfinite(t)):
    raise ValueError(f"levels are two or more ascending times, or a number of steps, got {levels!r}")
  return t
