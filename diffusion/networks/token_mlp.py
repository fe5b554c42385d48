"""A residual MLP for states of whole numbers whose output is over the values of each coordinate."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from diffusion.math.precision import at_least_single
from diffusion.networks.embeddings import NoiseEmbedding
from diffusion.networks.layers import check_inputs, layer_norm
from diffusion.networks.mlp import Block


class TokenMLP(nn.Module):
  """Residual MLP over embedded coordinates: x [B, ...] int and t [B] -> logits [B, ..., K], in float32.

  Each coordinate enters as a learned vector for each of its values, the mask among them; the blocks are
  those of `MLP`. The last layer starts at zero, so that a new network says that all values are equally
  likely. Its parameters grow with
  the number of coordinates times K: for states of some hundred coordinates.

  Attributes:
    num_values: K, of the output.
    num_inputs: values that a coordinate of x may take; 0 for K + 1, the values and the mask.
    embedding_size: of the learned vector of a value.
    width, depth: features of the residual stream and of the embedding of time, and the number of blocks.
    embedding, fourier_scale: of the time, as in `MLP`.
    num_classes, vector_size, guidance_size: sizes of the conditions, as in `MLP`.
    dropout: rate, drawn from the rng 'dropout' when train=True.
    dtype, param_dtype: of the computation and of the parameters; embeddings of time, normalisation and the
      output stay in float32.
    remat: recompute the blocks in the backward pass instead of storing them.

  Raises ValueError for a t that is not [B], an x that is not whole numbers, or a condition that the network
  was not built for.

  >>> net = TokenMLP(num_values=3, width=8, depth=1)
  >>> x, t = jnp.array([[0, 3]]), jnp.full(1, 0.5)
  >>> jax.nn.softmax(net.apply(net.init(jax.random.key(0), x, t), x, t))[0, 1].round(3).tolist()
  [0.333..., 0.333..., 0.333...]
  """

  num_values: int
  num_inputs: int = 0
  embedding_size: int = 16
  width: int = 256
  depth: int = 3
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
    self, x: jax.Array, t: jax.Array, cond: dict[str, jax.Array] | None = None, train: bool = False
  ) -> jax.Array:
    """Logits [B, ..., K] at x [B, ...] int, t [B]."""
    check_inputs(x, t, (2, 3, 4, 5), "TokenMLP")
    if not jnp.issubdtype(x.dtype, jnp.integer):
      raise ValueError(f"TokenMLP takes whole numbers x [B, ...], got {x.dtype}")
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
    size, inputs = math.prod(x.shape[1:]), self.num_inputs or self.num_values + 1
    table = self.param(
      "values", nn.initializers.normal(1.0), (size, inputs, self.embedding_size), precision["param_dtype"]
    )
    place = jnp.arange(size, dtype=x.dtype)[None, :]
    h = table.astype(precision["dtype"])[place, x.reshape(x.shape[0], -1)]
    h = nn.Dense(self.width, name="first", **precision)(h.reshape(x.shape[0], -1))
    block = nn.remat(Block) if self.remat else Block
    for i in range(self.depth):
      h = block(self.dropout, not train, name=f"block_{i}", **precision)(h, embedding)
    h = nn.swish(layer_norm(h, precision["dtype"]))
    h = nn.Dense(size * self.num_values, kernel_init=nn.initializers.zeros, name="last", **precision)(h)
    return h.reshape(*x.shape, self.num_values).astype(at_least_single(self.dtype))
