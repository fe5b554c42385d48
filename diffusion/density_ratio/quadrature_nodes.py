"""Where in time a ratio is integrated: nodes and weights in float64 on the host."""

import numpy as np
from flax import struct

from diffusion.processes.base import GaussianProcess
from diffusion.processes.paths import Path, as_path

# Bisection steps that bring the distance at which the noise has a given variance to the last digit.
HALVINGS = 200


@struct.dataclass
class Nodes:
  """The nodes of a quadrature over time, and their weights.

  t: [N], increasing, and weight: [N], whose sum is the length of the interval. Both are float64 on the
  host.
  """

  t: np.ndarray
  weight: np.ndarray


def gauss_legendre(
  path: Path | GaussianProcess,
  num: int = 64,
  *,
  resolve: float | None = None,
  t_min: float | None = None,
  t_max: float | None = None,
) -> Nodes:
  """Gauss-Legendre nodes on the path's interval.

  They are equal in t, or graded towards an end where the noise vanishes.

  Where p_1 is peaked, with a variance s^2 far below one, the time score is of order 1 / (t_max - t + s^2)
  near the end, and no affordable number of nodes in t sees it. With `resolve=s^2` the clock is the logarithm
  of the distance to the end, plus the distance at which the noise has variance `resolve`, and the integrand
  is smooth in it.

  Args:
    path: a path or a Gaussian process.
    num: nodes, of each half if the noise vanishes at both ends.
    resolve: the smallest variance that matters, or None for nodes equal in t.
    t_min, t_max: the interval, inside of the path's.

  Raises:
    ValueError: fewer than one node, an interval outside of the path, a variance that the path's noise never
      has.

  >>> from diffusion import processes
  >>> nodes = gauss_legendre(processes.spherical(), 40, resolve=1e-6)
  >>> float(nodes.weight.sum().round(9)), bool(1 - nodes.t[-1] < 1e-7)
  (1.0, True)
  """
  path = as_path(path, "gauss_legendre")
  low, high = interval(path, t_min, t_max)
  if num < 1:
    raise ValueError(f"an integral needs at least one node, got {num}")
  u, w = np.polynomial.legendre.leggauss(num)
  u, w = 0.5 * (u + 1.0), 0.5 * w
  if resolve is None:
    return Nodes(low + (high - low) * u, (high - low) * w)
  if not resolve > 0:
    raise ValueError(f"resolve is the smallest variance that matters and positive, got {resolve}")
  variance = lambda t: float(path.blend(np.float64(t)).variance)
  middle = 0.5 * (low + high)
  ends = [end for end in (low, high) if variance(end) < resolve]
  if not ends or variance(middle) <= resolve:
    raise ValueError(
      f"the noise of {path.name} has variances {variance(low):.3g}, {variance(middle):.3g} and "
      f"{variance(high):.3g} at "
      f"the start, middle and end of its interval, and resolve={resolve} is not between: leave resolve out"
    )
  pieces = []
  for end in ends:
    other = middle if len(ends) == 2 else low + high - end
    pieces.append(_graded(end, other, _distance(variance, resolve, end, middle), u, w))
  t, weight = (np.concatenate(parts) for parts in zip(*pieces))
  order = np.argsort(t)
  return Nodes(t[order], weight[order])


def bridges(path: Path | GaussianProcess, num: int, *, power: float = 1.0) -> Nodes:
  """The midpoints and lengths of the bridges between the waymarks of a telescoping ratio.

  There are `num` bridges, and the log ratio is the sum of their logits. Waymark k is at the place (k /
  num)^power of the interval (arXiv:2006.12204, with num = 1 a single classifier). Raises ValueError for no
  bridge or a power that is not positive.

  >>> from diffusion import processes
  >>> bridges(processes.linear(), 4).t.tolist()
  [0.125, 0.375, 0.625, 0.875]
  """
  marks = waymarks(path, num, power)
  return Nodes(0.5 * (marks[1:] + marks[:-1]), np.diff(marks))


def waymarks(path: Path | GaussianProcess, num: int, power: float = 1.0) -> np.ndarray:
  """Times [num + 1] of the waymarks. Raises ValueError."""
  path = as_path(path, "bridges")
  if num < 1 or not power > 0:
    raise ValueError(
      f"a telescoping ratio has at least one bridge and a positive power, got num={num}, power={power}"
    )
  low, high = interval(path)
  return low + (high - low) * (np.arange(num + 1) / num) ** power


def interval(
  path: Path | GaussianProcess, t_min: float | None = None, t_max: float | None = None
) -> tuple[float, float]:
  """The interval of time (t_min, t_max) as floats.

  An end that is not given is that of the path. Raises ValueError where they are not inside of it.
  """
  start, stop = float(path.t_min), float(path.t_max)
  low, high = (end if given is None else float(given) for end, given in ((start, t_min), (stop, t_max)))
  if not start <= low < high <= stop:
    raise ValueError(
      f"t_min={low} and t_max={high} must increase inside of {path.name}, which runs from {start} to {stop}"
    )
  return low, high


def _distance(variance, resolve, end, middle):
  """The distance from the end, towards the middle, at which the noise has this variance."""
  small, large = 0.0, abs(middle - end)
  inwards = np.sign(middle - end)
  for _ in range(HALVINGS):
    half = 0.5 * (small + large) if small > 0 else 1e-3 * large
    if variance(end + inwards * half) < resolve or end + inwards * half == end:
      small = half
    else:
      large = half
  return large


def _graded(end, other, distance, u, w):
  """Nodes between an end and another time, equal in log(|t - end| + distance)."""
  span = np.log1p(abs(other - end) / distance)
  away = distance * np.expm1(span * u)
  return end + np.sign(other - end) * away, span * (away + distance) * w
