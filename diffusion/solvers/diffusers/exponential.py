"""The steps of diffusers' exponential integrators.

They are DPM-Solver, DPM-Solver++, their SDE forms and singlestep forms, UniPC, DEIS and SA-Solver.

Formulas are those of diffusers 0.42's `step`, in lambda = log(a/s) with h a step in it; a step to sigma = 0,
where h is infinite, has its limit.
"""

from typing import Any, NamedTuple

import numpy as np

from diffusion.solvers.diffusers.levels import Levels
from diffusion.solvers.diffusers.steps import Frame, history_weights
from diffusion.solvers.multistep import integrals, quadrature
from diffusion.solvers.table import Table


class Weights(NamedTuple):
  """Factors of a step of DPM-Solver, in any of its forms.

  In order: of x, of its D0, of the slope D1 by midpoint and by exact integral, of D2, of the noise.
  """

  x: float
  value: float
  midpoint: float
  slope: float
  curve: float
  noise: float


def dpm_weights(algorithm: str, a: Any, s: Any, a1: Any, s1: Any) -> Weights:
  """The factors of a step from scales (a, s) to (a1, s1), with D0, D1, D2 as diffusers has them.

  D2 is half of the second derivative that its factor is made for, so multistep 'order 3' is of order 2.
  """
  with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
    h = np.log(a1) - np.log(s1) - np.log(a) + np.log(s)
    if algorithm == "dpmsolver++":
      e = np.expm1(-h)
      weights = s1 / s, -a1 * e, -a1 * e / 2, a1 * (e / h + 1), -a1 * ((e + h) / h**2 - 0.5), 0.0
    elif algorithm == "dpmsolver":
      e = np.expm1(h)
      weights = a1 / a, -s1 * e, -s1 * e / 2, -s1 * (e / h - 1), -s1 * ((e - h) / h**2 - 0.5), 0.0
    elif algorithm == "sde-dpmsolver++":
      e = -np.expm1(-2 * h)
      noise = s1 * np.sqrt(e)
      curve = a1 * ((e - 2 * h) / (2 * h) ** 2 - 0.5)
      weights = s1 / s * np.exp(-h), a1 * e, a1 * e / 2, a1 * (e / (-2 * h) + 1), curve, noise
    else:
      e = np.expm1(h)
      noise = s1 * np.sqrt(np.expm1(2 * h))
      weights = a1 / a, -2 * s1 * e, -s1 * e, -2 * s1 * (e / h - 1), np.nan, noise
    return Weights(*map(float, weights))


def _half_log_snr(n: Levels) -> np.ndarray:
  with np.errstate(divide="ignore"):
    return np.log(n.a) - np.log(n.s)


def _kept(n: Levels, frame: Frame, wanted: str, flow: bool) -> Any:
  return frame.kept(wanted, n.a[:-1], n.s[:-1], flow)


def dpm_multistep(n: Levels, frame: Frame, c: dict[str, Any], flow: bool = False) -> Table:
  """DPM-Solver and DPM-Solver++, 1 to 3 evaluations back (arXiv:2206.00927, arXiv:2211.01095)."""
  order, algorithm, steps = c["solver_order"], c["algorithm_type"], len(n.sigma) - 1
  lam, few = _half_log_snr(n), c["lower_order_final"] and steps < 15
  noisy = algorithm.startswith("sde")

  def order_at(i):
    last = i == steps - 1 and (c["euler_at_final"] or few or c["final_sigmas_type"] == "zero")
    return 1 if last else min(order, i + 1, 2 if few and i == steps - 2 else 3)

  def step(i, slots, kept, noises):
    x, *past = slots
    m = [kept, *past]
    w = dpm_weights(algorithm, n.a[i], n.s[i], n.a[i + 1], n.s[i + 1])
    new = w.x * x + w.value * kept
    h, k = lam[i + 1] - lam[i], order_at(i)
    if k > 1:
      r0 = (lam[i] - lam[i - 1]) / h
      first = (m[0] - m[1]) / r0
    if k == 2:
      new = new + (w.midpoint if c["solver_type"] == "midpoint" else w.slope) * first
    if k == 3:
      r1 = (lam[i - 1] - lam[i - 2]) / h
      bend = (first - (m[1] - m[2]) / r1) / (r0 + r1)
      new = new + w.slope * (first + r0 * bend) + w.curve * bend
    if noisy:
      new = new + w.noise * noises[0]
    return [new, *m[: order - 1]]

  wanted = "x0" if algorithm.endswith("++") else "eps"
  return frame.table(n, step, order, min(order, 2), kept=_kept(n, frame, wanted, flow), noises=int(noisy))


