"""One Brownian path a sample, read at any place.

Steps that are tried, rejected and tried again must agree on this path. Drawing anew after a rejected step
would favour the noises that pass and so change the law of the samples. Here the noise of the reverse SDE
between two places is a difference of one path B(e^2lambda), found by halving [start, end] in lambda as often
as `LEVELS` says with Brownian bridges whose noise depends on the sample's key and the node of the tree alone:
nothing is stored.
"""

from typing import Any

import jax
import jax.numpy as jnp

from diffusion.processes import expand

# Halvings: steps below 1/16384 of the whole run see the path as straight.
LEVELS = 14


def path(keys: jax.Array, clock: jax.Array, start: Any, end: Any, like: jax.Array) -> jax.Array:
  """B at e^(2 clock), for B at e^(2 start) = 0 and standard Brownian motion in e^(2 lambda).

  Args:
    keys: [B] typed keys.
    clock: [B] lambda between start and end.
    start, end: numbers, ends of the tree.
    like: [B, ...] shape and dtype of the result.

  Returns:
    [B, ...]; row b depends on keys[b] and clock[b] alone.

  >>> keys = jax.random.split(jax.random.key(0), 4000)
  >>> read = lambda clock: path(keys, jnp.full(4000, clock), -1.0, 1.0, jnp.zeros((4000, 1)))
  >>> early, late = read(0.2), read(0.5)
  >>> expected = jnp.exp(1.0) - jnp.exp(0.4)
  >>> change = late - early
  >>> bool(abs(jnp.var(change) / expected - 1) < 0.1) and bool(abs(jnp.mean(early * change)) < 0.1)
  True
  """
  dtype = like.dtype
  # Everything is made from what is given, so that it is spread over devices alike.
  start, end = (0 * clock + jnp.asarray(value, dtype) for value in (start, end))
  spread = lambda a, b: jnp.exp(2 * a) * jnp.expm1(2 * (b - a))  # e^2b - e^2a
  draw = lambda index: jax.vmap(
    lambda key, i: jax.random.normal(jax.random.fold_in(key, i), like.shape[1:], dtype)
  )(keys, index)

  def halve(_, carry):
    a, b, at_a, at_b, index = carry
    m = (a + b) / 2
    left, right, whole = spread(a, m), spread(m, b), spread(a, b)
    at_m = (
      at_a
      + expand(left / whole, like) * (at_b - at_a)
      + expand(jnp.sqrt(left * right / whole), like) * draw(index)
    )
    later = clock >= m
    pick = lambda x, y: jnp.where(expand(later, x), x, y)
    return pick(m, a), pick(b, m), pick(at_m, at_a), pick(at_b, at_m), 2 * index + later.astype(index.dtype)

  root = (0 * clock).astype(jnp.uint32)
  last = expand(jnp.sqrt(spread(start, end)), like) * draw(root)
  a, b, at_a, at_b, _ = jax.lax.fori_loop(0, LEVELS, halve, (start, end, 0 * last, last, root + 1))
  return at_a + expand(spread(a, clock) / spread(a, b), like) * (at_b - at_a)
