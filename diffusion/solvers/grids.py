"""Time grids: float64 NumPy arrays [n+1] of decreasing times, for n steps.

Each runs from t_max to t_min (the process's own by default) and hits both exactly. With `clean=True` the last
of the n steps goes from t_min to t = 0, where sigma = 0. Node spacing matters as much as the solver's order.

They compose: `concatenate` puts one spacing after another, `truncate` ends a grid early and, if asked,
denoises from there, and `from_nodes` takes any times and says what is wrong with them.
"""

from typing import Any

import numpy as np

from diffusion.processes import vp_linear
from diffusion.solvers.grid_ends import check_steps, interval
from diffusion.solvers.grid_nodes import nodes
from diffusion.solvers.published_grids import beta, beta57, dynamic_shift, flow_shift, linear_quadratic

# Where a clock in sigma/alpha is cut on a process whose end has no signal or no noise: the first step from
# pure noise lands at half log-SNR -5.1 (the constant that arXiv:2211.01095's code uses for the cosine
# process), the last one to clean data starts at EDM's smallest noise.
LARGEST_RHO = float(np.exp(5.1))
SMALLEST_RHO = 0.002


def uniform(
  process: Any, n: int, t_max: float | None = None, t_min: float | None = None, clean: bool = False
) -> np.ndarray:
  """Equal steps in t.

  >>> from diffusion import processes
  >>> uniform(processes.rectified_flow(), 4, t_min=0.0)
  array([1.  , 0.75, 0.5 , 0.25, 0.  ])
  """
  return quadratic(process, n, t_max, t_min, power=1.0, clean=clean)


def quadratic(
  process: Any,
  n: int,
  t_max: float | None = None,
  t_min: float | None = None,
  power: float = 2.0,
  clean: bool = False,
) -> np.ndarray:
  """Equal steps in t^(1/power) (arXiv:2204.13902, section 4).

  t = (equal steps in t^(1/power))^power. A power of 2 or 3 is a good choice for VP.

  >>> from diffusion import processes
  >>> quadratic(processes.vp_linear(), 2, t_min=0.0)
  array([1.  , 0.25, 0.  ])
  """
  t_max, t_min, count = interval(process, n, t_max, t_min, clean)
  if not power > 0:
    raise ValueError(f"power must be positive, got {power}")
  t = np.linspace(t_max ** (1 / power), t_min ** (1 / power), count) ** power
  t[0] = t_max
  if count > 1:
    t[-1] = t_min
  return np.append(t, 0.0) if clean else t


def vp_time(
  process: Any,
  n: int,
  t_max: float | None = None,
  t_min: float | None = None,
  power: float = 2.0,
  clean: bool = False,
) -> np.ndarray:
  """The noise levels sigma/alpha of `quadratic` on the linear VP process, for any process.

  It is the best simple spacing for few steps. In that clock sigma/alpha grows like sqrt(t), then t, then
  exp(5 t^2), so steps are fine where data of unit size take shape and coarse where there is nearly only noise
  or nearly only data. On vp_linear it is `quadratic`.

  >>> from diffusion import processes
  >>> vp_time(processes.edm(), 3, t_min=0.0).round(3).tolist()
  [80.0, 2.186, 0.353, 0.0]
  """
  t_max, t_min, count = interval(process, n, t_max, t_min, clean)
  if not power > 0:
    raise ValueError(f"power must be positive, got {power}")
  reference = vp_linear()
  inverse: Any = reference.t_of_log_snr
  time = lambda rho: float(inverse(-2.0 * np.log(rho))) if rho > 0 else 0.0
  largest, smallest = (float(process.marginal(t).noise_to_signal) for t in (t_max, t_min))
  head = [t_max] if np.isinf(largest) else []
  low, high = time(smallest), time(LARGEST_RHO if head else largest)
  inner = np.linspace(high ** (1 / power), low ** (1 / power), count - len(head)) ** power
  return _at_levels(process, head, reference.marginal(inner).noise_to_signal, t_max, t_min, clean)


