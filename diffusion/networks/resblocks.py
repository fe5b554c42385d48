"""The residual blocks of the U-Net, and its resampling layers with and without a convolution."""

import jax
from flax import linen as nn

from diffusion.networks import resampling
from diffusion.networks.layers import placed
from diffusion.networks.style import Style


class ResidualBlock(nn.Module):
  """Normalise, swish, convolve, twice, with the embedding added between; x [B, ..., C] -> [B, ..., features].

  With `resample` 'up' or 'down' it is the block of BigGAN (arXiv 1809.11096) that also changes the size;
  both branches are resampled before the first convolution. The style's block type says how a shortcut
  changes channels: 'ddpm' by a dense layer of initial scale 0.1, 'biggan' by a 1x1 convolution.
  """

  features: int
  style: Style
  resample: str | None = None

  @nn.compact
  def __call__(self, x: jax.Array, embedding: jax.Array) -> jax.Array:
    style = self.style
    h = nn.swish(style.norm("norm_0")(x))
    if self.resample is not None:
      change = {"up": resampling.upsample, "down": resampling.downsample}[self.resample]
      h, x = change(h, style.fir_kernel), change(x, style.fir_kernel)
    h = style.conv(self.features, "conv_0")(h)
    shift = style.dense(self.features, "embedding")(embedding)
    h = h + shift.reshape(shift.shape[0], *(1,) * style.rank, self.features)
    h = nn.swish(style.norm("norm_1")(h))
    h = nn.Dropout(style.dropout, deterministic=style.deterministic)(h)
    h = style.conv(self.features, "conv_1", scale=style.init_scale)(h)
    if style.block == "ddpm" and x.shape[-1] != self.features:
      x = style.dense(self.features, "shortcut", scale=0.1)(x)
    elif style.block == "biggan" and (x.shape[-1] != self.features or self.resample is not None):
      x = style.conv(self.features, "shortcut", size=1)(x)
    return placed(style.merge(x, h))


class Resample(nn.Module):
  """A layer that doubles ('up') or halves ('down') the size, filtered or not.

  It goes through a 3-wide convolution if `with_conv`.
  """

  direction: str
  features: int
  with_conv: bool
  style: Style

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    style, kernel, up = self.style, self.style.fir_kernel, self.direction == "up"
    if not self.with_conv:
      return resampling.upsample(x, kernel) if up else resampling.downsample(x, kernel)
    if kernel is None:
      if up:
        return style.conv(self.features, "conv")(resampling.upsample(x))
      return style.conv(self.features, "conv", stride=2)(x)
    if up:  # filter and convolution share one zero border: the filter keeps one value more on each side
      return style.conv(self.features, "conv", padding="VALID")(resampling.upsample(x, kernel, margin=1))
    return style.conv(self.features, "conv", stride=2, padding="VALID")(
      resampling.blur_before_strided(x, kernel)
    )
