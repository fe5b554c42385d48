"""Time grids that are known by a name elsewhere.

They are quantiles of a Beta law, the shifts of flow matching, and Mochi's two parts.

The shifts and the two parts are stated in the flow's time sigma/(alpha + sigma), which is t on rectified flow
and the same noise level on every other process.
"""

from typing import Any

import numpy as np

from diffusion.solvers.grid_ends import interval


def beta(
  process: Any,
  n: int,
  t_max: float | None = None,
  t_min: float | None = None,
  clean: bool = False,
  first: float = 0.6,
  second: float = 0.6,
) -> np.ndarray:
  """Quantiles of Beta(first, second): t at equal steps of its distribution function.

  That makes steps short at both ends (arXiv:2407.12173, section 4).

  Args:
    process, n, t_max, t_min, clean: as in `grids.uniform`.
    first, second: the parameters, above 0; a smaller first one moves nodes to the data.

  Raises:
    ValueError: bad ends, or a parameter that is not positive.

  >>> from diffusion import processes
  >>> beta(processes.rectified_flow(), 4, t_min=0.0).round(4).tolist()
  [1.0, 0.8243, 0.5, 0.1757, 0.0]
  """
  if not (first > 0 and second > 0):
    raise ValueError(f"the parameters of a Beta law are positive, got first={first} and second={second}")
  from scipy.special import betaincinv  # a fifth of a second to import, and this grid alone needs it

  t_max, t_min, count = interval(process, n, t_max, t_min, clean)
  t = t_min + (t_max - t_min) * betaincinv(first, second, np.linspace(1.0, 0.0, count))
  return _with_ends(t, t_max, t_min, clean)


def beta57(
  process: Any, n: int, t_max: float | None = None, t_min: float | None = None, clean: bool = False
) -> np.ndarray:
  """`beta` with 0.5 and 0.7, as the RES4LYF nodes of ComfyUI have it.

  >>> from diffusion import processes
  >>> beta57(processes.rectified_flow(), 4, t_min=0.0).round(4).tolist()
  [1.0, 0.7193, 0.3611, 0.0962, 0.0]
  """
  return beta(process, n, t_max, t_min, clean, 0.5, 0.7)


def flow_shift(
  process: Any,
  n: int,
  t_max: float | None = None,
  t_min: float | None = None,
  clean: bool = False,
  shift: float = 3.0,
) -> np.ndarray:
  """Equal steps in the flow's time, whose noise levels are then `shift` times as high.

  u -> s u/(1 + (s - 1) u) (arXiv:2403.03206, eq. 23).

  Both ends are hit, so the shift is applied once, to what lies between.

  Args:
    process, n, t_max, t_min, clean: as in `grids.uniform`.
    shift: s, above 0; 3 at a million pixels in the paper, 1 for none.

  Raises:
    ValueError: bad ends, or a shift that is not positive.

  >>> from diffusion import processes
  >>> flow_shift(processes.rectified_flow(), 4, t_min=0.0).round(6).tolist()
  [1.0, 0.9, 0.75, 0.5, 0.0]
  """
  if not shift > 0:
    raise ValueError(f"shift multiplies noise levels and is positive, got {shift}")
  unshifted = lambda u: u / (shift - (shift - 1) * u)
  fraction = lambda high, low, count: np.linspace(unshifted(high), unshifted(low), count)
  return _in_flow_time(process, n, t_max, t_min, clean, lambda *ends: _shifted(fraction(*ends), shift))


def dynamic_shift(
  process: Any,
  n: int,
  t_max: float | None = None,
  t_min: float | None = None,
  clean: bool = False,
  tokens: int = 1024,
) -> np.ndarray:
  """`flow_shift` by e^mu, with mu linear in the number of tokens, as Flux has it.

  mu = 0.5 at 256 tokens and 1.15 at 4,096, linear between and beyond.

  Args:
    process, n, t_max, t_min, clean: as in `grids.uniform`.
    tokens: of a sample, pixels of the latent over those of a patch.

  Raises:
    ValueError: bad ends, or no tokens.

  >>> from diffusion import processes
  >>> dynamic_shift(processes.rectified_flow(), 2, t_min=0.0, tokens=4096).round(4).tolist()
  [1.0, 0.7595, 0.0]
  """
  if not tokens >= 1:
    raise ValueError(f"a sample has one token or more, got {tokens}")
  mu = 0.5 + (1.15 - 0.5) * (tokens - 256) / (4096 - 256)
  return flow_shift(process, n, t_max, t_min, clean, float(np.exp(mu)))


def linear_quadratic(
  process: Any,
  n: int,
  t_max: float | None = None,
  t_min: float | None = None,
  clean: bool = False,
  threshold: float = 0.025,
) -> np.ndarray:
  """Mochi 1's grid: half of the steps linear, half quadratic in the flow's time.

  The first half of the steps is even over the first `threshold` of the flow's time from noise, the second
  quadratic over the rest, with one slope where they meet (`linear_quadratic_schedule` of Mochi 1's code).

  Args:
    process, n, t_max, t_min, clean: as in `grids.uniform`.
    threshold: share of the interval that the first half takes, in (0, 1/2).

  Raises:
    ValueError: bad ends, or a threshold outside (0, 1/2).

  >>> from diffusion import processes
  >>> linear_quadratic(processes.rectified_flow(), 4, t_min=0.0, threshold=0.1).round(4).tolist()
  [1.0, 0.95, 0.9, 0.65, 0.0]
  """
  if not 0 < threshold < 0.5:
    raise ValueError(f"threshold is a share of the interval in (0, 1/2), got {threshold}")

  def spacing(high, low, count):
    steps = count - 1
    even = steps // 2
    i, rest = np.arange(count), steps - even
    if not even:
      return np.linspace(high, low, count)
    slope = threshold / even
    past = np.maximum(i - even, 0)
    done = slope * i + (1 - slope * steps) * (past / rest) ** 2
    return high + (low - high) * done

  return _in_flow_time(process, n, t_max, t_min, clean, spacing)


def _shifted(u, shift):
  return shift * u / (1 + (shift - 1) * u)


def _in_flow_time(process, n, t_max, t_min, clean, spacing):
  """Nodes by a spacing (high, low, count) of sigma/(alpha + sigma)."""
  t_max, t_min, count = interval(process, n, t_max, t_min, clean)
  ends = [process.marginal(t) for t in (t_max, t_min)]
  u = spacing(*(float(m.sigma / (m.alpha + m.sigma)) for m in ends), count)
  inside = np.clip(u, 1e-300, 1 - 1e-16)
  return _with_ends(process.t_of_log_snr(2 * (np.log1p(-inside) - np.log(inside))), t_max, t_min, clean)


def _with_ends(t, t_max, t_min, clean):
  t = np.array(t, np.float64, ndmin=1)
  if len(t) > 1 or not clean:
    t[-1] = t_min
  t[0] = t_max
  return np.append(t, 0.0) if clean else t
