"""DPM-Solver with steps sized by its error: DPM-Solver-12 and DPM-Solver-23."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffusion.processes import expand
from diffusion.solvers import adaptive


def dpm_solver_adaptive(
  process: Any,
  *,
  order: int = 3,
  prediction: str = "x0",
  rtol: float = 0.05,
  atol: float = 0.0078,
  h_init: float = 0.05,
  h_max: float = np.inf,
  safety: float = 0.9,
  t_max: float | None = None,
  t_min: float | None = None,
  denoise: bool = True,
  max_steps: int = 1000,
) -> adaptive.Adaptive:
  """DPM-Solver-12 or -23: adaptive steps in log(alpha/sigma) (arXiv:2206.00927, appendix C).

  The two orders of a step differ by less than a tolerance. A step of order 2 (3) is kept if it differs from
  the one of order 1 (2) inside it by less than max(atol, rtol |x|), root mean square over a sample; the next
  is safety * E^(-1/order) times as long. Each sample has its own steps. An attempt costs `order` evaluations.
  The error at the end is proportional to the tolerances and the number of evaluations to
  tolerance^(-1/order). The constants are the paper's, for data in [-1, 1]. Tolerances are for x over
  sqrt(alpha^2 + sigma^2), so they mean the same on every process. Not differentiable backwards: it runs as a
  `while_loop`.

  Args:
    process: the Gaussian process.
    order: 2 or 3, the order of the result.
    prediction: 'x0' (DPM-Solver++'s form of the same methods) or 'eps' (the paper's). In eps the two orders
      can agree by accident over a long step: on a Gaussian at tolerance 1e-3 errors of 2e-2 were seen,
      against 3e-4 in x0.
    rtol, atol: tolerances.
    h_init, h_max: first and longest step in log(alpha/sigma).
    safety: factor of the next step.
    t_max, t_min: ends; the process's own by default.
    denoise: whether to return the posterior mean at t_min (one more evaluation), which is data without noise;
      else x at t_min.
    max_steps: attempts after which `sample` raises an error.

  Raises:
    TypeError: a process without log-SNR.
    ValueError: another order or prediction, a tolerance that is not positive, bad ends.

  >>> from diffusion import oracles, processes, solvers
  >>> process = processes.vp_linear()
  >>> oracle = oracles.gaussian(process, [0.5], [0.1])
  >>> solver = solvers.dpm_solver_adaptive(process, rtol=1e-3, atol=1e-3, denoise=False)
  >>> x, evaluations = solvers.sample(oracle, solver, jnp.ones((2, 1)), evaluations=True)
  >>> exact = oracle.flow(jnp.ones((2, 1)), jnp.ones(2), jnp.full(2, process.t_min))
  >>> bool(abs(x - exact).max() < 1e-3), evaluations.tolist()[0] % 3
  (True, 0)
  """
  if (order, prediction) not in PAIRS:
    raise ValueError(
      f"order is 2 or 3 and prediction 'eps' or 'x0', got order={order} and prediction={prediction!r}"
    )
  name = f"dpm_solver_adaptive({order - 1}{order}{'' if prediction == 'x0' else ', eps'})"
  steps: dict[str, Any] = dict(
    rtol=rtol, atol=atol, h_init=h_init, h_max=h_max, safety=safety, max_steps=max_steps
  )
  return adaptive.build(
    process, PAIRS[order, prediction], name, order, t_max=t_max, t_min=t_min, denoise=denoise, **steps
  )


def phi(k: int, z: jax.Array) -> jax.Array:
  """phi_1(z) = (e^z - 1)/z and phi_2(z) = (phi_1 - 1)/z, by their series where the formulas cancel."""
  near = abs(z) < 0.02
  safe = jnp.where(near, 1.0, z).astype(z.dtype)
  value, term, series = jnp.expm1(safe) / safe, jnp.ones_like(z), jnp.zeros_like(z)
  if k == 2:
    value = (value - 1) / safe
  factorial = float(k)
  for j in range(6):  # sum z^j / (j + k)!
    series = series + term / factorial
    term, factorial = term * z, factorial * (j + k + 1)
  return jnp.where(near, series, value)


def _update(prediction, here, there, u, weights, values):
  """One step of u from noise or data predictions.

  u' = (a'/a) u - s' sum w_j eps_j, or (s'/s) u + a' sum w_j D_j. The weights are of integrals over the step.
  """
  ratio, gain = (there.a / here.a, -there.s) if prediction == "eps" else (there.s / here.s, there.a)
  total = expand(ratio, u) * u
  for weight, value in zip(weights, values):
    total = total + expand(gain * weight, u) * value
  return total


def _pair(order: int, prediction: str) -> adaptive.Pair:
  first = 1 / 2 if order == 2 else 1 / 3
  sign = 1 if prediction == "eps" else -1

  def update(step, at, weights, values):
    return _update(prediction, step.node(step.clock), step.node(at), step.u, weights, values)

  def inner(step, seen):
    at = step.clock + first * step.h
    return at, update(step, at, [first * step.h * phi(1, first * sign * step.h)], seen)

  def later(step, seen):
    h, z, at = step.h, sign * step.h, step.clock + 2 / 3 * step.h
    bent = 2 / 3 * h * phi(2, 2 / 3 * z) * 2  # r2^2 / r1 phi_2 = r2 (r2 / r1) phi_2
    return at, update(step, at, [2 / 3 * h * phi(1, 2 / 3 * z) - bent, bent], seen)

  def results(step, seen):
    h, z, at = step.h, sign * step.h, step.clock + step.h
    whole = h * phi(1, z)
    slope = whole / (2 * first)
    second = update(step, at, [whole - slope, slope], seen[:2])
    gain = -step.node(at).s if prediction == "eps" else step.node(at).a
    times = lambda weight, value: expand(gain * weight, step.u) * value
    bend = times(slope, seen[1] - seen[0])
    if order == 2:
      return update(step, at, [whole], seen[:1]), second, bend
    end = h * phi(2, z) * 3 / 2
    third = update(step, at, [whole - end, end], [seen[0], seen[2]])
    return second, third, times(end, seen[2] - seen[0]) - bend

  return adaptive.Pair((inner, later)[: order - 1], results, prediction, 1 / order)


PAIRS = {(order, prediction): _pair(order, prediction) for order in (2, 3) for prediction in ("eps", "x0")}
