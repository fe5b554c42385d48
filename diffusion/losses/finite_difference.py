"""Sliced and denoising score matching by finite differences.

It is score matching from values of the energy alone.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffusion.losses.base import Objective, Placed, terms
from diffusion.losses.directions import noise_level, predicted_noise, with_directions
from diffusion.losses.exact import matching_terms
from diffusion.losses.sliced import mean_projection, projections
from diffusion.math import directional
from diffusion.math.precision import at_least_single, sum_rows
from diffusion.processes.base import expand

SOURCES = ("energy", "score")


def finite_difference_sliced_score_matching(
  process: Any = None,
  *,
  step: float = 0.1,
  view: str = "energy",
  directions: str = "sphere",
  num_slices: int = 1,
) -> Objective:
  """Finite-difference sliced score matching (FD-SSM), with no derivative in x.

  It is `sliced_score_matching` from three energies, or from two scores (arXiv:2007.03317).

  With u of length step sigma(t) along v and f = -energy, the value is sigma^2 times twice the paper's
  objective

      D / step^2 [ (f(x+u) - f(x-u))^2 / 8 + f(x+u) + f(x-u) - 2 f(x) ]   (u in units of sigma),

  plus D, so it is comparable with every other form of score matching here; on clean data (process=None) u has
  length `step` itself, and D is left out. view='score' takes ||(s(x+u) + s(x-u)) / 2||^2 for the square
  (FD-SSM-VR).

  The bias is O(step^2), and it is nought where f is quadratic. In float32 the rounding of f leaves an error
  of about D eps_machine |f| / step^2 in the value: a step below 0.05 is rarely wise, and in many dimensions
  (every coordinate moves by step / sqrt(D)) larger ones are. The energy has to be smooth: a ReLU network has
  no second derivative.

  batch: a dict with 'x' [B, ...]; needs `energy` or `score`. Raises ValueError for a step that is not
  positive, another `view`, other directions, or what is no process.

  >>> from diffusion import losses, processes
  >>> fd = losses.finite_difference_sliced_score_matching(processes.edm())
  >>> sorted(fd.needs["model"]), fd.bias_order
  (['energy'], 2)
  """
  name = "finite_difference_sliced_score_matching"
  check_step(step, name)
  if view not in SOURCES:
    raise ValueError(f"{name} takes no differences of the view {view!r}: choose one of {', '.join(SOURCES)}")
  draw = with_directions(process, name, directions, num_slices)

  def of_energy(roles, placed, params, state, clock):
    _, slope, curvature = along_energy(process, roles, placed, 2, step)
    return matching_terms(process, placed, jnp.mean(jnp.square(slope), axis=1), jnp.mean(curvature, axis=1))

  def of_score(roles, placed, params, state, clock):
    x, v = placed.x_t, placed.targets["direction"]
    function = predicted_noise(process, roles, placed)
    sigma = expand(noise_level(process, placed), x)
    # One interval of two steps: the mean of its ends is the value, their difference the slope.
    along = lambda v: directional.differences(
      lambda x: function(x)[0], x, sigma * v, 1, step=2.0 * unit_step(step, x)
    )
    mean, slopes = jax.vmap(along, in_axes=1, out_axes=1)(v)
    square = jnp.mean(jax.vmap(sum_rows, in_axes=1, out_axes=1)(jnp.square(mean)), axis=1)
    return matching_terms(process, placed, square, mean_projection(v, slopes))

  return Objective(
    name=name,
    draw=draw,
    evaluate=of_energy if view == "energy" else of_score,
    process=process,
    needs={"model": {view: name}},
    bias_order=2,
  )


def finite_difference_denoising_score_matching(
  process: Any, *, step: float = 0.1, directions: str = "sphere", num_slices: int = 1
) -> Objective:
  """FD-DSM: `denoising_score_matching` along random directions, from two energies (arXiv:2007.03317).

  With u of length step sigma(t), e = u / sigma and f = -energy, the value in units of eps is

      D / step^2 [ (f(x_t+u) - f(x_t-u)) / 2 + e . eps ]^2,

  and its expectation that of ||eps - eps_hat||^2 up to a bias of O(step^2), nought where f is at most of
  degree two. It acts on noisy x_t alone: at clean points there is no noise to regress on.

  batch: a dict with 'x' [B, ...]; needs `energy`. Raises ValueError for a step that is not positive, other
  directions, or what is no process.

  >>> from diffusion import losses, processes
  >>> losses.finite_difference_denoising_score_matching(processes.edm()).bias_order
  2
  """
  name = "finite_difference_denoising_score_matching"
  check_step(step, name)
  if process is None:
    raise ValueError(
      f"{name} needs a Gaussian process such as processes.vp_linear(): it regresses on the noise"
    )
  draw = with_directions(process, name, directions, num_slices)

  def evaluate(roles, placed, params, state, clock):
    v = placed.targets["direction"]
    _, slope = along_energy(process, roles, placed, 1, step)
    error = slope + projections(v, jnp.broadcast_to(jnp.expand_dims(placed.noise, 1), v.shape))
    square = jnp.mean(jnp.square(error), axis=1)
    return terms(square, metrics={"eps_mse": square / placed.noise[0].size})

  return Objective(
    name=name, draw=draw, evaluate=evaluate, process=process, needs={"model": {"energy": name}}, bias_order=2
  )


def along_energy(
  process: Any, roles: Mapping[str, Any], placed: Placed, order: int, step: float
) -> tuple[jax.Array, ...]:
  """Derivatives of f = -energy along sigma v, each [B, K].

  They are taken from order + 1 values at points two steps of u from end to end.
  """
  x, v = placed.x_t, placed.targets["direction"]
  sigma = expand(noise_level(process, placed), x)
  size = unit_step(step, x) * (2 // order)
  f = lambda x: (
    -roles["model"](x, placed.t, placed.cond, views=("energy",)).energy.astype(at_least_single(x.dtype))
  )
  along = lambda v: directional.differences(f, x, sigma * v, order, step=size)
  return jax.vmap(along, in_axes=1, out_axes=1)(v)


def unit_step(step: float, x: jax.Array) -> float:
  """The step along v of norm sqrt(D) that moves by `step`."""
  return float(step / np.sqrt(np.prod(x.shape[1:])))


def check_step(step: Any, who: str) -> None:
  """Raises ValueError unless the step is positive."""
  if not step > 0:
    raise ValueError(f"{who} takes a step of positive length, in units of sigma (0.1 is a start), got {step}")
