"""The time score and the data score learned together, on one draw and with one weight."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from diffusion.losses.base import Objective, split_keys
from diffusion.losses.directions import random_directions
from diffusion.losses.time_score import make_weighting, path_of, time_score_matching
from diffusion.losses.time_weights import LossHistory
from diffusion.math.precision import at_least_single, sum_rows
from diffusion.processes.base import expand

DATA_TERMS = ("sliced", "denoising", "exact")


def joint_score_matching(
  path: Any,
  data: str = "sliced",
  *,
  balance: tuple[float, float] = (1.0, 1.0),
  weight: Callable[[Any, Any], Any] | None = None,
  history: LossHistory | None = None,
  t_min: Any = None,
  t_max: Any = None,
) -> Objective:
  """Joint score matching: time score matching plus score matching of x.

  Both are times the same weight w (arXiv:2111.11010, eq. 13).

  The data term is, in expectation and up to a constant, w ||score - grad log p_t||^2:

    sliced     w (||s||^2 + 2 v^T (ds/dx) v), v of random signs (arXiv:1905.07088, eq. 8, the square exact)
    exact      w (||s||^2 + 2 tr ds/dx), D forward passes
    denoising  w ||s + eps/sigma||^2, of a path with noise; minus nothing, so it is never below zero

  Args:
    path, weight, history, t_min, t_max: those of `time_score_matching`.
    data: 'sliced', 'denoising' or 'exact'.
    balance: factors of the time term and of the data term.

  Fields needed: 'time_score' and 'score' of the model; `denoisers.together` joins two networks.

  Raises:
    ValueError: another data term, or 'denoising' on a path without Gaussian noise in x_t.

  >>> from diffusion import losses, processes
  >>> sorted(losses.joint_score_matching(processes.spherical(), "denoising").needs["model"])
  ['score', 'time_score']
  """
  name = "joint_score_matching"
  if data not in DATA_TERMS:
    raise ValueError(f"{name} has no data term {data!r}: choose one of {', '.join(DATA_TERMS)}")
  objective = time_score_matching(path, weight=weight, history=history, t_min=t_min, t_max=t_max)
  weighting = make_weighting(path, weight, history, t_min, t_max, name)
  walk = path_of(path)
  if data == "denoising":
    middle = 0.5 * (float(weighting.path.t_min) + float(weighting.path.t_max))
    if walk.decode is not None or not float(walk.blend(middle).variance) > 0:
      raise ValueError(
        f"{name}: x_t on {walk.name} has no Gaussian noise of its own to denoise: use data='sliced', or a "
        "path with "
        "a standard normal end or a bridge"
      )

  def evaluate(roles, placed, params, state, clock):
    terms = objective.evaluate(roles, placed, params, state, clock)
    factor = weighting(placed.t, state)[0]
    score = lambda x: roles["model"](x, placed.t, placed.cond, views=("score",)).score
    if data == "denoising":
      value = score(placed.x_t)
      value = value.astype(at_least_single(value.dtype))
      sigma = jnp.sqrt(jnp.maximum(walk.blend(placed.t).variance, jnp.finfo(placed.t.dtype).tiny)).astype(
        value.dtype
      )
      # w / sigma^2 times the square of sigma s + eps: nothing is divided by a small sigma but the weight.
      error = expand(sigma, value) * value + placed.noise.astype(value.dtype)
      term = factor.astype(value.dtype) / jnp.square(sigma) * sum_rows(jnp.square(error))
    else:
      square, divergence = _square_and_divergence(score, placed, exact=data == "exact")
      term = factor.astype(square.dtype) * (square + 2.0 * divergence)
    time, data_factor = balance
    return terms.replace(
      interior=time * terms.interior + data_factor * term,
      boundary=time * terms.boundary,
      metrics={**terms.metrics, "data_score": term},
    )

  def draw_with_signs(key, batch, t, state):
    drawn = objective.draw(key, batch, t, state)
    own, keys = split_keys(drawn.keys, 2)
    like = drawn.x1 if drawn.x0 is None else drawn.x0
    shape, dtype = (1, *like.shape[1:]), like.dtype
    signs = jax.vmap(lambda k: random_directions(k, shape, "rademacher", dtype))(own)
    return drawn.replace(keys=keys, targets={**drawn.targets, "direction": signs})

  return objective.replace(
    name=name,
    evaluate=evaluate,
    draw=draw_with_signs if data == "sliced" else objective.draw,
    needs={"model": {"time_score": name, "score": name}},
  )


def _square_and_divergence(score, placed, exact):
  """(||s||^2, its divergence or an estimate of it), both [B]."""
  if not exact:
    signs = placed.targets["direction"][:, 0]
    value, push = jax.jvp(score, (placed.x_t,), (signs,))
    return sum_rows(jnp.square(value)), sum_rows(signs * push)
  value, linear = jax.linearize(score, placed.x_t)
  flat = value[0].size
  units = jnp.eye(flat, dtype=placed.x_t.dtype).reshape(flat, *placed.x_t.shape[1:])

  def along(total, unit):
    return total + sum_rows(unit[None] * linear(jnp.broadcast_to(unit[None], placed.x_t.shape))), None

  divergence, _ = jax.lax.scan(along, jnp.zeros_like(sum_rows(value)), units)
  return sum_rows(jnp.square(value)), divergence
