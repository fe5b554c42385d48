"""The steps of diffusers' schedulers that are of one history or none.

They are DDIM, DDPM, LCM, consistency, Euler, Heun, LMS, PNDM, iPNDM and flow matching.

Every function takes `Levels`, and a `Frame` with what the network says and what is built around the rows. a,
s are signal and noise scale, E is what a row keeps. Formulas are those of diffusers 0.42's `step`, in units
of x_t.
"""

import dataclasses
from typing import Any

import numpy as np

from diffusion.processes.views import VIEWS
from diffusion.solvers.about import About
from diffusion.solvers.diffusers.clipped import ddim_noise
from diffusion.solvers.diffusers.levels import Levels
from diffusion.solvers.linear_steps import linear_steps
from diffusion.solvers.multistep import integrals, quadrature
from diffusion.solvers.pndm import ADAMS
from diffusion.solvers.table import Table


@dataclasses.dataclass(frozen=True)
class Frame:
  """What all tables of one config share.

  Attributes:
    view: what the network is asked for.
    name: of the table.
    dtype: precision at run time.
  """

  view: str
  name: str
  dtype: Any

  def kept(self, wanted: str, a: np.ndarray, s: np.ndarray, flow: bool = False) -> tuple[Any, Any]:
    """(g, h), each [N], of `wanted` = g u + h D at scales a, s [N]; `flow` for alpha = 1 - t."""
    slopes = (-1.0, 1.0, 2 * s) if flow else (np.nan, np.nan, np.nan)
    if wanted == self.view:
      return 0.0, 1.0
    return VIEWS[self.view][wanted](a, s, *slopes)

  def table(self, levels: Levels, step: Any, slots: int, order: int | None, **options: Any) -> Table:
    """The table of a rule, at the levels' own times unless `t` says otherwise."""
    t = options.pop("t", levels.t)
    about = About(self.name, order, levels.process)
    start = options.pop("start", (levels.start,))
    return linear_steps(t, step, slots, start=start, view=self.view, about=about, dtype=self.dtype, **options)


def ddim(n: Levels, frame: Frame, eta: float) -> Table:
  """x' = a' x0 + sqrt(s'^2 - d^2) eps + d z with d = eta (s'/s) sqrt(1 - a^2/a'^2)."""
  a, s, a1, s1 = n.a[:-1], n.s[:-1], n.a1, n.s1
  deviation = ddim_noise(n, eta)
  along = np.sqrt(s1**2 - deviation**2)

  def step(i, slots, x0, noises):
    x = a1[i] * x0 + along[i] / s[i] * (slots[0] - a[i] * x0)
    return [x + deviation[i] * noises[0] if eta else x]

  return frame.table(n, step, 1, 1, kept=frame.kept("x0", a, s), noises=int(eta > 0))


def ddpm(n: Levels, frame: Frame, variance: str) -> Table:
  """DDPM's ancestral step: the posterior mean of x' given x and x0, and a noise.

  The noise has variance 'fixed_small' (the posterior's) or 'fixed_large' (beta), and there is none in the
  step from k = 0.
  """
  a, s, a1, s1 = n.a[:-1], n.s[:-1], n.a1, n.s1
  alpha = (a / a1) ** 2
  large = 1 - alpha
  small = np.maximum(s1**2 / s**2 * large, 1e-20)
  deviation = np.sqrt(large if variance == "fixed_large" else small) * (n.fed > 0)

  def step(i, slots, x0, noises):
    mean = a1[i] * large[i] / s[i] ** 2 * x0 + np.sqrt(alpha[i]) * (s1[i] / s[i]) ** 2 * slots[0]
    return [mean + deviation[i] * noises[0]]

  return frame.table(n, step, 1, 1, kept=frame.kept("x0", a, s), noises=1)


def lcm(n: Levels, frame: Frame, scaling: float) -> Table:
  """LCM's step: the consistency function c_skip x + c_out x0, noised to the next level (arXiv:2310.04378).

  The last step returns it as it is.
  """
  a, s = n.a[:-1], n.s[:-1]
  scaled = n.fed * scaling
  skip, out = 0.25 / (scaled**2 + 0.25), scaled / np.sqrt(scaled**2 + 0.25)

  def step(i, slots, x0, noises):
    x = out[i] * x0 + skip[i] * slots[0]
    return [n.a[i + 1] * x + n.s[i + 1] * noises[0]]

  return frame.table(n, step, 1, None, kept=frame.kept("x0", a, s), noises=1)


