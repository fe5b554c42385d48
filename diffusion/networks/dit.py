"""The diffusion transformer (arXiv:2212.09748).

With adaptive layer norm that starts as the identity (adaLN-Zero).
"""

import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from diffusion.math.precision import at_least_single
from diffusion.networks.attention import attend
from diffusion.networks.embeddings import NoiseEmbedding
from diffusion.networks.layers import check_inputs, layer_norm, placed
from diffusion.networks.sizes import check_divisible


class DiT(nn.Module):
  """Transformer over patches: [B, L, C] or [B, H, W, C] of any size the patch divides, any channels.

  Every block starts as the identity and the last layer at zero, so a new network returns exactly zero.

  Attributes:
    patch: side of a patch, the same on every axis.
    width: features of a token; num_heads must divide it, and twice the number of spatial axes too.
    depth: number of blocks.
    num_heads: attention heads.
    mlp_ratio: hidden features of the block's MLP over `width`.
    embedding, fourier_scale: of the time, as in `UNet`.
    num_classes, vector_size: sizes of the conditions 'label' and 'vector'; 0 for none.
    guidance_size: features of the condition 'guidance', the weight of a distilled guidance; 0 for none.
    dropout: rate after attention and inside the MLP, drawn from the rng 'dropout' when train=True.
    dtype, param_dtype: of the computation and of the parameters; embeddings, softmax, normalisation
      statistics and the output stay in float32.
    remat: recompute the blocks in the backward pass instead of storing them.

  Raises ValueError for a size that does not fit or a width that the heads do not divide.

  >>> net = DiT(patch=2, width=16, depth=1, num_heads=2)
  >>> x, t = jnp.ones((3, 4, 6, 5)), jnp.zeros(3)
  >>> y, _ = jax.jit(net.init_with_output)(jax.random.key(0), x, t)
  >>> y.shape, float(abs(y).max())
  ((3, 4, 6, 5), 0.0)
  """

  patch: int = 2
  width: int = 384
  depth: int = 12
  num_heads: int = 6
  mlp_ratio: float = 4.0
  embedding: str = "positional"
  fourier_scale: float = 16.0
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
    check_inputs(x, t, (3, 4), "DiT")
    sizes = x.shape[1:-1]
    check_divisible(sizes, self.patch, f"a DiT of patch {self.patch}")
    if self.width % self.num_heads:
      raise ValueError(f"DiT: num_heads={self.num_heads} must divide width={self.width}.")
    precision: dict[str, Any] = dict(dtype=jnp.dtype(self.dtype), param_dtype=jnp.dtype(self.param_dtype))
    embedding = NoiseEmbedding(
      self.width,
      min(256, self.width),
      self.embedding,
      self.fourier_scale,
      self.num_classes,
      self.vector_size,
      self.guidance_size,
      name="noise",
      **precision,
    )(t, cond)
    embedding = nn.swish(embedding).astype(precision["dtype"])

    grid = tuple(size // self.patch for size in sizes)
    tokens = nn.Dense(self.width, kernel_init=nn.initializers.xavier_uniform(), name="patches", **precision)(
      to_patches(x, self.patch)
    )
    h = placed(tokens + jnp.asarray(positions(grid, self.width), tokens.dtype)[None])
    block = nn.remat(Block) if self.remat else Block
    for i in range(self.depth):
      h = block(self.num_heads, self.mlp_ratio, self.dropout, not train, name=f"block_{i}", **precision)(
        h, embedding
      )
    scale, shift = modulation(2, self.width, "last_modulation", precision)(embedding)
    h = layer_norm(h, precision["dtype"]) * (1 + scale) + shift
    h = nn.Dense(
      self.patch ** len(grid) * x.shape[-1], kernel_init=nn.initializers.zeros, name="last", **precision
    )(h)
    return from_patches(h, grid, self.patch).astype(at_least_single(self.dtype))


class Block(nn.Module):
  """Attention and MLP, each gated by the embedding with a gate that starts at zero; h [B, tokens, width]."""

  num_heads: int
  mlp_ratio: float
  dropout: float
  deterministic: bool
  dtype: Any
  param_dtype: Any

  @nn.compact
  def __call__(self, h: jax.Array, embedding: jax.Array) -> jax.Array:
    width, precision = h.shape[-1], dict(dtype=self.dtype, param_dtype=self.param_dtype)
    dense = lambda features, name: nn.Dense(
      features, kernel_init=nn.initializers.xavier_uniform(), name=name, **precision
    )
    drop = nn.Dropout(self.dropout, deterministic=self.deterministic)
    scale_a, shift_a, gate_a, scale_m, shift_m, gate_m = modulation(6, width, "modulation", precision)(
      embedding
    )

    inner = layer_norm(h, self.dtype) * (1 + scale_a) + shift_a
    inner = dense(3 * width, "query_key_value")(inner).reshape(
      *h.shape[:2], 3, self.num_heads, width // self.num_heads
    )
    inner = attend(inner[:, :, 0], inner[:, :, 1], inner[:, :, 2]).reshape(h.shape)
    h = placed(h + gate_a * drop(dense(width, "out")(inner)))

    inner = layer_norm(h, self.dtype) * (1 + scale_m) + shift_m
    inner = drop(nn.gelu(dense(round(self.mlp_ratio * width), "dense_0")(inner)))
    return placed(h + gate_m * dense(width, "dense_1")(inner))


def modulation(
  count: int, width: int, name: str, precision: dict[str, Any]
) -> Callable[[jax.Array], list[jax.Array]]:
  """A zero-initialised dense layer from the embedding [B, E] to `count` arrays [B, 1, width]."""
  dense = nn.Dense(count * width, kernel_init=nn.initializers.zeros, name=name, **precision)
  return lambda embedding: jnp.split(dense(embedding)[:, None], count, axis=-1)


def to_patches(x: jax.Array, patch: int) -> jax.Array:
  """[B, H, W, C] -> [B, H/p * W/p, p * p * C], patches and their pixels in reading order; any number of axes.

  >>> to_patches(jnp.arange(6.0).reshape(1, 6, 1), 3).tolist()
  [[[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]]
  """
  sizes, channels = x.shape[1:-1], x.shape[-1]
  rank = len(sizes)
  split = itertools.chain.from_iterable((size // patch, patch) for size in sizes)
  outer, inner = range(1, 2 * rank, 2), range(2, 2 * rank + 1, 2)
  h = x.reshape(x.shape[0], *split, channels).transpose(0, *outer, *inner, 2 * rank + 1)
  return h.reshape(x.shape[0], -1, patch**rank * channels)


def from_patches(h: jax.Array, grid: tuple[int, ...], patch: int) -> jax.Array:
  """The inverse of `to_patches`: [B, tokens, p * p * C] with tokens laid out as `grid` -> [B, H, W, C]."""
  rank = len(grid)
  x = h.reshape(h.shape[0], *grid, *(patch,) * rank, -1)
  order = itertools.chain.from_iterable((1 + axis, 1 + rank + axis) for axis in range(rank))
  x = x.transpose(0, *order, 2 * rank + 1)
  return x.reshape(h.shape[0], *(size * patch for size in grid), -1)


def positions(grid: tuple[int, ...], width: int) -> np.ndarray:
  """Fixed sines and cosines of each coordinate, an equal share of `width` per axis: [tokens, width].

  Raises ValueError unless twice the number of axes divides `width`.
  """
  share = width // len(grid)
  if width % (2 * len(grid)):
    raise ValueError(f"DiT: width={width} must be divisible by {2 * len(grid)} for {len(grid)} spatial axes.")
  frequencies = 10000.0 ** (-np.arange(share // 2) / (share // 2))
  coordinates = np.stack(np.meshgrid(*map(np.arange, grid), indexing="ij"), axis=-1).reshape(
    math.prod(grid), -1
  )
  angle = coordinates[:, :, None] * frequencies
  return np.concatenate([np.sin(angle), np.cos(angle)], axis=-1).reshape(len(coordinates), width)
