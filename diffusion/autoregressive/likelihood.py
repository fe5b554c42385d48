"""The density of an autoregressive score, each conditional normalised on a grid."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from diffusion.autoregressive.table import check_grid, conditional_table
from diffusion.denoisers import Denoiser
from diffusion.losses.autoregressive import context_of


def conditional_log_probs(
  model: Denoiser, x: jax.Array, grid: Any, *, t: Any = 0.0, cond: Any = None, width: int = 256
) -> jax.Array:
  """log p(x_d | x_<d) in nats, like x: [B, ...]; -inf where x_d is off the grid.

  Args:
    model: a denoiser with the views `context` and `head`.
    x: [B, ...].
    grid: [G] for all coordinates, or [D, G]; it has to hold practically all the mass of every conditional,
      for it is all that is normalised over. The error is of the second order in its spacing.
    t: a number, or [B].
    cond: None, or a dict of [B, ...].
    width: conditionals tabulated at a time: memory is width times G times the head's.

  Raises ValueError for a grid that does not fit or does not increase.

  >>> from diffusion import denoisers
  >>> model = denoisers.from_functions(
  ...   context=lambda params, x, t, cond: jnp.zeros((*x.shape, 1)),
  ...   head=lambda params, x, t, cond: -x,
  ... )
  >>> grid = jnp.linspace(-8.0, 8.0, 401)
  >>> conditional_log_probs(model, jnp.zeros((1, 2)), grid).round(3).tolist()  # -log sqrt(2 pi)
  [[-0.919..., -0.919...]]
  """
  size = math.prod(x.shape[1:])
  grid = check_grid(grid, size, "log_prob").astype(x.dtype)
  t = jnp.broadcast_to(jnp.asarray(t, jnp.result_type(float)), x.shape[:1])
  context = context_of(model, x, t, cond)
  each = lambda leaf: jnp.repeat(leaf, size, axis=0)
  rows = (
    x.reshape(-1),
    context.reshape(-1, context.shape[-1]),
    jnp.tile(jnp.arange(size), x.shape[0]),
    *jax.tree.map(each, (t, cond)),
  )

  def one(row):
    value, context, coordinate, t, cond = jax.tree.map(lambda leaf: leaf[None], row)
    return conditional_table(model, grid[coordinate], context, t, cond).log_prob(value)[0]

  return jax.lax.map(one, rows, batch_size=width).reshape(x.shape)


def log_prob(
  model: Denoiser, x: jax.Array, grid: Any, *, t: Any = 0.0, cond: Any = None, width: int = 256
) -> jax.Array:
  """log p(x) in nats, [B]: the sum of `conditional_log_probs`, with the same arguments."""
  return jnp.sum(
    conditional_log_probs(model, x, grid, t=t, cond=cond, width=width).reshape(x.shape[0], -1), axis=1
  )
