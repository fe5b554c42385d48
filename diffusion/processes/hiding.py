"""Masking a given number of coordinates, in place of each with a given probability."""

from typing import Any

import jax
import jax.numpy as jnp


def hide(process: Any, x0: jax.Array, noise: jax.Array, count: jax.Array) -> tuple[jax.Array, jax.Array]:
  """The state with the mask at the `count` coordinates of the smallest noise, and a time that fits it.

  The order in which coordinates are masked is that of their noise, so that one noise masks more and more.

  Args:
    process: with a mask, such as `processes.masked`.
    x0: [B, ...] int.
    noise: like x0, uniform in [0, 1): `process.noise`.
    count: [B] int, from 1 to the number D of coordinates.

  Returns:
    x_t [B, ...] and the time [B] at which the probability of the mask is the largest noise that is masked,
    kept within the process's times: what a network that is told the time is told.

  >>> from diffusion import processes
  >>> x0, noise = jnp.array([[0, 1, 0]]), jnp.array([[0.75, 0.25, 0.5]])
  >>> x_t, t = hide(processes.masked(2, (3,)), x0, noise, jnp.array([2]))
  >>> x_t.tolist(), t.tolist()
  ([[0, 2, 2]], [0.5])
  """
  flat = noise.reshape(noise.shape[0], -1)
  # Ranks, and not a comparison of numbers, so that ties hide as many as they should.
  rank = jnp.argsort(jnp.argsort(flat, axis=-1), axis=-1)
  level = jnp.take_along_axis(jnp.sort(flat, axis=-1), count[:, None] - 1, axis=-1)[:, 0]
  t = jnp.clip(process.t_of_level(level), process.t_min, process.t_max).astype(level.dtype)
  hidden = (rank < count[:, None].astype(rank.dtype)).reshape(x0.shape)
  return jnp.where(hidden, jnp.asarray(process.mask, x0.dtype), x0), t
