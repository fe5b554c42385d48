"""Ratios of single coordinates and the concrete score of a neighbourhood, each as the other.

Every move of a neighbourhood changes one coordinate, so that a concrete score (arXiv:2211.00802) is some of
the ratios p_t(y) / p_t(x) (arXiv:2310.16834), less one.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def concrete_score(neighbourhood: Any, ratios: jax.Array, x: jax.Array) -> jax.Array:
  """p_t(neighbour) / p_t(x) - 1 of every move [B, N] from the ratios [B, ..., S] of each coordinate.

  x is [B, ...]. 0 where a move does not exist.

  >>> from diffusion.processes import neighbourhoods
  >>> ratios = jnp.array([[[1.0, 3.0, 0.5]]])
  >>> concrete_score(neighbourhoods.grid(3, (1, -1)), ratios, jnp.array([[0]])).tolist()
  [[2.0, -0.5]]
  """
  values, exists = neighbourhood.values(x)
  flat = ratios.reshape(ratios.shape[0], -1, ratios.shape[-1])[:, np.asarray(neighbourhood.coordinate)]
  there = jnp.take_along_axis(flat, values.astype(jnp.int32)[..., None], axis=-1)[..., 0]
  return jnp.where(exists, there - 1.0, 0.0)


def neighbour_ratios(
  neighbourhood: Any, concrete: jax.Array, x: jax.Array, num_states: int | None = None
) -> tuple[jax.Array, jax.Array]:
  """The ratios that a concrete score [B, N] tells: (ratios [B, ..., S], which are told, bool of that shape).

  1 for the coordinate's own state, 0 where nothing is told: states that no move leads to from x [B, ...]. S
  is num_states, the largest number of values by default.

  >>> from diffusion.processes import neighbourhoods
  >>> ratios, told = neighbour_ratios(neighbourhoods.cycle(3), jnp.array([[2.0]]), jnp.array([[0]]))
  >>> ratios.tolist(), told.tolist()
  ([[[1.0, 3.0, 0.0]]], [[[True, True, False]]])
  """
  states = max(neighbourhood.sizes) if num_states is None else num_states
  values, exists = neighbourhood.values(x)
  place = jax.nn.one_hot(np.asarray(neighbourhood.coordinate), len(neighbourhood.sizes), dtype=concrete.dtype)
  moved = jax.nn.one_hot(values, states, dtype=concrete.dtype) * exists.astype(concrete.dtype)[..., None]
  own = jax.nn.one_hot(x, states, dtype=concrete.dtype)
  sum_of = lambda weight: jnp.einsum("bn,bns,nd->bds", weight, moved, place).reshape(own.shape)
  return own + sum_of(1.0 + concrete), (own + sum_of(jnp.ones_like(concrete))) > 0
