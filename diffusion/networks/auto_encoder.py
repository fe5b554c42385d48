"""A residual autoencoder for vectors, and for small images taken as vectors."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from diffusion.math.precision import at_least_single
from diffusion.networks.layers import layer_norm


class AutoEncoder(nn.Module):
  """Residual MLPs to a latent vector and back: x [B, *shape] -> z [B, *latent_shape] -> x, in float32.

  Both halves are a dense layer, blocks of normalise, dense, swish, dropout, dense around which the stream
  goes, and a dense layer. Called, it reconstructs: it makes the parameters of both. Times and conditions are
  not used.

  Views: `latent` of data x, and `reconstruction`, which is asked at latents in place of x.

  Attributes:
    shape, latent_shape: of one example, and of its latents.
    width: features of the residual stream.
    depth: residual blocks of the encoder, and as many of the decoder.
    dropout: rate, drawn from the rng 'dropout' when train=True.
    dtype, param_dtype: of the computation and of the parameters; normalisation and outputs stay in float32.
    remat: recompute the blocks in the backward pass instead of storing them.

  Raises ValueError for an x or a z of another shape.

  >>> net = AutoEncoder(shape=(4, 4, 1), latent_shape=(3,), width=8, depth=1)
  >>> x = jnp.ones((2, 4, 4, 1))
  >>> variables = jax.jit(net.init)(jax.random.key(0), x, jnp.zeros(2))
  >>> z = net.apply(variables, x, method="encode")
  >>> z.shape, net.apply(variables, z, method="decode").shape
  ((2, 3), (2, 4, 4, 1))
  """

  shape: tuple[int, ...]
  latent_shape: tuple[int, ...] = (16,)
  width: int = 128
  depth: int = 2
  dropout: float = 0.0
  dtype: Any = jnp.float32
  param_dtype: Any = jnp.float32
  remat: bool = False

  views: ClassVar[tuple[str, ...]] = ("latent", "reconstruction")

  def setup(self) -> None:
    half = lambda size: Half(
      self.width,
      size,
      self.depth,
      self.dropout,
      jnp.dtype(self.dtype),
      jnp.dtype(self.param_dtype),
      self.remat,
    )
    self.encoder, self.decoder = half(math.prod(self.latent_shape)), half(math.prod(self.shape))

  def encode(self, x: jax.Array, train: bool = False) -> jax.Array:
    """Latents [B, *latent_shape] of x: [B, *shape]."""
    _check(x, self.shape, "data")
    return self.encoder(x.reshape(x.shape[0], -1), not train).reshape(x.shape[0], *self.latent_shape)

  def decode(self, z: jax.Array, train: bool = False) -> jax.Array:
    """Data [B, *shape] of latents z: [B, *latent_shape]."""
    _check(z, self.latent_shape, "latents")
    return self.decoder(z.reshape(z.shape[0], -1), not train).reshape(z.shape[0], *self.shape)

  def __call__(
    self, x: jax.Array, t: jax.Array, cond: Mapping[str, jax.Array] | None = None, train: bool = False
  ) -> jax.Array:
    del cond
    if t.shape != x.shape[:1]:
      raise ValueError(
        f"AutoEncoder takes one time per example, which it does not use: got t of shape {t.shape}"
      )
    return self.decode(self.encode(x, train), train)

  def latent(self, x: jax.Array, t: jax.Array, cond: Any = None) -> jax.Array:
    """The view of data x: [B, *shape]: its latents."""
    del t, cond
    return self.encode(x)

  def reconstruction(self, x: jax.Array, t: jax.Array, cond: Any = None) -> jax.Array:
    """The view of latents, [B, *latent_shape] in the place of x: what they decode to."""
    del t, cond
    return self.decode(x)


class Half(nn.Module):
  """An encoder or a decoder: h [B, D] -> [B, size]."""

  width: int
  size: int
  depth: int
  dropout: float
  dtype: Any
  param_dtype: Any
  remat: bool

  @nn.compact
  def __call__(self, h: jax.Array, deterministic: bool) -> jax.Array:
    precision: dict[str, Any] = dict(dtype=self.dtype, param_dtype=self.param_dtype)
    h = nn.Dense(self.width, name="first", **precision)(h.astype(self.dtype))
    block = nn.remat(Block) if self.remat else Block
    for i in range(self.depth):
      h = block(self.dropout, deterministic, name=f"block_{i}", **precision)(h)
    h = nn.Dense(self.size, name="last", **precision)(nn.swish(layer_norm(h, self.dtype)))
    return h.astype(at_least_single(self.dtype))


class Block(nn.Module):
  """One residual block: h [B, width] -> [B, width]."""

  dropout: float
  deterministic: bool
  dtype: Any
  param_dtype: Any

  @nn.compact
  def __call__(self, h: jax.Array) -> jax.Array:
    width, precision = h.shape[-1], dict(dtype=self.dtype, param_dtype=self.param_dtype)
    inner = nn.swish(nn.Dense(width, name="dense_0", **precision)(layer_norm(h, self.dtype)))
    inner = nn.Dropout(self.dropout, deterministic=self.deterministic)(inner)
    return h + nn.Dense(width, kernel_init=nn.initializers.zeros, name="dense_1", **precision)(inner)


def _check(x, shape, what):
  if x.shape[1:] != tuple(shape):
    raise ValueError(
      f"AutoEncoder was built for {what} of shape {tuple(shape)}, got {x.shape[1:]}: set its shape and "
      f"latent_shape"
    )
