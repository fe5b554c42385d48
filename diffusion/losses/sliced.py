"""Sliced score matching: the trace along random directions."""

from typing import Any

import jax
import jax.numpy as jnp

from diffusion.losses.base import Objective
from diffusion.losses.directions import noise_level, predicted_noise, with_directions
from diffusion.losses.exact import matching_terms
from diffusion.math.precision import at_least_single, sum_rows
from diffusion.processes.base import expand


def sliced_score_matching(
  process: Any = None, *, variance_reduced: bool = True, directions: str = "rademacher", num_slices: int = 1
) -> Objective:
  """Sliced score matching: (v . s)^2 + 2 v^T (ds/dx) v over random v with E v v^T = I.

  The paper has half of it (arXiv:1905.07088).

  Unbiased for `score_matching`, with the same units: on x_t of a process sigma^2 times it, plus D; on clean
  data (process=None) as it stands. `variance_reduced` takes the square term exactly (SSM-VR), which costs
  nothing. The derivative is forward mode over the score, so over reverse where the score is the gradient of
  an energy.

  batch: a dict with 'x' [B, ...]; needs `score`. directions: 'rademacher', 'gaussian' or 'sphere',
  `num_slices` an example. Raises ValueError for other directions, fewer than one slice, or what is no
  process.

  >>> from diffusion import losses, processes
  >>> losses.sliced_score_matching(processes.edm(), variance_reduced=False).name
  'sliced_score_matching'
  """
  name = "sliced_score_matching"
  draw = with_directions(process, name, directions, num_slices)

  def evaluate(roles, placed, params, state, clock):
    x, v = placed.x_t, placed.targets["direction"]
    function = predicted_noise(process, roles, placed)
    sigma = expand(noise_level(process, placed), x)

    def along(v):
      return jax.jvp(function, (x,), (sigma * v,), has_aux=True)

    scaled, slopes, collections = jax.vmap(along, in_axes=1)(v)
    first = jax.tree.map(lambda leaf: leaf[0], (scaled, collections))  # the same for every direction
    trace = mean_projection(v, jnp.moveaxis(slopes, 0, 1))
    if variance_reduced:
      square = sum_rows(jnp.square(first[0]))
    else:
      square = jnp.mean(jnp.square(projections(v, jnp.moveaxis(scaled, 0, 1))), axis=1)
    return matching_terms(process, placed, square, trace, first[1])

  return Objective(name=name, draw=draw, evaluate=evaluate, process=process, needs={"model": {"score": name}})


def projections(v: jax.Array, values: jax.Array) -> jax.Array:
  """v . values of each direction: [B, K, ...] -> [B, K], in at least float32."""
  product = (v * values).astype(at_least_single(values.dtype))
  return jnp.sum(product.reshape(*v.shape[:2], -1), axis=2)


def mean_projection(v: jax.Array, values: jax.Array) -> jax.Array:
  """The mean over directions of v . values: [B, K, ...] -> [B]."""
  return jnp.mean(projections(v, values), axis=1)
