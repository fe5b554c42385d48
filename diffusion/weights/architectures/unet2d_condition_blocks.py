"""The blocks of diffusers' UNet2DConditionModel: those of UNet2DModel, with transformers that read a text."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import linen as nn

from diffusion.networks.attention import attend
from diffusion.networks.layers import placed
from diffusion.weights.architectures.layers import (
  Downsample,
  GroupNorm,
  LayerNorm,
  ResnetBlock,
  Style,
  Upsample,
)


@dataclasses.dataclass(frozen=True)
class Level:
  """What a block is built with.

  Attributes:
    features: channels that come out.
    layers: residual blocks.
    groups: of the norms.
    text: whether a transformer that reads the text follows each of them.
    heads: of its attention.
    depth: transformer blocks of one of them.
    linear: whether their first and last layer are dense, as in Stable Diffusion 2, or 1x1 convolutions.
    padding: of the halving convolution.
    last: whether the size stays.
    style: what all blocks share.
  """

  features: int
  layers: int
  groups: int
  text: bool
  heads: int
  depth: int
  linear: bool
  padding: int
  last: bool
  style: Style

  def resnet(self, name: str, rescale: float = 1.0) -> nn.Module:
    """A residual block to `features`, to be named so."""
    block = self.style.stored(ResnetBlock)
    return block(self.features, self.groups, self.groups, self.style, rescale, name=name)

  def transformer(self, name: str) -> nn.Module:
    """A transformer that reads the text, to be named so."""
    return Transformer(self.heads, self.groups, self.depth, self.linear, self.style, name=name)


class DownBlock(nn.Module):
  """A level on the way down: (h [B, H, W, C], time [B, E], text [B, N, D]) -> the states for the way up."""

  level: Level

  @nn.compact
  def __call__(self, h: jax.Array, time: jax.Array, text: jax.Array) -> tuple[jax.Array, ...]:
    level, skips = self.level, []
    for i in range(level.layers):
      h = level.resnet(f"resnets_{i}")(h, time)
      if level.text:
        h = level.transformer(f"attentions_{i}")(h, text)
      skips.append(h)
    if not level.last:
      skips.append(Downsample(level.padding, level.style, name="downsamplers_0")(h))
    return tuple(skips)


class MidBlock(nn.Module):
  """The middle: a residual block, a transformer, another residual block; `rescale` divides their sums."""

  level: Level
  rescale: float

  @nn.compact
  def __call__(self, h: jax.Array, time: jax.Array, text: jax.Array) -> jax.Array:
    h = self.level.resnet("resnets_0", self.rescale)(h, time)
    h = self.level.transformer("attentions_0")(h, text)
    return self.level.resnet("resnets_1", self.rescale)(h, time)


class UpBlock(nn.Module):
  """A level on the way up: (h, the states that it takes back, last first, time, text) -> h."""

  level: Level

  @nn.compact
  def __call__(
    self, h: jax.Array, skips: tuple[jax.Array, ...], time: jax.Array, text: jax.Array
  ) -> jax.Array:
    level = self.level
    for i, state in enumerate(reversed(skips)):
      h = level.resnet(f"resnets_{i}")(jnp.concatenate([h, state], axis=-1), time)
      if level.text:
        h = level.transformer(f"attentions_{i}")(h, text)
    return h if level.last else Upsample(level.style, name="upsamplers_0")(h)


class Transformer(nn.Module):
  """diffusers' Transformer2DModel: transformer blocks over all positions of x [B, H, W, C], x added.

  Attributes are as in `Level`. Its norm has epsilon 1e-6, those within its blocks 1e-5.
  """

  heads: int
  groups: int
  depth: int
  linear: bool
  style: Style

  @nn.compact
  def __call__(self, x: jax.Array, text: jax.Array) -> jax.Array:
    style, channels = self.style, x.shape[-1]
    project = (
      (lambda name: style.dense(channels, name))
      if self.linear
      else (lambda name: style.conv(channels, name, size=1))
    )
    h = GroupNorm(self.groups, 1e-6, style.dtype, style.param_dtype, name="norm")(x)
    h = project("proj_in")(h).reshape(x.shape[0], -1, channels)
    for i in range(self.depth):
      h = style.stored(TransformerBlock)(self.heads, style, name=f"transformer_blocks_{i}")(h, text)
    return placed(project("proj_out")(h.reshape(x.shape)) + x)


class TransformerBlock(nn.Module):
  """Attention to itself, to the text and a feed-forward layer, each after a norm and added: h [B, P, C]."""

  heads: int
  style: Style

  @nn.compact
  def __call__(self, h: jax.Array, text: jax.Array) -> jax.Array:
    style = self.style
    norm = lambda name: LayerNorm(1e-5, style.dtype, style.param_dtype, name=name)
    states = norm("norm1")(h)
    h = h + CrossAttention(self.heads, style, name="attn1")(states, states)
    h = h + CrossAttention(self.heads, style, name="attn2")(norm("norm2")(h), text)
    return placed(h + FeedForward(style, name="ff")(norm("norm3")(h)))


class CrossAttention(nn.Module):
  """Attention of h [B, P, C] to states [B, N, D]; scores and softmax are in float32 whatever the dtype.

  That is what `upcast_attention` asks for, so that the option changes nothing here.
  """

  heads: int
  style: Style

  @nn.compact
  def __call__(self, h: jax.Array, states: jax.Array) -> jax.Array:
    style, channels = self.style, h.shape[-1]
    split = lambda name, a: nn.Dense(
      channels, use_bias=False, dtype=style.dtype, param_dtype=style.param_dtype, name=name
    )(a).reshape(*a.shape[:2], self.heads, channels // self.heads)
    out = attend(split("to_q", h), split("to_k", states), split("to_v", states))
    return style.dense(channels, "to_out_0")(out.reshape(h.shape))


class FeedForward(nn.Module):
  """Two dense layers, with value * gelu(gate) between them (arXiv:2002.05202); the gelu is the exact one."""

  style: Style

  @nn.compact
  def __call__(self, h: jax.Array) -> jax.Array:
    channels = h.shape[-1]
    return self.style.dense(channels, "net_2")(GatedGelu(4 * channels, self.style, name="net_0")(h))


class GatedGelu(nn.Module):
  """The first of them: h [..., C] -> [..., features], of which the first half of the outputs is the value."""

  features: int
  style: Style

  @nn.compact
  def __call__(self, h: jax.Array) -> jax.Array:
    value, gate = jnp.split(self.style.dense(2 * self.features, "proj")(h), 2, axis=-1)
    return value * nn.gelu(gate, approximate=False)