def consistency(n: Levels, frame: Frame, noise: float) -> Table:
  """Multistep consistency sampling (arXiv:2303.01469, algorithm 1).

  x' = f(x) + sqrt(sigma'^2 - sigma_min^2) z, f the consistency function, which the network answers as x0.
  """
  many = len(n.sigma) > 2
  lift = noise * np.sqrt(np.maximum(n.sigma[1:] ** 2 - n.sigma[-1] ** 2, 0.0)) * many
  step = lambda i, slots, x0, noises: [x0 + lift[i] * noises[0]] if many else [x0]
  return frame.table(n, step, 1, None, noises=int(many))


def euler(n: Levels, frame: Frame) -> Table:
  """x'/a' = x/a + (sigma' - sigma) eps."""
  a, s = n.a[:-1], n.s[:-1]
  step = lambda i, slots, eps, noises: [n.a[i + 1] * (slots[0] / a[i] + (n.sigma[i + 1] - n.sigma[i]) * eps)]
  return frame.table(n, step, 1, 1, kept=frame.kept("eps", a, s))


def euler_to_data(n: Levels, frame: Frame) -> Table:
  """Euler's step on sigma = t for a network that answers x0."""
  ratio = n.sigma[1:] / n.sigma[:-1]
  return frame.table(n, lambda i, slots, x0, noises: [ratio[i] * slots[0] + (1 - ratio[i]) * x0], 1, 1)


def euler_ancestral(n: Levels, frame: Frame) -> Table:
  """Euler's step to sigma_down, then noise sigma_up, with sigma_up^2 = sigma'^2 (1 - sigma'^2/sigma^2)."""
  a, s, end = n.a[:-1], n.s[:-1], n.sigma[1:]
  up = end * np.sqrt(1 - (end / n.sigma[:-1]) ** 2)
  down = np.sqrt(end**2 - up**2)
  step = lambda i, slots, eps, noises: [
    n.a[i + 1] * (slots[0] / a[i] + (down[i] - n.sigma[i]) * eps + up[i] * noises[0])
  ]
  return frame.table(n, step, 1, 1, kept=frame.kept("eps", a, s), noises=1)


def heun(n: Levels, frame: Frame) -> Table:
  """Euler's step, then the mean of both slopes; the last step is Euler's: 2n - 1 evaluations."""
  steps = len(n.sigma) - 1
  node = np.append(np.repeat(np.arange(steps - 1), 2), steps - 1)
  here = node + np.append(np.tile([0, 1], steps - 1), 0)

  def step(i, slots, eps, noises):
    j, (x, half) = node[i], slots
    dt, a1 = n.sigma[j + 1] - n.sigma[j], n.a[j + 1]
    if here[i] > j:
      return [half + a1 * dt / 2 * eps, 0 * half]
    base = x / n.a[j]
    return [a1 * (base + dt * eps), a1 * (base + dt / 2 * eps)]

  done = np.append(np.tile([False, True], steps - 1), True)
  kept = frame.kept("eps", n.a[here], n.s[here])
  return frame.table(n, step, 2, 2, t=np.append(n.t[here], n.t[-1]), kept=kept, finishes=done)


def lms(n: Levels, frame: Frame, order: int = 4) -> Table:
  """x'/a' = x/a + sum_j c_j eps_j, c_j the integrals of Lagrange polynomials in sigma."""
  weights = history_weights(n.sigma, n.sigma, lambda u, at: np.ones_like(u), order)

  def step(i, slots, eps, noises):
    past = [eps, *slots[1:]]
    x = slots[0] / n.a[i] + sum(w[i] * p for w, p in zip(weights, past))
    return [n.a[i + 1] * x, *past[:-1]]

  return frame.table(n, step, order, order, kept=frame.kept("eps", n.a[:-1], n.s[:-1]))


