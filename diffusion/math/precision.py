"""Arithmetic that must not be done in half precision.

Losses, sums over dimensions, softmax, logarithms, time embeddings.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike


def at_least_single(dtype: DTypeLike) -> np.dtype:
  """float64 for float64, float32 for anything narrower.

  >>> at_least_single("bfloat16"), at_least_single("float64")
  (dtype('float32'), dtype('float64'))
  """
  return jnp.dtype(jnp.float64 if jnp.dtype(dtype) == jnp.float64 else jnp.float32)


def sum_rows(values: jax.Array) -> jax.Array:
  """The sum over everything but the batch, in at least float32: [B, ...] -> [B].

  >>> sum_rows(jnp.ones((2, 3, 4), jnp.bfloat16))
  Array([12., 12.], dtype=float32)
  """
  values = values.astype(at_least_single(values.dtype))
  return jnp.sum(values.reshape(values.shape[0], -1), axis=1)
