"""The blocks of diffusers' UNet2DModel: a level on the way down, the middle, a level on the way up."""

import dataclasses
import math

import jax
import jax.numpy as jnp
from flax import linen as nn

from diffusion.networks import resampling
from diffusion.weights.architectures.layers import (
  FIR,
  Attention,
  Downsample,
  GroupNorm,
  ResnetBlock,
  Style,
  Upsample,
)


@dataclasses.dataclass(frozen=True)
class Kind:
  """What a block type of a config means.

  Attributes:
    attention: whether attention follows residual blocks.
    change: how the size changes: 'conv', 'resnet', 'fir' (with the image itself beside it), or 'config',
      which is what the config's downsample_type or upsample_type says.
  """

  attention: bool
  change: str

  @property
  def skip(self) -> bool:
    """Whether it is a block of NCSN++, around which the image goes too."""
    return self.change == "fir"


DOWN = {
  "DownBlock2D": Kind(False, "conv"),
  "AttnDownBlock2D": Kind(True, "config"),
  "ResnetDownsampleBlock2D": Kind(False, "resnet"),
  "SkipDownBlock2D": Kind(False, "fir"),
  "AttnSkipDownBlock2D": Kind(True, "fir"),
}
UP = {
  "UpBlock2D": Kind(False, "conv"),
  "AttnUpBlock2D": Kind(True, "config"),
  "ResnetUpsampleBlock2D": Kind(False, "resnet"),
  "SkipUpBlock2D": Kind(False, "fir"),
  "AttnSkipUpBlock2D": Kind(True, "fir"),
}


@dataclasses.dataclass(frozen=True)
class Level:
  """What a block is built with.

  Attributes:
    kind: of the block; its `change` is not 'config' any more.
    features: channels that come out.
    layers: residual blocks.
    groups: of the norms; None for NCSN++, which has a fourth of the channels and at most 32.
    head: channels of an attention head.
    padding: of a halving convolution.
    last: whether the size stays.
    style: what all blocks share.
  """

  kind: Kind
  features: int
  layers: int
  groups: int | None
  head: int
  padding: int
  last: bool
  style: Style

  def resnet(
    self, name: str, channels: int, precedence: bool = False, resample: str | None = None
  ) -> nn.Module:
    """A residual block from `channels` to `features`, to be named so; `precedence`: see `UpBlock`."""
    skip, features = self.kind.skip, self.features
    groups = _fourth(channels) if not precedence else 32
    if not skip:
      assert self.groups is not None
      groups, out = self.groups, self.groups
    else:
      out = _fourth(features)
    filtered = skip and resample is not None
    return self.style.stored(ResnetBlock)(
      features,
      groups,
      out,
      self.style,
      math.sqrt(2.0) if skip else 1.0,
      resample,
      filtered,
      filtered,
      name=name,
    )

  def attention(self, name: str) -> nn.Module:
    """Attention as this block has it."""
    skip = self.kind.skip
    return self.style.stored(Attention)(
      self.head, 32 if skip else self.groups, self.style, math.sqrt(2.0) if skip else 1.0, name=name
    )


class DownBlock(nn.Module):
  """A level on the way down: (h [B, H, W, C], time [B, E], image) -> (skips, image).

  `skips` are the states that the way up takes back, the last of which goes on. `image` is the network's input
  at this level's size in NCSN++, and passed on in others.
  """

  level: Level

  @nn.compact
  def __call__(
    self, h: jax.Array, time: jax.Array, image: jax.Array
  ) -> tuple[tuple[jax.Array, ...], jax.Array]:
    level, skips = self.level, []
    for i in range(level.layers):
      h = level.resnet(f"resnets_{i}", h.shape[-1])(h, time)
      if level.kind.attention:
        h = level.attention(f"attentions_{i}")(h)
      skips.append(h)
    if level.last:
      return tuple(skips), image
    if level.kind.skip:
      h = level.resnet("resnet_down", level.features, resample="down")(h, time)
      image = resampling.downsample(image, FIR)
      h = level.style.conv(level.features, "skip_conv", size=1)(image) + h
    elif level.kind.change == "resnet":
      h = level.resnet("downsamplers_0", level.features, resample="down")(h, time)
    else:
      h = Downsample(level.padding, level.style, name="downsamplers_0")(h)
    return (*skips, h), image


class MidBlock(nn.Module):
  """The middle: a residual block, attention if `attention`, another residual block; the size stays.

  Attributes:
    groups: of the norms of the residual blocks.
    attention_groups: of the norm before attention; None for none.
    head, style: as in `Level`.
    rescale: what each sum of two branches is divided by.
  """

  groups: int
  attention_groups: int | None
  head: int
  attention: bool
  rescale: float
  style: Style

  @nn.compact
  def __call__(self, h: jax.Array, time: jax.Array | None) -> jax.Array:
    resnet = lambda name: self.style.stored(ResnetBlock)(
      h.shape[-1], self.groups, self.groups, self.style, self.rescale, name=name
    )
    h = resnet("resnets_0")(h, time)
    if self.attention:
      attend = self.style.stored(Attention)
      h = attend(self.head, self.attention_groups, self.style, self.rescale, name="attentions_0")(h)
    return resnet("resnets_1")(h, time)


class UpBlock(nn.Module):
  """A level on the way up: (h, skips, time [B, E], image or None) -> (h, image).

  `skips` are as many states as it has residual blocks, the last one first to be taken. `image` is the output
  so far in NCSN++, at this level's size where it comes out.

  AttnSkipUpBlock2D has a norm of min(a + b // 4, 32) groups on a + b channels, where a fourth of the sum is
  meant; that is 32 in all published sizes, and weights are trained with it.
  """

  level: Level
  channels: int

  @nn.compact
  def __call__(
    self, h: jax.Array, skips: tuple[jax.Array, ...], time: jax.Array, image: jax.Array | None
  ) -> tuple[jax.Array, jax.Array | None]:
    level, style = self.level, self.level.style
    skip, each = level.kind.skip, level.kind.attention and not level.kind.skip
    for i, state in enumerate(reversed(skips)):
      h = jnp.concatenate([h, state], axis=-1)
      h = level.resnet(f"resnets_{i}", h.shape[-1], precedence=skip and level.kind.attention)(h, time)
      if each:
        h = level.attention(f"attentions_{i}")(h)
    if skip:
      if level.kind.attention:
        h = level.attention("attentions_0")(h)
      if image is not None:
        image = resampling.upsample(image, FIR)
      if not level.last:
        norm = GroupNorm(
          _fourth(level.features), style.epsilon, style.dtype, style.param_dtype, name="skip_norm"
        )
        part = style.conv(self.channels, "skip_conv")(nn.silu(norm(h)))
        image = part if image is None else image + part
        h = level.resnet("resnet_up", level.features, resample="up")(h, time)
    elif not level.last:
      if level.kind.change == "resnet":
        h = level.resnet("upsamplers_0", level.features, resample="up")(h, time)
      else:
        h = Upsample(style, name="upsamplers_0")(h)
    return h, image


def _fourth(channels: int) -> int:
  """Groups of NCSN++."""
  return min(channels // 4, 32)
