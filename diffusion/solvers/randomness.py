"""Noise that depends on a sample's own key, the step and the purpose, and on nothing else.

Keys come one a sample, so sample i is the same whatever the batch size, the padding, the order of the
rows or the number of devices.
"""

from typing import Any

import jax

# Purposes. Rows of a table use 0 and 1 for their (up to two) noises.
HOOK = 2
CORRECTOR = 3  # a solver with several corrector moves a step counts up from here


def fold(keys: Any, step: Any, purpose: Any) -> jax.Array:
  """The keys [B] of one purpose at one step; step 0 is the start, row i is step i + 1."""
  return jax.vmap(lambda key: jax.random.fold_in(jax.random.fold_in(key, step), purpose))(keys)


def normal(keys: Any, step: Any, purpose: Any, like: Any) -> Any:
  """Standard normal noise of the shape and dtype of like: [B, ...], row b from keys[b] alone.

  `like` may be a pytree of arrays, each of which has a key of its own.

  >>> import jax.numpy as jnp
  >>> keys = jax.random.split(jax.random.key(0), 4)
  >>> whole = normal(keys, 1, 0, jnp.zeros((4, 3)))
  >>> bool((normal(keys[2:3], 1, 0, jnp.zeros((1, 3))) == whole[2:3]).all())
  True
  """
  keys = fold(keys, step, purpose)
  leaves, tree = jax.tree.flatten(like)
  own = [keys] if len(leaves) == 1 else [_fold_in(keys, number) for number in range(len(leaves))]
  return jax.tree.unflatten(tree, [normal_like(keys, leaf) for keys, leaf in zip(own, leaves)])


def normal_like(keys: jax.Array, like: jax.Array) -> jax.Array:
  """Standard normal noise like an array [B, ...], row b from keys[b] as it is."""
  return jax.vmap(lambda key: jax.random.normal(key, like.shape[1:], like.dtype))(keys)


def _fold_in(keys: jax.Array, number: Any) -> jax.Array:
  return jax.vmap(lambda key: jax.random.fold_in(key, number))(keys)
