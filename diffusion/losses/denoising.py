"""Denoising score matching."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from diffusion.losses.base import Draw, Objective, Placed, example_keys, split_keys, terms
from diffusion.losses.weights import VIEWS, noise_scale
from diffusion.math.precision import at_least_single, sum_rows
from diffusion.processes.base import expand
from diffusion.processes.contract import is_gaussian


def denoising_score_matching(
  process: Any, target: str = "eps", *, per_dimension: bool = False, variance_reduced: bool = False
) -> Objective:
  """Denoising score matching: the squared error of the denoiser in units of eps, summed over dimensions.

  Sources: arXiv:1907.05600; arXiv:2011.13456, eq. 7.

  The value is ||eps - eps_hat||^2 whatever `target` is: 'eps', 'x0', 'score', 'v' or 'velocity' names the
  view in which the residual is taken (the network's own view loses no digits), and the residual is then
  scaled to eps. For the plain squared error of a view, chain `weight_by(native(view))`.

  batch: a dict with 'x' [B, ...] and, if conditional, 'cond'. `per_dimension` divides by the number of
  dimensions. `variance_reduced` adds 2 eps_hat(alpha x0) . eps + D - ||eps||^2, whose mean is zero, for a
  second evaluation at the point without noise (arXiv:2111.04726): where the noise is small, nearly all of the
  gradient's own noise goes. Raises ValueError for an unknown target or a batch without 'x'.

  >>> from diffusion import losses, processes
  >>> dsm = losses.denoising_score_matching(processes.rectified_flow(), target="velocity")
  >>> sorted(dsm.needs["model"])
  ['velocity']
  """
  name = "denoising_score_matching"
  if target not in VIEWS:
    raise ValueError(f"{name} has no target {target!r}: choose one of {', '.join(VIEWS)}")
  check_gaussian(process, name)

  def draw(key, batch, t, state):
    del state
    if not isinstance(batch, dict) or "x" not in batch:
      raise ValueError(
        f"{name} takes a batch that is a dict with 'x' [B, ...], got "
        f"{sorted(batch) if isinstance(batch, dict) else type(batch).__name__}"
      )
    x0 = batch["x"]
    network_key, key = jax.random.split(key)
    noise_keys, keys = split_keys(example_keys(key, batch), 2)
    noise = process.noise(noise_keys, x0)
    return Draw(t=t, x0=x0, noise=noise, cond=batch.get("cond"), keys=keys, key=network_key)

  def evaluate(roles, placed, params, state, clock):
    prediction = roles["model"](placed.x_t, placed.t, placed.cond, views=(target,), key=placed.key)
    error = residual(process, target, prediction[target], placed)
    square = sum_rows(jnp.square(error))
    if variance_reduced:
      square = square + control(process, roles, placed)
    mean = square / error[0].size
    collections = None if prediction.collections is None else {"model": prediction.collections}
    return terms(mean if per_dimension else square, metrics={"eps_mse": mean}, collections=collections)

  return Objective(
    name=name,
    draw=draw,
    evaluate=evaluate,
    process=process,
    needs={"model": dict.fromkeys((target, "eps") if variance_reduced else (target,), name)},
  )


def check_gaussian(process: Any, who: str) -> None:
  """Raises ValueError for what is no Gaussian process."""
  if not is_gaussian(process):
    raise ValueError(
      f"{who} needs a Gaussian process such as processes.vp_linear(), got {type(process).__name__}"
    )


def control(process: Any, roles: Mapping[str, Any], placed: Placed) -> jax.Array:
  """The control variate 2 eps_hat(alpha x0) . eps + D - ||eps||^2, [B].

  Its mean is zero. It is what the squared error varies with where x_t is near alpha x0.
  """
  still = process.corrupt(placed.x0, jnp.zeros_like(placed.noise), placed.t).astype(placed.x_t.dtype)
  predicted = roles["model"](still, placed.t, placed.cond, views=("eps",), key=placed.key).eps
  wide = at_least_single(predicted.dtype)
  predicted, eps = predicted.astype(wide), placed.noise.astype(wide)
  return sum_rows(2.0 * predicted * eps + 1.0 - jnp.square(eps))


def residual(process: Any, view: str, predicted: jax.Array, draw: Placed) -> Any:
  """The error of a predicted view, scaled to eps units, up to its sign.

  The view [B, ...] is held against the draw's x0 and eps.
  """
  wide = at_least_single(predicted.dtype)
  predicted, x0, eps = (value.astype(wide) for value in (predicted, draw.x0, draw.noise))
  factor = expand(noise_scale(process, draw.t, view).astype(wide), x0)
  if view == "eps":
    return predicted - eps
  if view == "score":
    # sigma s + eps: the target -eps/sigma is never formed.
    return factor * predicted + eps
  if view == "x0":
    return factor * (predicted - x0)
  m = process.marginal(draw.t)
  alpha, sigma, d_alpha, d_sigma = (
    expand(value.astype(wide), x0) for value in (m.alpha, m.sigma, m.d_alpha, m.d_sigma)
  )
  target = alpha * eps - sigma * x0 if view == "v" else d_alpha * x0 + d_sigma * eps
  return factor * (predicted - target)
