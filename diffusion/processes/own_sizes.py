"""Discrete processes whose coordinates have their own numbers of values."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffusion.processes.discrete import CoordinateNoise, check_state_shape


class OwnSizes(CoordinateNoise):
  """`CoordinateNoise` where each coordinate has its own number of values, `sizes`, and noise is uniform.

  Attributes:
    sizes: number of values of each coordinate, flattened.
  """

  sizes: tuple[int, ...]

  @property
  def num_values(self) -> int:
    """K, the largest number of values of a coordinate."""
    return max(self.sizes)

  def value_counts(self) -> tuple[int, ...]:
    """The number of values of each coordinate, flattened."""
    return self.sizes

  def prior(self, keys: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Uniform states [B, *shape] int32, row i from keys[i] alone.

    Raises ValueError for a shape of another state.
    """
    check_state_shape(self, shape)
    sizes = jnp.asarray(np.reshape(self.sizes, self.shape), jnp.int32)
    return jax.vmap(lambda key: jax.random.randint(key, self.shape, 0, sizes))(keys)

  def prior_law(self, dtype: Any) -> jax.Array:
    """Uniform over each coordinate's own values: [1, ..., K], to fit [B, ..., K]."""
    sizes = np.reshape(self.sizes, (1, *self.shape, 1))
    return jnp.asarray((np.arange(self.num_values) < sizes) / sizes, dtype)

  @property
  def exists(self) -> jax.Array:
    """Whether a coordinate has a value: [1, ..., K] bool."""
    sizes = np.reshape(self.sizes, self.shape)
    return jnp.asarray((np.arange(self.num_values) < sizes[..., None])[None])

  def sources(self, x: jax.Array) -> jax.Array:
    """Every value that the coordinate has: bool, [B, ..., K]."""
    return jnp.broadcast_to(self.exists, (*x.shape, self.num_values))