def singlestep_orders(c: dict[str, Any], n: int) -> list[int]:
  """The order of each evaluation: 1, 2, 3 of a step of order 3.

  >>> singlestep_orders(dict(solver_order=3, lower_order_final=True, final_sigmas_type="zero"), 7)
  [1, 2, 3, 1, 2, 3, 1]
  """
  order = c["solver_order"]
  whole = list(range(1, order + 1))
  if not (c["lower_order_final"] or n % order or c["final_sigmas_type"] == "zero"):
    return whole * (n // order)
  if order == 3:
    tail = {0: [1, 2, 1], 1: [1], 2: [1, 2]}[n % 3]
  else:
    tail = [1] * order if n % order == 0 else [1]
  orders = whole * ((n - len(tail)) // order) + tail
  if c["final_sigmas_type"] == "zero":
    orders[-1] = 1
  return orders


def dpm_singlestep(n: Levels, frame: Frame, c: dict[str, Any], flow: bool = False) -> Table:
  """DPM-Solver and DPM-Solver++ with evaluations inside a step, which starts over from its anchor."""
  order, algorithm, steps = c["solver_order"], c["algorithm_type"], len(n.sigma) - 1
  lam, orders = _half_log_snr(n), singlestep_orders(c, steps)
  noisy = algorithm.startswith("sde")

  def step(i, slots, kept, noises):
    x, anchor, *past = slots
    m, k = [kept, *past], orders[i]
    anchor, j = (x, i) if k == 1 else (anchor, i - k + 1)
    w = dpm_weights(algorithm, n.a[j], n.s[j], n.a[i + 1], n.s[i + 1])
    new = w.x * anchor + w.value * m[k - 1]
    h = lam[i + 1] - lam[j]
    if k == 2:
      slope = (m[0] - m[1]) * h / (lam[i] - lam[j])
      new = new + (w.midpoint if c["solver_type"] == "midpoint" else w.slope) * slope
    if k == 3:
      r0, r1 = (lam[i] - lam[j]) / h, (lam[i - 1] - lam[j]) / h
      near, far = (m[1] - m[2]) / r1, (m[0] - m[2]) / r0
      if c["solver_type"] == "midpoint":
        new = new + w.slope * far
      else:
        slope, bend = (r0 * near - r1 * far) / (r0 - r1), 2 * (far - near) / (r0 - r1)
        new = new + w.slope * slope + w.curve * bend
    if noisy:
      new = new + w.noise * noises[0]
    return [new, anchor, *m[: order - 1]]

  done = [k == 1 for k in orders[1:]] + [True]
  wanted = "x0" if algorithm.endswith("++") else "eps"
  kept = _kept(n, frame, wanted, flow)
  claimed = min(order, 2) if noisy else order
  return frame.table(n, step, order + 1, claimed, kept=kept, noises=int(noisy), finishes=done)


def unipc(n: Levels, frame: Frame, c: dict[str, Any], flow: bool = False) -> Table:
  """UniPC: a predictor, and a corrector that the next row's evaluation completes (arXiv:2302.04867)."""
  order, steps, data = c["solver_order"], len(n.sigma) - 1, c["predict_x0"]
  lam = _half_log_snr(n)
  cap = [min(order, steps - i) if c["lower_order_final"] else order for i in range(steps)]
  if n.sigma[-1] == 0:
    cap[-1] = 1  # where h is infinite nothing else is finite
  orders = np.minimum(cap, np.arange(steps) + 1)

  def rule(i, p, ahead):
    """(factor of x, of D at the start, weights of the differences to it), for the step from node i."""
    h = (lam[i + 1] - lam[i]) * (-1 if data else 1)
    ratio, scale = (n.s[i + 1] / n.s[i], n.a[i + 1]) if data else (n.a[i + 1] / n.a[i], n.s[i + 1])
    if p == 1 and not ahead:
      return ratio, -scale * np.expm1(h), []
    size = h if c["solver_type"] == "bh1" else np.expm1(h)
    r = np.array([(lam[i - j] - lam[i]) / (lam[i + 1] - lam[i]) for j in range(1, p)] + [1.0])
    phi, factorial, b = np.expm1(h) / h - 1, 1, []
    for j in range(1, p + 1):
      b.append(phi * factorial / size)
      factorial *= j + 1
      phi = phi / h - 1 / factorial
    matrix = r ** np.arange(p)[:, None]
    if not ahead:
      matrix, b, r = matrix[:-1, :-1], b[:-1], r[:-1]
    rho = np.array([0.5]) if len(r) == 1 else np.linalg.solve(matrix, b)
    return ratio, -scale * np.expm1(h), -scale * size * rho / r

  def step(i, slots, kept, noises):
    x, carried, *past = slots
    if i > 0 and i - 1 not in c["disable_corrector"]:
      _, value, weights = rule(i - 1, orders[i - 1], True)
      others = [*past[1 : orders[i - 1]], kept]
      x = carried + value * past[0] + sum(w * (m - past[0]) for w, m in zip(weights, others))
    ratio, value, weights = rule(i, orders[i], False)
    new = ratio * x + value * kept + sum(w * (m - kept) for w, m in zip(weights, past))
    return [new, ratio * x, kept, *past[:-1]]

  kept = _kept(n, frame, "x0" if data else "eps", flow)
  return frame.table(n, step, order + 2, order + 1, kept=kept, moved=(1.0, 1.0))


def deis(n: Levels, frame: Frame, c: dict[str, Any], flow: bool = False) -> Table:
  """DEIS: eps interpolated in log rho and integrated in rho = s/a.

  Source: arXiv:2204.13902, rhoAB in the logarithm.
  """
  order, steps = c["solver_order"], len(n.sigma) - 1
  log = -_half_log_snr(n)
  lower = np.full(steps, order)
  if c["lower_order_final"] and steps < 15:
    lower[-2:] = np.minimum(order, [2, 1][-len(lower[-2:]) :])
  weights = history_weights(log, log, lambda u, end: np.exp(u), order, lower)

  def step(i, slots, eps, noises):
    x, *past = slots
    m = [eps, *past]
    new = n.a[i + 1] * (x / n.a[i] + sum(w[i] * e for w, e in zip(weights, m)))
    return [new, *m[: order - 1]]

  return frame.table(n, step, order, order, kept=_kept(n, frame, "eps", flow))


def sa_solver(n: Levels, frame: Frame, c: dict[str, Any], flow: bool = False) -> Table:
  """SA-Solver: stochastic Adams-Bashforth and -Moulton (arXiv:2309.05019).

  tau = 1 for 200 <= k <= 800.
  """
  predictor, corrector, steps = c["predictor_order"], c["corrector_order"], len(n.sigma) - 1
  data, lam = c["algorithm_type"] == "data_prediction", _half_log_snr(n)
  tau2 = ((n.fed >= 200) & (n.fed <= 800)).astype(np.float64)
  h, index = np.diff(lam), np.arange(steps)
  left = steps - index if c["lower_order_final"] else np.full(steps, 9)
  depth = max(predictor, corrector - 1)
  if data:
    density = lambda u, end: n.a[1:, None] * (1 + tau2[:, None]) * np.exp(-(1 + tau2[:, None]) * (end - u))
    noise, ratio = n.s[1:] * np.sqrt(-np.expm1(-2 * tau2 * h)), np.exp(-tau2 * h) * n.s[1:] / n.s[:-1]
  else:
    density = lambda u, end: -(1 + tau2[:, None]) * n.a[1:, None] * np.exp(-u)
    noise, ratio = np.sqrt(tau2) * n.s[1:] * np.sqrt(np.expm1(2 * h)), n.a[1:] / n.a[:-1]
  ahead = history_weights(lam, lam, density, predictor, left)
  # The corrector's newest point is the end of the step; it uses as many as `corrector` counts, that one
  # included.
  within = np.minimum(np.minimum(corrector, left + 1), index + 2)
  within[-1] = 1  # of the last step, which is never corrected and may have no length
  behind = _moulton(lam, density, within, corrector)
  if data:
    _bolder(ahead, np.minimum(np.minimum(predictor, left), index + 1), n, tau2, h, np.append(np.inf, h[:-1]))
    _bolder(behind, within, n, tau2, h, h)

  def step(i, slots, kept, noises):
    x, carried, *past = slots
    if i > 0:
      x = carried + behind[0][i - 1] * kept + sum(w[i - 1] * m for w, m in zip(behind[1:], past))
    m = [kept, *past]
    carried = ratio[i] * x + noise[i] * noises[0]
    return [carried + sum(w[i] * e for w, e in zip(ahead, m)), carried, *m[:-1]]

  kept = _kept(n, frame, "x0" if data else "eps", flow)
  return frame.table(n, step, 2 + depth, None, kept=kept, noises=1, moved=(1.0, 1.0))


def _moulton(lam, density, count, depth):
  """The corrector's weights: of D at the end of each step, at its start, before."""
  steps = len(lam) - 1
  u, w = quadrature(lam[:-1], lam[1:])
  points = [lam[np.maximum(np.arange(steps) + 1 - j, 0)] for j in range(depth)]
  usable = [count > j for j in range(depth)]
  return integrals(points, usable, u, w * density(u, lam[1:, None]), np)


def _bolder(weights, count, n, tau2, h, gap):
  """In rules of two evaluations: h^2/2 for the integral of the slope between them."""
  if len(weights) > 1:
    rate = 1 + tau2
    gap = np.where(count == 2, gap, 1.0)
    extra = n.a[1:] * rate * (h**2 / 2 - (h * rate - 1 + np.exp(-rate * h)) / rate**2)
    extra = np.where(count == 2, extra / gap, 0.0)
    weights[0] += extra
    weights[1] -= extra