def history_weights(
  clock: np.ndarray, nodes: np.ndarray, density: Any, depth: int, lower: Any = None
) -> list:
  """Integrals over each step of the Lagrange polynomials through past nodes: list of `depth` arrays [n].

  Args:
    clock: [n+1] the variable of integration and of the polynomials at the levels.
    nodes: [n+1] the same, where evaluations were made.
    density: (u [n, q], end [n, 1]) -> the factor of the integrand.
    depth: how many evaluations are used, once there are so many.
    lower: [n] how many at most in each step.
  """
  steps = len(clock) - 1
  u, w = quadrature(clock[:-1], clock[1:])
  count = np.minimum(np.arange(steps) + 1, depth if lower is None else np.minimum(lower, depth))
  points = [nodes[np.maximum(np.arange(steps) - j, 0)] for j in range(depth)]
  usable = [count > j for j in range(depth)]
  return integrals(points, usable, u, w * density(u, clock[1:, None]), np)


def pndm(n: Levels, frame: Frame, warm: int) -> Table:
  """Pseudo Runge-Kutta steps, then the fourth-order rule (arXiv:2202.09778).

  What is combined is the network's own output, and the step converts it at its start. Without a warm-up of
  `warm` rows the first step is taken twice, the second time along the mean of the outputs at both its ends.
  """

  def move(i, x, out):
    a, s, a1, s1 = n.a[i], n.s[i], n.a1[i], n.s1[i]
    eps = out if frame.view == "eps" else a * out + s * x
    return a1 / a * x + (s1 - s * a1 / a) * eps

  def runge_kutta(i, slots, out):
    x, anchor, total, *past = slots
    if i % 4 == 0:
      return [move(i, x, out), x, total + out / 6, out, *past[:-1]]
    if i % 4 == 3:
      return [move(i, anchor, total + out / 6), anchor, 0 * total, *past]
    return [move(i, anchor, out), anchor, total + out / 3, *past]

  def step(i, slots, out, noises):
    if i < warm:
      return runge_kutta(i, slots, out)
    x, anchor, total, *past = slots
    if warm == 0 and i == 1:
      return [move(i, anchor, (out + past[0]) / 2), anchor, total, *past]
    history = [out, *past]
    rule = sum(c * e for c, e in zip(ADAMS[4 if warm else min(max(i, 1), 4)], history))
    return [move(i, x, rule), x, total, *history[:-1]]

  done = [i % 4 == 3 if i < warm else bool(warm) or i > 0 for i in range(len(n.fed))]
  return frame.table(n, step, 6, 2, finishes=done)


def ipndm(n: Levels, frame: Frame) -> Table:
  """iPNDM: DDIM's step along Adams-Bashforth's rule for equal steps.

  From alpha = 0, where eps = x, it keeps the noise alone.
  """

  def step(i, slots, eps, noises):
    x, *past = slots
    history = [eps, *past]
    if n.a[i] < 1e-8:
      return [n.s[i + 1] * x, x, *past[:-1]]
    rule = sum(c * e for c, e in zip(ADAMS[min(i + 1, 4)], history))
    return [n.a[i + 1] / n.a[i] * (x - n.s[i] * rule) + n.s[i + 1] * rule, *history[:-1]]

  return frame.table(n, step, 4, 2, kept=frame.kept("eps", n.a[:-1], n.s[:-1]))


def flow_euler(n: Levels, frame: Frame, stochastic: bool) -> Table:
  """x' = x + (t' - t) v, or with fresh noise (1 - t') (x - t v) + t' z."""
  t, t1 = n.sigma[:-1], n.sigma[1:]

  def step(i, slots, v, noises):
    if stochastic:
      return [(1 - t1[i]) * (slots[0] - t[i] * v) + t1[i] * noises[0]]
    return [slots[0] + (t1[i] - t[i]) * v]

  return frame.table(n, step, 1, 1, noises=int(stochastic))


def flow_heun(n: Levels, frame: Frame) -> Table:
  """Heun's method on v; the last step is Euler's."""
  steps = len(n.sigma) - 1
  node = np.append(np.repeat(np.arange(steps - 1), 2), steps - 1)
  here = node + np.append(np.tile([0, 1], steps - 1), 0)

  def step(i, slots, v, noises):
    j, (x, half) = node[i], slots
    dt = n.sigma[j + 1] - n.sigma[j]
    return [half + dt / 2 * v, 0 * half] if here[i] > j else [x + dt * v, x + dt / 2 * v]

  done = np.append(np.tile([False, True], steps - 1), True)
  return frame.table(n, step, 2, 2, t=np.append(n.t[here], n.t[-1]), finishes=done)
