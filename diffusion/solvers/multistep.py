"""Integrals of interpolants through past evaluations: where the weights of every multistep sampler come from.

The probability flow is dv = eps d rho with v = x/alpha and rho = sigma/alpha, or d(x/sigma) = e^lambda D d
lambda with lambda = log(alpha/sigma) and D the data prediction. A multistep sampler replaces eps or D by the
polynomial through its last values in some clock and integrates that exactly. The weights are Gauss-Legendre
sums in float64, whose errors are at rounding here and which, unlike recursions for exponential integrals, do
not cancel for short steps.
"""

from typing import Any

import numpy as np

POINTS, WEIGHTS = np.polynomial.legendre.leggauss(40)


def quadrature(start: Any, end: Any) -> Any:
  """Gauss-Legendre positions and weights [..., n, 40] on the intervals from start to end, both [..., n].

  >>> x, w = quadrature(np.array([1.0]), np.array([3.0]))
  >>> (w / x).sum(-1).round(12).tolist() == np.log([3.0]).round(12).tolist()
  True
  """
  half, spread = (end - start)[..., None] / 2, (1,) * start.ndim + (-1,)
  return (end + start)[..., None] / 2 + half * POINTS.reshape(spread), half * WEIGHTS.reshape(spread)


def past(values: Any, steps: int, xp: Any, fill: float = 0.0) -> Any:
  """What values [..., n] were so many rows ago: [..., n], with `fill` before the first row."""
  count = min(steps, values.shape[-1])
  head = xp.full_like(values[..., :count], fill)
  return xp.concatenate([head, values[..., : values.shape[-1] - count]], axis=-1)


def integrals(points: Any, usable: Any, position: Any, measure: Any, xp: Any) -> Any:
  """The weight of each point: the integral of its Lagrange polynomial among the usable ones.

  Args:
    points: list of [..., n], where the values were taken, in the clock of the interpolation.
    usable: list of boolean [..., n]; the others have weight zero and may be anywhere.
    position: [..., n, q] where the integrand is summed, in the same clock.
    measure: [..., n, q] weights of the sum.
    xp: numpy or jax.numpy.

  Returns:
    A list of [..., n].

  >>> x, w = quadrature(np.array([0.0]), np.array([1.0]))              # Adams-Bashforth: 3/2, -1/2
  >>> places, usable = [np.array([0.0]), np.array([-1.0])], [np.array([True])] * 2
  >>> [float(b[0].round(12)) for b in integrals(places, usable, x, w, np)]
  [1.5, -0.5]
  """
  points = [xp.where(ok, p, 0.0) for p, ok in zip(points, usable)]
  weights = []
  for j, (here, ok) in enumerate(zip(points, usable)):
    basis = measure
    for k, (there, also) in enumerate(zip(points, usable)):
      if k != j:
        both = ok & also
        gap = xp.where(both, here - there, 1.0)[..., None]
        basis = basis * xp.where(both[..., None], (position - there[..., None]) / gap, 1.0)
    weights.append(xp.where(ok, basis.sum(axis=-1), 0.0))
  return weights


def phi(k: int, z: Any) -> Any:
  """The functions phi_k of exponential integrators, for |z| below 50.

  phi_k(z) = int_0^1 e^((1-u) z) u^(k-1) / (k-1)! du.

  >>> bool(abs(phi(1, np.array([2.0])) - np.expm1(2.0) / 2.0).max() < 1e-14)
  True
  """
  u, w = (1 + POINTS) / 2, WEIGHTS / 2
  factorial = float(np.prod(np.arange(1, k)))
  return (w * u ** (k - 1) / factorial * np.exp((1 - u) * z[..., None])).sum(axis=-1)
