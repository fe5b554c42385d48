"""Steps of the probability flow: classical fourth-order Runge-Kutta, equal in log-SNR, as rows of numbers.

The state is u = x / norm, norm = sqrt(alpha^2 + sigma^2): in it all processes with the same log-SNR follow
the same variance-preserved path (arXiv:2107.00630, appendix on equivalence), so the error is that of VP also
where x itself grows like sigma. Each row is one evaluation, so that a scan over rows compiles the network
once and not once a stage. All numbers are computed in float64 on the host from times that are rounded to the
run-time precision first.
"""

from typing import TypeVar

import jax
import numpy as np
from flax import struct
from jax.typing import DTypeLike

from diffusion.processes.base import AnyArray, GaussianProcess, Number

# Where the integral ends if the process ends without any signal: half log-SNR -5.1.
T = TypeVar("T")

LOWEST_LOG_SNR = -10.2


@struct.dataclass
class Steps:
  """Rows of n steps, four to a step: each field is [4n], but for `ends`.

  Row i evaluates k = scale velocity(norm w, t) / norm - shrink w at a point w, and adds weight k to the step
  from u; the next row's point is u + reach k, or, after the last row of a step, the new u.
  """

  t: AnyArray
  scale: AnyArray  # step length in log-SNR times dt / d log-SNR
  norm: AnyArray
  shrink: AnyArray  # step length times d log norm / d log-SNR
  weight: AnyArray
  reach: AnyArray
  last: AnyArray
  ends: AnyArray  # [2], norm at the first and the last time


def on_host(process: T) -> T:
  """The process with float64 numbers, wherever they lived; inside someone's jit this raises, as it must."""
  return jax.tree.map(lambda a: np.asarray(a, np.float64), process)


def log_snr_times(
  process: GaussianProcess, count: int, t_min: Number | None = None, t_max: Number | None = None
) -> np.ndarray:
  """Times from t_min to t_max, equally spaced in log-SNR and ascending: [count + 1] float64.

  A process that ends without signal is cut at log-SNR -10.2.

  Args:
    process: the Gaussian process.
    count: number of intervals.
    t_min, t_max: ends; the process's own by default.

  Raises:
    ValueError: no interval, or ends whose log-SNR is infinite or not decreasing.

  >>> from diffusion import processes
  >>> log_snr_times(processes.edm(), 2, t_min=0.01, t_max=1.0).round(6).tolist()
  [0.01, 0.1, 1.0]
  """
  if count < 1:
    raise ValueError(f"{count} steps were asked for: one is the least")
  process = on_host(process)
  t_min = process.t_min if t_min is None else t_min
  t_max = process.t_max if t_max is None else t_max
  high, low = float(process.log_snr(t_min)), max(float(process.log_snr(t_max)), LOWEST_LOG_SNR)
  if not np.isfinite(high) or high <= low:
    raise ValueError(
      f"t_min={t_min} and t_max={t_max} must have finite, decreasing log-SNR (got {high} and {low}):"
      " raise t_min above 0, and keep t_max above it"
    )
  return np.asarray(process.t_of_log_snr(np.linspace(high, low, count + 1)))


def flow_steps(
  process: GaussianProcess,
  num_steps: int = 64,
  *,
  t_min: Number | None = None,
  t_max: Number | None = None,
  backward: bool = False,
  dtype: DTypeLike = np.float32,
) -> Steps:
  """Runge-Kutta steps from data to noise, or from noise to data.

  Made outside of jit, once; every function here that takes `num_steps` also takes these as `steps`, which
  lets it run inside a jit that has the denoiser as an argument.

  Args:
    process: the Gaussian process.
    num_steps: steps; four evaluations each.
    t_min, t_max: ends; the process's own by default.
    backward: from noise to data.
    dtype: run-time precision of the times.

  >>> from diffusion import processes
  >>> flow_steps(processes.edm(), 8).t.shape
  (32,)
  """
  nodes = log_snr_times(process, 2 * num_steps, t_min, t_max).astype(dtype).astype(np.float64)
  nodes = nodes[::-1] if backward else nodes
  start, middle, stop = nodes[:-1:2], nodes[1::2], nodes[2::2]
  t = np.stack([start, middle, middle, stop], axis=1)
  process = on_host(process)
  m = process.marginal(t)
  slope = 2.0 * (m.d_alpha / m.alpha - m.d_sigma / m.sigma)  # d log-SNR / dt
  length = process.log_snr(stop) - process.log_snr(start)
  row = lambda values: np.tile(np.asarray(values, dtype), num_steps)
  flat = lambda values: values.reshape(-1).astype(dtype)
  norm = lambda m: np.sqrt(m.alpha**2 + m.sigma**2)
  scale = length[:, None] / slope
  return Steps(
    t=flat(t),
    scale=flat(scale),
    norm=flat(norm(m)),
    shrink=flat(scale * (m.alpha * m.d_alpha + m.sigma * m.d_sigma) / norm(m) ** 2),
    weight=row([1 / 6, 1 / 3, 1 / 3, 1 / 6]),
    reach=row([0.5, 0.5, 1.0, 0.0]),
    last=np.tile([False, False, False, True], num_steps),
    ends=norm(process.marginal(nodes[[0, -1]])).astype(dtype),
  )
