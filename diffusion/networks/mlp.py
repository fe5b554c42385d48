"""A residual MLP for vectors, and for small images taken as vectors."""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from diffusion.math.precision import at_least_single
from diffusion.networks.embeddings import NoiseEmbedding
from diffusion.networks.layers import check_inputs, layer_norm


class MLP(nn.Module):
  """Residual MLP: x [B, D] or [B, H, W, C] (flattened) and t [B] -> an output like x, in float32.

  Every block is normalise, dense, scale and shift by the embedding of time and condition, swish,
  dropout, dense; the last dense layer of each block and of the network starts at zero, so a new network
  returns exactly zero.

  Attributes:
    width: features of the residual stream and of the embedding.
    depth: number of residual blocks.
    embedding: 'fourier' (random frequencies; for inputs of a few units such as log sigma) or
      'positional' (for inputs in the hundreds such as 999 t).
    fourier_scale: standard deviation of the frequencies, in cycles per unit of t.
    num_classes, vector_size: sizes of the conditions 'label' and 'vector'; 0 for none.
    guidance_size: features of the condition 'guidance', the weight of a distilled guidance; 0 for none.
    dropout: rate, drawn from the rng 'dropout' when train=True.
    dtype, param_dtype: of the computation and of the parameters; embeddings, normalisation and the
      output stay in float32.
    remat: recompute the blocks in the backward pass instead of storing them.

  Raises ValueError for a t that is not [B] or a condition that the network was not built for.

  >>> net = MLP(width=16, depth=1, num_classes=10)
  >>> x, t = jnp.ones((4, 8, 8, 1)), jnp.zeros(4)
  >>> variables = jax.jit(net.init)(jax.random.key(0), x, t)
  >>> net.apply(variables, x, t, {"label": jnp.array([3, 1, -1, 0])}).shape
  (4, 8, 8, 1)
  """

  width: int = 384
  depth: int = 4
  embedding: str = "fourier"
  fourier_scale: float = 1.0
  num_classes: int = 0
  vector_size: int = 0
  guidance_size: int = 0
  dropout: float = 0.0
  dtype: Any = jnp.float32
  param_dtype: Any = jnp.float32
  remat: bool = False

  @nn.compact
  def __call__(
    self, x: jax.Array, t: jax.Array, cond: Mapping[str, jax.Array] | None = None, train: bool = False
  ) -> jax.Array:
    check_inputs(x, t, (2, 3, 4, 5), "MLP")
    precision: dict[str, Any] = dict(dtype=jnp.dtype(self.dtype), param_dtype=jnp.dtype(self.param_dtype))
    embedding = NoiseEmbedding(
      self.width,
      max(self.width // 4, 4),
      self.embedding,
      self.fourier_scale,
      self.num_classes,
      self.vector_size,
      self.guidance_size,
      name="noise",
      **precision,
    )(t, cond)
    embedding = nn.swish(embedding).astype(precision["dtype"])
    h = nn.Dense(self.width, name="first", **precision)(x.reshape(x.shape[0], -1))
    block = nn.remat(Block) if self.remat else Block
    for i in range(self.depth):
      h = block(self.dropout, not train, name=f"block_{i}", **precision)(h, embedding)
    h = nn.swish(layer_norm(h, precision["dtype"]))
    h = nn.Dense(math.prod(x.shape[1:]), kernel_init=nn.initializers.zeros, name="last", **precision)(h)
    return h.reshape(x.shape).astype(at_least_single(self.dtype))


class Block(nn.Module):
  """One residual block: h [B, width], embedding [B, E] -> [B, width]."""

  dropout: float
  deterministic: bool
  dtype: Any
  param_dtype: Any

  @nn.compact
  def __call__(self, h: jax.Array, embedding: jax.Array) -> jax.Array:
    width, precision = h.shape[-1], dict(dtype=self.dtype, param_dtype=self.param_dtype)
    inner = nn.Dense(width, name="dense_0", **precision)(layer_norm(h, self.dtype))
    scale, shift = jnp.split(nn.Dense(2 * width, name="modulation", **precision)(embedding), 2, axis=-1)
    inner = nn.swish(inner * (1 + scale) + shift)
    inner = nn.Dropout(self.dropout, deterministic=self.deterministic)(inner)
    return h + nn.Dense(width, kernel_init=nn.initializers.zeros, name="dense_1", **precision)(inner)