def asinh(
  process: Any,
  n: int,
  t_max: float | None = None,
  t_min: float | None = None,
  scale: float = 0.1,
  power: float = 1.3,
  clean: bool = False,
) -> np.ndarray:
  """Geometric steps in sigma/alpha above `scale`, ever more even ones below it.

  sigma/alpha = scale sinh(u^power asinh(largest/scale)) for equal steps in u. The probability flow is smooth
  in sigma/alpha once that is below the data's own smallest scale, so no step needs to be short there.

  Args:
    process, n, t_max, t_min, clean: as in `uniform`.
    scale: about the smallest standard deviation of the data, > 0.
    power: above 1, nodes move towards the data.

  >>> from diffusion import processes
  >>> asinh(processes.edm(), 4, t_min=0.0, power=1.0).round(3).tolist()
  [80.0, 12.649, 1.999, 0.308, 0.0]
  """
  t_max, t_min, count = interval(process, n, t_max, t_min, clean)
  if not (scale > 0 and power > 0):
    raise ValueError(f"scale and power must be positive, got scale={scale} and power={power}")
  largest, smallest = (float(process.marginal(t).noise_to_signal) for t in (t_max, t_min))
  head = [t_max] if np.isinf(largest) else []
  clock = lambda rho: np.arcsinh(rho / scale) ** (1 / power)
  inner = np.linspace(clock(LARGEST_RHO if head else largest), clock(smallest), count - len(head)) ** power
  return _at_levels(process, head, scale * np.sinh(inner), t_max, t_min, clean)


def log_snr(
  process: Any, n: int, t_max: float | None = None, t_min: float | None = None, clean: bool = False
) -> np.ndarray:
  """Equal steps in log-SNR, that is geometric in sigma/alpha.

  >>> from diffusion import processes
  >>> log_snr(processes.edm(), 3, t_max=8.0, t_min=1.0).round(6).tolist()
  [8.0, 4.0, 2.0, 1.0]
  """
  return _in_rho(process, n, t_max, t_min, clean, np.geomspace)


def karras(
  process: Any,
  n: int,
  t_max: float | None = None,
  t_min: float | None = None,
  rho: float = 7.0,
  clean: bool = False,
) -> np.ndarray:
  """Equal steps in (sigma/alpha)^(1/rho) (arXiv:2206.00364, eq. 5); clean=True is EDM's own grid.

  >>> from diffusion import processes
  >>> karras(processes.edm(), 18, clean=True)[[0, -2, -1]].tolist()
  [80.0, 0.002, 0.0]
  """
  if not rho > 0:
    raise ValueError(f"rho must be positive, got {rho}")
  spacing = lambda a, b, count: np.linspace(a ** (1 / rho), b ** (1 / rho), count) ** rho
  return _in_rho(process, n, t_max, t_min, clean, spacing)


