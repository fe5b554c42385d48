"""Averages by power functions of the step, and averages of other lengths made of stored ones.

After step t the average by the power gamma is theta_hat(t) = sum over tau <= t of w(tau) theta(tau), where
w(tau) is the part of the profile

    p(tau; t, gamma) = (gamma + 1) tau^gamma / t^(gamma + 1),    0 <= tau <= t,

that lies between tau - 1 and tau. Its standard deviation is a fixed share of t, whatever t: the relative
length sigma_rel, by which these averages are called. A sum of averages has the sum of their profiles, so the
sum of stored ones whose profile is closest to the one wanted stands for an average that nobody kept
(arXiv:2312.02696, section 3.1 and appendix C). All of it in float64, on the host.
"""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

LONGEST = math.sqrt(1 / 12)
"""Relative length of the mean of all steps alike, gamma = 0."""

SHORTEST = 1e-4
"""Relative length at which a run of ten thousand steps averages over its last one."""

NEAR = 0.1
"""How far from the profile wanted, as a share of its norm, one may be that stands for it."""


def sigma_rel(gamma: npt.ArrayLike) -> np.ndarray:
  """Relative lengths of averages by powers: the standard deviation of their profiles over their age.

  arXiv:2312.02696, equation 123.

  Args:
    gamma: of any shape, above -1.

  >>> print(f"{sigma_rel(0.0):.6f}, {sigma_rel(6.937):.3f}, {sigma_rel(16.972):.3f}")
  0.288675, 0.100, 0.050
  """
  gamma = np.asarray(gamma, np.float64)
  return np.sqrt((gamma + 1) / (gamma + 3)) / (gamma + 2)


def power_gamma(length: float) -> float:
  """The power whose average has a relative length; inverts `sigma_rel` (arXiv:2312.02696, algorithm 2).

  It is the largest root of (gamma + 2)^2 (gamma + 3) length^2 = gamma + 1. With v = gamma + 7/3 that is
  v^3 = p v + q, whose three roots are real, and the largest is 2 sqrt(p/3) cos(phi/3) with
  cos(phi) = q/2 (3/p)^(3/2).

  Raises ValueError for a length that is not from `SHORTEST` to `LONGEST`.

  >>> print(f"{power_gamma(0.10):.3f}, {power_gamma(0.05):.3f}")
  6.937, 16.972
  """
  if not SHORTEST <= length <= LONGEST:
    raise ValueError(
      f"the relative length of an average is from {SHORTEST:g} to {LONGEST:.4g}, that of the mean of all "
      f"steps; it is {length:.10g}"
    )
  p, q = length**-2 + 1 / 3, -(4 / 3 * length**-2 + 2 / 27)
  root = 2 * math.sqrt(p / 3) * math.cos(math.acos(q / 2 * (3 / p) ** 1.5) / 3)
  return max(0.0, root - 7 / 3)


def profile(tau: npt.ArrayLike, step: npt.ArrayLike, gamma: npt.ArrayLike) -> np.ndarray:
  """The density p(tau; step, gamma) of an average over the steps (arXiv:2312.02696, equation 121).

  Args:
    tau, step, gamma: shapes that broadcast; step above 0, gamma 0 or more.

  >>> profile([0.0, 1.0, 2.0, 3.0], 2.0, 1.0).tolist()
  [0.0, 0.5, 1.0, 0.0]
  """
  tau, step, gamma = (np.asarray(one, np.float64) for one in (tau, step, gamma))
  inside = (tau >= 0) & (tau <= step)
  return np.where(inside, (gamma + 1) / step * (np.clip(tau, 0.0, step) / step) ** gamma, 0.0)


def gram(
  steps: npt.ArrayLike, gammas: npt.ArrayLike, other_steps: npt.ArrayLike, other_gammas: npt.ArrayLike
) -> np.ndarray:
  """Integrals over tau of the products of profiles, [n, m] (arXiv:2312.02696, equation 151 and algorithm 3).

  Args:
    steps, gammas: [n], of the one kind.
    other_steps, other_gammas: [m], of the other.

  >>> gram([2.0], [1.0], [2.0, 4.0], [1.0, 0.0]).tolist()  # the integrals of (tau/2)^2, and of tau/2 * 1/4
  [[0.6666666666666666, 0.25]]
  """
  t, g = (np.asarray(one, np.float64)[:, None] for one in (steps, gammas))
  u, h = (np.asarray(one, np.float64)[None, :] for one in (other_steps, other_gammas))
  first, last = np.minimum(t, u), np.maximum(t, u)
  return (g + 1) * (h + 1) / ((g + h + 1) * last) * (first / last) ** np.where(t < u, h, g)


class Combination(NamedTuple):
  """A sum of stored averages that stands for another.

  Attributes:
    weights: [n] float64, the factor of each stored average; they add up to 1.
    error: the norm of the profile's error over the norm of the profile wanted, both in L2 over the steps.
  """

  weights: np.ndarray
  error: float


def combine(steps: npt.ArrayLike, gammas: npt.ArrayLike, step: float, gamma: float) -> Combination:
  """The sum of stored averages whose profile is nearest to that of the average after `step` by `gamma`.

  Nearest in L2 among the sums of total 1, which keep a parameter that does not move as it is
  (arXiv:2312.02696, algorithm 3, solves without that condition, and its published code divides by the total).
  If theta is the parameter's trajectory and c any constant, what comes out is off by at most

      error * |p| * |theta - c|,    |p|^2 = gram([step], [gamma], [step], [gamma]),

  where |theta - c|^2 is the sum of (theta(tau) - c)^2 over the steps: Cauchy and Schwarz.

  Args:
    steps, gammas: [n], of the stored averages; no two alike.
    step, gamma: of the average wanted.

  >>> found = combine([50, 100, 100], [17.0, 17.0, 7.0], 100, 7.0)
  >>> print(found.weights.round(12) + 0.0, f"{found.error:.3f}")
  [0. 0. 1.] 0.000
  """
  inner, across = gram(steps, gammas, steps, gammas), gram(steps, gammas, [step], [gamma])[:, 0]
  (square,) = np.ravel(gram([step], [gamma], [step], [gamma]))
  scale = 1 / np.sqrt(np.diag(inner))  # of profiles of norm one: the best conditioned
  scaled = inner * scale[:, None] * scale
  solved = np.linalg.lstsq(scaled, np.stack([across * scale, scale], 1), rcond=None)[0] * scale[:, None]
  nearest, even = solved.T
  weights = nearest + even * (1 - nearest.sum()) / even.sum()
  left = square - 2 * weights @ across + weights @ inner @ weights
  return Combination(weights, math.sqrt(max(0.0, left) / square))


def reach(steps: npt.ArrayLike, gammas: npt.ArrayLike, step: float) -> tuple[float, float] | None:
  """(the shortest, the longest) relative length that stored averages stand for to within `NEAR`.

  Lengths are tried in steps of 0.005. None if there is none.

  Args:
    steps, gammas: [n], of the stored averages.
    step: of the average wanted.

  >>> reach([50, 50, 100, 100], [17.0, 7.0, 17.0, 7.0], 100)
  (0.04, 0.125)
  """
  lengths = [number / 200 for number in range(1, int(LONGEST * 200) + 1)]
  near = [one for one in lengths if combine(steps, gammas, step, power_gamma(one)).error <= NEAR]
  return (near[0], near[-1]) if near else None
