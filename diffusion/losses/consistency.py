"""Consistency: one step from any noise level to the data, learned from two points of one path."""

from typing import Any

import jax
import jax.numpy as jnp

from diffusion.losses.base import Objective, terms
from diffusion.losses.denoising import check_gaussian, denoising_score_matching
from diffusion.math.precision import at_least_single, sum_rows
from diffusion.processes.base import expand


def consistency(
  process: Any, *, halving_steps: int = 1000, first: float = 0.5, last: float = 2.0**-8
) -> Objective:
  """The consistency loss: the squared difference of the consistency function at two levels of one path.

  Source: arXiv:2303.01469, eq. 10; the levels are as in arXiv:2406.14548, section 3.

  f(x, t) is a DDIM step of the model from t to t_min, so that f(x, t_min) = x whatever the model says. The
  value is |f(x_t, t) - f_target(x_r, r)|^2 / (1 - r/t) per example for x_t and x_r with the same data and
  noise, where the level (sigma/alpha) of r is 1 - gap times that of t, and the gap is halved every
  `halving_steps` updates, from `first` down to `last`. The role 'target' is an average of the model:
  roles=dict(target=dict(average_of='model', decay=0.99)), or decay=0.0 for the model itself without its
  gradient.

  At the exact f (the end of the probability flow) and its exact target the gradient vanishes with the
  square of the gap; a target that is the model's own gathers that over 1/gap levels, so the bias is of
  first order.

  Args:
    process: a Gaussian process with noise at t_min.
    halving_steps: updates between halvings of the gap, by the clock of its player.
    first, last: the largest and the smallest gap, 0 < last <= first < 1.

  batch: a dict with 'x' [B, ...] and, if conditional, 'cond'. Raises ValueError for what is no Gaussian
  process, gaps out of range, and halving_steps below one.

  >>> from diffusion import losses, processes
  >>> ct = losses.consistency(processes.edm())
  >>> sorted(ct.needs), ct.bias_order
  (['model', 'target'], 1)
  """
  name = "consistency"
  check_gaussian(process, name)
  if not 0 < last <= first < 1:
    raise ValueError(
      f"{name} takes gaps 0 < last <= first < 1, as shares of a noise level, got first={first}, last={last}"
    )
  if not isinstance(halving_steps, int) or halving_steps < 1:
    raise ValueError(f"{name} halves its gap every halving_steps=1 or more updates, got {halving_steps!r}")

  def evaluate(roles, placed, params, state, clock):
    t = placed.t
    halved = jnp.floor_divide(jnp.asarray(clock.step), halving_steps).astype(t.dtype)
    gap = jnp.maximum(first * jnp.exp2(-halved), last)
    lowest = process.level(jnp.full_like(t, process.t_min))
    level = process.level(t)
    below = jnp.maximum((1.0 - gap) * level, lowest)
    r = jnp.clip(process.t_of_level(below), process.t_min, t)
    x_r = process.corrupt(placed.x0, placed.noise, r).astype(placed.x_t.dtype)
    prediction = roles["model"](placed.x_t, t, placed.cond, views=("x0",), key=placed.key)
    end = to_the_data(process, prediction.x0, placed.x_t, t)
    aim = to_the_data(process, roles["target"](x_r, r, placed.cond, views=("x0",), train=False).x0, x_r, r)
    square = sum_rows(jnp.square(end - jax.lax.stop_gradient(aim)))
    share = jnp.maximum(1.0 - below / level, 1e-6).astype(square.dtype)
    collections = None if prediction.collections is None else {"model": prediction.collections}
    return terms(square / share, metrics={"gap": jnp.broadcast_to(gap, t.shape)}, collections=collections)

  needs = {"model": {"x0": name}, "target": {"x0": name}}
  draw = denoising_score_matching(process).draw
  return Objective(
    name=name, draw=draw, evaluate=evaluate, process=process, needs=needs, bias_order=1, denoises=False
  )


def to_the_data(process: Any, x0: jax.Array, x_t: jax.Array, t: jax.Array) -> Any:
  """A DDIM step from t to t_min with the prediction x0 [B, ...]: x_t itself at t = t_min.

  alpha' x0 + sigma' (x_t - alpha x0) / sigma with the primes at t_min (arXiv:2010.02502, eq. 12).

  >>> from diffusion import processes
  >>> p = processes.edm(sigma_min=0.5)
  >>> to_the_data(p, jnp.zeros((1, 1)), jnp.ones((1, 1)), jnp.full(1, 2.0)).tolist()
  [[0.25]]
  """
  wide = at_least_single(x0.dtype)
  m, end = process.marginal(t), process.marginal(jnp.full_like(t, process.t_min))
  keep = (end.sigma / m.sigma).astype(wide)
  pull = end.alpha.astype(wide) - keep * m.alpha.astype(wide)
  return expand(pull, x0) * x0.astype(wide) + expand(keep, x_t) * x_t.astype(wide)
