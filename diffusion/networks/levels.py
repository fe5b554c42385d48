"""The two halves of the U-Net: from the image down to the coarsest level, and back."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from diffusion.networks.attention import SpatialAttention
from diffusion.networks.layers import placed
from diffusion.networks.resblocks import Resample, ResidualBlock
from diffusion.networks.style import Style


class Encoder(nn.Module):
  """x [B, ..., C] -> the feature maps of every block, fine to coarse; the decoder takes them back one by one.

  `widths` are the channels of each level, `attention` says where attention follows a block, `progressive`
  how the image itself enters again after each halving: 'none', 'input_skip' (filtered only, joined through
  `combine`) or 'residual' (through a convolution, as a residual stream of its own).
  """

  stem: int
  widths: tuple[int, ...]
  num_blocks: int
  attention: tuple[bool, ...]
  progressive: str
  combine: str
  style: Style

  @nn.compact
  def __call__(self, x: jax.Array, embedding: jax.Array) -> list[jax.Array]:
    style = self.style
    block, attention = style.stored(ResidualBlock), style.stored(SpatialAttention)
    image, skips = x, [placed(style.conv(self.stem, "first")(x))]
    for level, width in enumerate(self.widths):
      for i in range(self.num_blocks):
        h = block(width, style, name=f"block_{level}_{i}")(skips[-1], embedding)
        if self.attention[level]:
          h = attention(style, name=f"attention_{level}_{i}")(h)
        skips.append(h)
      if level == len(self.widths) - 1:
        return skips
      width = skips[-1].shape[-1]
      if style.block == "biggan":
        h = block(width, style, "down", name=f"down_{level}")(skips[-1], embedding)
      else:
        h = Resample("down", width, style.resample_with_conv, style, name=f"down_{level}")(skips[-1])
      if self.progressive == "input_skip":
        image = Resample("down", image.shape[-1], False, style)(image)
        entry = style.conv(width, f"combine_{level}", size=1)(image)
        h = entry + h if self.combine == "sum" else jnp.concatenate([entry, h], axis=-1)
      elif self.progressive == "residual":
        image = Resample("down", width, True, style, name=f"image_{level}")(image)
        h = image = style.merge(image, h)
      skips.append(h)
    return skips


class Decoder(nn.Module):
  """The coarsest features and the encoder's maps -> [B, ..., channels], the output image.

  `progressive` 'output_skip' sums images of every level, each doubled to the next; 'residual' carries a
  residual stream of features beside the blocks; 'none' reads the image off the finest level.
  """

  channels: int
  widths: tuple[int, ...]
  num_blocks: int
  attention: tuple[bool, ...]
  progressive: str
  style: Style

  @nn.compact
  def __call__(self, h: jax.Array, skips: list[jax.Array], embedding: jax.Array) -> jax.Array:
    style, skips, pyramid = self.style, list(skips), None
    block, attention = style.stored(ResidualBlock), style.stored(SpatialAttention)
    for level in reversed(range(len(self.widths))):
      for i in range(self.num_blocks + 1):
        h = block(self.widths[level], style, name=f"block_{level}_{i}")(
          jnp.concatenate([h, skips.pop()], axis=-1), embedding
        )
      if self.attention[level]:
        h = attention(style, name=f"attention_{level}")(h)
      if self.progressive == "output_skip":
        image = self._read(h, self.channels, f"image_{level}", style.init_scale)
        pyramid = image if pyramid is None else Resample("up", self.channels, False, style)(pyramid) + image
      elif self.progressive == "residual":
        if pyramid is None:
          pyramid = self._read(h, h.shape[-1], f"image_{level}", 1.0)
        else:
          image = Resample("up", h.shape[-1], True, style, name=f"image_{level}")(pyramid)
          h = pyramid = style.merge(image, h)
      if level and style.block == "biggan":
        h = block(h.shape[-1], style, "up", name=f"up_{level}")(h, embedding)
      elif level:
        h = Resample("up", h.shape[-1], style.resample_with_conv, style, name=f"up_{level}")(h)
    if self.progressive == "output_skip" and pyramid is not None:
      return pyramid
    return self._read(h, self.channels, "last", style.init_scale)

  @nn.nowrap
  def _read(self, h, features, name, scale):
    h = nn.swish(self.style.norm(f"{name}_norm")(h))
    return self.style.conv(features, name, scale=scale)(h)
