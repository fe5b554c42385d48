"""The codec that an AutoencoderKL of diffusers is: scaled latents, drawn or their mean."""

import functools
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import struct

from diffusion.networks.sizes import check_divisible
from diffusion.weights.architectures import torch_layout


@struct.dataclass
class AutoencoderKL:
  """A codec: pictures [B, H, W, 3] in [-1, 1] to the scaled latents that a diffusion model sees, and back.

  Latents are (z - shift) * scale, each a number or one a channel. Its parameters are those of `convert`.

  Attributes:
    shift, scale: [Z] or numbers, of the config.
    network: the module.
    sampled: whether `encode` with a key draws z from the Gaussian that the encoder gives, as DiT and Stable
      Diffusion were trained, or takes its mean.
    log_det: None: latents have fewer numbers than data, and the decoder is no inverse.

  >>> from diffusion.weights.architectures import autoencoder_kl
  >>> codec = autoencoder_kl.codec_of({"block_out_channels": [8], "norm_num_groups": 4})
  >>> codec.shape_of((6, 4, 3))
  (6, 4, 4)
  """

  shift: Any
  scale: Any
  network: Any = struct.field(pytree_node=False)
  sampled: bool = struct.field(pytree_node=False, default=True)

  log_det: ClassVar[None] = None

  def shape_of(self, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of the latents of one picture. Raises ValueError for sizes and channels that it does not take."""
    c = self.network.options
    if len(shape) != 3 or shape[-1] != c.in_channels:
      raise ValueError(
        f"this AutoencoderKL takes pictures of shape (height, width, {c.in_channels}), got {tuple(shape)}"
      )
    factor = 2 ** (len(c.block_out_channels) - 1)
    check_divisible(tuple(shape[:-1]), factor, f"an AutoencoderKL of {len(c.block_out_channels)} levels")
    return (shape[0] // factor, shape[1] // factor, c.latent_channels)

  def init(self) -> Any:
    """Parameters, all zero until those of a file take their place."""
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes_of(self.network))

  def measure(self, params: Any, x: jax.Array) -> Any:
    """The parameters as they are."""
    del x
    return params

  def encode(self, params: Any, x: jax.Array, key: jax.Array | None = None) -> jax.Array:
    """Scaled latents of x, [B, H/f, W/f, Z] in float32 or wider.

    x: [B, H, W, C] in [-1, 1]; key: [B] typed keys for a draw of row i from keys[i] alone, None for the mean.
    """
    z, std = self.network.apply({"params": params}, x, method="moments")
    if self.sampled and key is not None:
      draw = lambda one: jax.random.normal(one, z.shape[1:], z.dtype)
      z = z + std * jax.vmap(draw)(key)
    return (z - _along(self.shift, z)) * _along(self.scale, z)

  def decode(self, params: Any, z: jax.Array) -> jax.Array:
    """Pictures [B, H, W, C] of scaled latents z: [B, H/f, W/f, Z]."""
    z = z / _along(self.scale, z) + _along(self.shift, z)
    return self.network.apply({"params": params}, z, method="decode")

  def show(self, x: jax.Array) -> jax.Array:
    """x itself."""
    return x


@functools.lru_cache(maxsize=16)
def shapes_of(network: Any) -> Any:
  """Shapes of the parameters of a module of `autoencoder_kl.build`."""
  side = 2 ** (len(network.options.block_out_channels) - 1)
  x = jax.ShapeDtypeStruct((1, side, side, network.options.in_channels), jnp.float32)
  return torch_layout.shapes_of(network, x)


def _along(value: Any, z: jax.Array) -> jax.Array:
  """A number, or one a channel, to meet z [B, ..., Z]."""
  value = jnp.asarray(value, z.dtype)
  return value.reshape((1,) * (z.ndim - value.ndim) + value.shape) if value.ndim else value
