"""Exact samples of an autoregressive score.

They are drawn coordinate by coordinate, by the inverse of each conditional's distribution function.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp

from diffusion.autoregressive.table import check_grid, conditional_table
from diffusion.denoisers import Denoiser
from diffusion.losses.autoregressive import context_of


def sample(
  model: Denoiser,
  key: jax.Array,
  n: int,
  shape: tuple[int, ...],
  grid: Any,
  *,
  t: Any = 0.0,
  cond: Any = None,
  width: int = 256,
) -> jax.Array:
  """Exact samples of an autoregressive score on a grid: [n, *shape].

  They are drawn from the density that `log_prob` gives on the same grid. Sample i depends on (key, i)
  alone.

  One scan over the D coordinates, each a call of the context for all samples and G values of the head for
  each.

  Args:
    model: a denoiser with the views `context` and `head`.
    key: a typed key.
    n: number of samples.
    shape: of one of them.
    grid: [G] for all coordinates, or [D, G]; see `log_prob`.
    t: a number, or [n].
    cond: None, or a dict of [n, ...].
    width: conditionals tabulated at a time.

  Raises ValueError for n below one, or a grid that does not fit or does not increase.

  >>> from diffusion import denoisers
  >>> model = denoisers.from_functions(
  ...   context=lambda params, x, t, cond: jnp.zeros((*x.shape, 1)),
  ...   head=lambda params, x, t, cond: 3.0 - x,
  ... )
  >>> x = sample(model, jax.random.key(0), 1000, (2,), jnp.linspace(-4.0, 10.0, 201))
  >>> x.shape, bool(jnp.abs(x.mean() - 3.0) < 0.1)
  ((1000, 2), True)
  """
  if not isinstance(n, int) or n < 1:
    raise ValueError(f"sample draws n=1 or more, got {n!r}")
  size = math.prod(shape)
  grid = check_grid(grid, size, "sample")
  t = jnp.broadcast_to(jnp.asarray(t, jnp.result_type(float)), (n,))
  u = jax.vmap(lambda i: jax.random.uniform(jax.random.fold_in(key, i), (size,), grid.dtype))(jnp.arange(n))

  def step(x, coordinate):
    context = context_of(model, x.reshape(n, *shape), t, cond).reshape(n, size, -1)
    rows = (
      jax.lax.dynamic_index_in_dim(u, coordinate, 1, False),
      jax.lax.dynamic_index_in_dim(context, coordinate, 1, False),
      t,
      cond,
    )

    def one(row):
      u, context, t, cond = jax.tree.map(lambda leaf: leaf[None], row)
      return conditional_table(model, grid[coordinate][None], context, t, cond).quantile(u)[0]

    value = jax.lax.map(one, rows, batch_size=width)
    return jax.lax.dynamic_update_index_in_dim(x, value.astype(x.dtype), coordinate, 1), None

  x, _ = jax.lax.scan(step, jnp.zeros((n, size), grid.dtype), jnp.arange(size))
  return x.reshape(n, *shape)