def thinned(process: Any, n: int, of: int, spacing: str = "karras", **options: Any) -> np.ndarray:
  """Every (of/n)-th node of a grid of `of` steps.

  Such are the grids of a model whose steps are halved again and again. `uniform` and `vp_time` down to t = 0
  are closed under halving; a grid whose last step goes from t_min to clean data is not.

  Args:
    process, n: as in `uniform`; n divides `of`.
    of: number of steps of the finest grid.
    spacing: a key of `GRIDS`.
    **options: of that grid.

  Raises:
    ValueError: n that does not divide `of`, an unknown spacing.
    TypeError: an option that the spacing does not have.

  >>> from diffusion import processes
  >>> thinned(processes.edm(), 2, 8, clean=True).round(3).tolist()
  [80.0, 1.287, 0.0]
  """
  check_steps(n)
  check_steps(of)
  if of % n:
    raise ValueError(
      f"{n} steps do not go into {of}: take every node, every other, ... of the grid of {of} steps"
    )
  if spacing not in GRIDS:
    raise ValueError(f"unknown spacing {spacing!r}: choose one of {', '.join(GRIDS)}")
  return GRIDS[spacing](process, of, **options)[:: of // n]


def concatenate(*grids: Any) -> np.ndarray:
  """One grid after another, each from where the last ended.

  Args:
    *grids: decreasing times.

  Raises:
    ValueError: a grid that does not start where the one before ends.

  >>> from diffusion import processes
  >>> process = processes.vp_linear()
  >>> head, tail = uniform(process, 2, t_min=0.5), quadratic(process, 2, t_max=0.5, t_min=0.0)
  >>> concatenate(head, tail).round(6).tolist()
  [1.0, 0.75, 0.5, 0.125, 0.0]
  """
  whole = np.asarray(grids[0], np.float64)
  for i, grid in enumerate(grids[1:], 1):
    if grid[0] != whole[-1]:
      raise ValueError(
        f"grid {i} starts at {grid[0]} and the one before ends at {whole[-1]}: give it that as t_max"
      )
    whole = np.append(whole, grid[1:])
  return whole


def truncate(process: Any, grid: Any, t_min: float, clean: bool = False) -> np.ndarray:
  """A grid without its nodes below t_min, which becomes its last.

  With clean=True one step denoises from there to t = 0. A last noise level above the process's own t_min is
  often better at few steps: the last step is one denoising.

  Args:
    process: the Gaussian process.
    grid: [n+1] decreasing times.
    t_min: where the grid ends, below its first node.
    clean: whether t = 0 follows.

  Raises:
    ValueError: t_min at or above the first node or not positive; clean=True on a process with noise at t = 0.

  >>> from diffusion import processes
  >>> truncate(processes.edm(), [4.0, 2.0, 1.0, 0.5], 0.7, clean=True).tolist()
  [4.0, 2.0, 1.0, 0.7, 0.0]
  """
  grid = np.asarray(grid, np.float64)
  interval(process, 1, grid[0], t_min, clean)
  return np.concatenate([grid[grid > t_min], np.array([t_min, 0.0] if clean else [t_min], np.float64)])


def from_nodes(process: Any, times: Any, dtype: Any = np.float32) -> np.ndarray:
  """Times of one's own as a grid, checked as every solver checks them: float64 [n+1].

  Args:
    process: the Gaussian process.
    times: [n+1] decreasing times.
    dtype: the precision at run time, at which no two may be equal.

  Raises:
    ValueError: times that do not strictly decrease, are outside [0, t_max], or have no signal or no noise
      inside.

  >>> from diffusion import processes
  >>> from_nodes(processes.edm(), [1.0, 2.0, 0.0])
  Traceback (most recent call last):
  ...
  ValueError: a grid runs from noise to data and must strictly decrease; as given, node 0 is 1.0 and ...
  """
  grid = np.asarray(times, np.float64)
  nodes(process, grid, dtype)
  if grid.ndim == 1 and grid[0] > float(process.t_max):
    raise ValueError(
      f"the process {process.name!r} ends at t_max = {float(process.t_max)} and the grid starts at "
      f"{grid[0]}: start it"
      " there or below"
    )
  return grid


def _in_rho(process, n, t_max, t_min, clean, spacing):
  """Nodes by a spacing of rho = sigma/alpha; an end where rho is infinite or zero is a node of its own."""
  t_max, t_min, count = interval(process, n, t_max, t_min, clean)
  largest, smallest = (float(process.marginal(t).noise_to_signal) for t in (t_max, t_min))
  head, tail = [], [0.0] if clean else []
  if largest > LARGEST_RHO and np.isinf(largest):
    head, largest = [t_max], LARGEST_RHO
  if smallest == 0:
    tail, smallest = [t_min], SMALLEST_RHO
  count = n + 1 - len(head) - len(tail)
  if count < 1:
    return np.array(head + tail)
  t = np.array(process.t_of_log_snr(-2.0 * np.log(spacing(largest, smallest, count))), ndmin=1)
  if not head:
    t[0] = t_max
  if count > 1 and tail != [t_min]:
    t[-1] = t_min
  return np.concatenate([head, t, tail])


def _at_levels(process, head, rho, t_max, t_min, clean):
  """The times of falling levels rho = sigma/alpha, with the ends of the interval hit exactly."""
  t = process.t_of_log_snr(-2.0 * np.log(np.where(rho > 0, rho, 1.0)))
  t = np.concatenate([head, t])
  if len(t) > 1 or not clean:
    t[-1] = t_min
  t[0] = t_max
  return np.append(t, 0.0) if clean else t


GRIDS = {
  "uniform": uniform,
  "quadratic": quadratic,
  "vp_time": vp_time,
  "asinh": asinh,
  "log_snr": log_snr,
  "exponential": log_snr,  # its name where noise levels are spaced, as in k-diffusion
  "karras": karras,
  "beta": beta,
  "beta57": beta57,
  "flow_shift": flow_shift,
  "dynamic_shift": dynamic_shift,
  "linear_quadratic": linear_quadratic,
}
