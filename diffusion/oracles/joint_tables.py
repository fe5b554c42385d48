"""What oracles of whole numbers that hold the joint probabilities of all states share."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from diffusion.oracles import spectral
from diffusion.oracles.mixture import class_log_weights
from diffusion.oracles.oracle import Oracle


class JointTables(Oracle):
  """A mixture of categoricals in D coordinates under the noise of a discrete process.

  A subclass is a struct.dataclass with these attributes, and has `probabilities`.

  Attributes:
    process: the noise.
    log_weights: [M], normalised.
    tables: [M, K_1, ..., K_D], each sums to one.
    labels: [M] int32, the class of each table, or None.
  """

  process: Any
  log_weights: Any
  tables: Any
  labels: Any
  probabilities: Callable[..., jax.Array]

  def logits(self, x: jax.Array, t: jax.Array, cond: Any = None) -> jax.Array:
    """log p(x_0 = k | x_t = x) of each coordinate, normalised: [B, *shape, K]; -inf for what cannot be."""
    return jnp.log(self.probabilities(x, t, cond))

  def sample(self, key: jax.Array, n: int, t: Any = None, cond: Any = None) -> jax.Array:
    """Draws of x_t, or of the data for t None: [n, *shape] int32.

    t is a number or [n]. Sample i depends on (key, i) alone.
    """
    which, value, noise = spectral.sample_keys(key, n, 3)
    log_weights = class_log_weights(self.log_weights, self.labels, cond, n)
    draw = lambda key, logits: jax.random.categorical(key, logits, mode="high")
    table = jax.vmap(draw)(which, jnp.broadcast_to(log_weights, (n, log_weights.shape[-1])))
    flat = jax.vmap(lambda k, i: draw(k, jnp.log(self.tables[i].reshape(-1))))(value, table)
    x0 = jnp.stack(jnp.unravel_index(flat, self.tables.shape[1:]), axis=1).astype(jnp.int32)
    x0 = x0.reshape(n, *self.process.shape)
    if t is None:
      return x0
    t = jnp.broadcast_to(jnp.asarray(t, self.tables.dtype), (n,))
    return self.process.corrupt(x0, self.process.noise(noise, x0), t)

  def entropy(self) -> jax.Array:
    """The entropy of the data in nats: []."""
    joint = jnp.einsum("m,m...->...", jnp.exp(self.log_weights), self.tables)
    return -jnp.sum(jax.scipy.special.xlogy(joint, joint))

  def _joint(self, cond, rows):
    """p(x_0) for each row: [B, K_1, ..., K_D]."""
    log_weights = class_log_weights(self.log_weights, self.labels, cond, rows)
    weights = jnp.broadcast_to(jax.nn.softmax(log_weights, axis=-1), (rows, self.tables.shape[0]))
    return jnp.einsum("bm,m...->b...", weights, self.tables, precision=spectral.PRECISION)

  def _check(self, x, t):
    x, t = jnp.asarray(x), jnp.asarray(t)
    if x.ndim == 0 or x.shape[1:] != self.process.shape or not jnp.issubdtype(x.dtype, jnp.integer):
      raise ValueError(
        f"x must be integers [B, {', '.join(map(str, self.process.shape))}], one a coordinate, got shape "
        f"{x.shape} of {x.dtype}"
      )
    if t.shape != x.shape[:1]:
      raise ValueError(
        f"t has shape {t.shape} and x has shape {x.shape}: give one time for each row, for example "
        f"jnp.full(({x.shape[0]},), t)"
      )
    return x.reshape(x.shape[0], -1), t
