"""The layers that networks of diffusers share: their paddings, groups and epsilons, under their names.

They differ from `diffusion.networks` in what a published config can set: groups and epsilon of a norm,
padding of a halving, channels of a head. Statistics and softmax are in float32, as everywhere here.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from diffusion.math.precision import at_least_single
from diffusion.networks import resampling
from diffusion.networks.attention import attend
from diffusion.networks.layers import placed

FIR = (1, 3, 3, 1)
"""Taps of the filter that diffusers resamples with."""


@dataclasses.dataclass(frozen=True)
class Style:
  """What the blocks of one network have in common.

  Attributes:
    epsilon: of the group norms.
    scale_shift: whether the time scales and shifts the second norm, or is added before it.
    dropout, deterministic, dtype, param_dtype, remat: as in `diffusion.networks`.
  """

  epsilon: float
  scale_shift: bool = False
  dropout: float = 0.0
  deterministic: bool = True
  dtype: Any = jnp.float32
  param_dtype: Any = jnp.float32
  remat: bool = False

  def conv(self, features: int, name: str, size: int = 3, stride: int = 1, pad: Any = None) -> nn.Conv:
    """A convolution; torch's padding of half its size, if `pad` says nothing."""
    pad = ((size // 2, size // 2),) * 2 if pad is None else pad
    return nn.Conv(
      features, (size, size), (stride, stride), pad, dtype=self.dtype, param_dtype=self.param_dtype, name=name
    )

  def dense(self, features: int, name: str) -> nn.Dense:
    """A dense layer with bias."""
    return nn.Dense(features, dtype=self.dtype, param_dtype=self.param_dtype, name=name)

  def norm(self, groups: int, name: str) -> "GroupNorm":
    """A group norm."""
    return GroupNorm(groups, self.epsilon, self.dtype, self.param_dtype, name=name)

  def stored(self, block: type[nn.Module]) -> type[nn.Module]:
    """The block class, recomputed in the backward pass where the network asks for it."""
    return nn.remat(block) if self.remat else block


class GroupNorm(nn.Module):
  """Normalises `groups` groups of channels over space, x [B, H, W, C]; in two passes, in float32."""

  groups: int
  epsilon: float
  dtype: Any = jnp.float32
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    channels, precision = x.shape[-1], at_least_single(self.dtype)
    if channels % self.groups:
      raise ValueError(
        f"{self.groups} groups of a norm do not divide its {channels} channels: check the config"
      )
    scale = self.param("scale", nn.initializers.ones, (channels,), self.param_dtype)
    bias = self.param("bias", nn.initializers.zeros, (channels,), self.param_dtype)
    h = x.astype(precision).reshape(x.shape[0], -1, self.groups, channels // self.groups)
    h = h - h.mean(axis=(1, 3), keepdims=True)
    h = h * jax.lax.rsqrt(jnp.square(h).mean(axis=(1, 3), keepdims=True) + self.epsilon)
    along = (1,) * (x.ndim - 1) + (channels,)
    h = h.reshape(x.shape) * scale.astype(precision).reshape(along) + bias.astype(precision).reshape(along)
    return h.astype(self.dtype)


class LayerNorm(nn.Module):
  """Normalises the channels of each place, x [..., C]; in two passes, in float32."""

  epsilon: float
  dtype: Any = jnp.float32
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    channels, precision = x.shape[-1], at_least_single(self.dtype)
    scale = self.param("scale", nn.initializers.ones, (channels,), self.param_dtype)
    bias = self.param("bias", nn.initializers.zeros, (channels,), self.param_dtype)
    h = x.astype(precision)
    h = h - h.mean(axis=-1, keepdims=True)
    h = h * jax.lax.rsqrt(jnp.square(h).mean(axis=-1, keepdims=True) + self.epsilon)
    along = (1,) * (x.ndim - 1) + (channels,)
    h = h * scale.astype(precision).reshape(along) + bias.astype(precision).reshape(along)
    return h.astype(self.dtype)


class ResnetBlock(nn.Module):
  """diffusers' ResnetBlock2D: x [B, H, W, C] and time -> [B, H, W, features].

  The time is silu of its embedding [B, E], or None for a block that knows none.

  Attributes:
    features: channels that come out.
    groups, groups_out: of the two norms.
    style: what all blocks share.
    rescale: what the sum of both branches is divided by.
    resample: 'up' or 'down', which halves or doubles both branches before the first convolution, or None.
    filtered: whether that is through the filter, or by repetition and mean.
    shortcut: whether there is a 1x1 convolution even where the channels stay.
  """

  features: int
  groups: int
  groups_out: int
  style: Style
  rescale: float = 1.0
  resample: str | None = None
  filtered: bool = False
  shortcut: bool = False

  @nn.compact
  def __call__(self, x: jax.Array, time: jax.Array | None) -> jax.Array:
    style = self.style
    h = nn.silu(style.norm(self.groups, "norm1")(x))
    if self.resample is not None:
      change = {"up": resampling.upsample, "down": resampling.downsample}[self.resample]
      kernel = FIR if self.filtered else None
      h, x = change(h, kernel), change(x, kernel)
    h = style.conv(self.features, "conv1")(h)
    shift = None
    if time is not None:
      width = 2 * self.features if style.scale_shift else self.features
      shift = style.dense(width, "time_emb_proj")(time)[:, None, None, :]
    if shift is not None and style.scale_shift:
      scale, shift = jnp.split(shift, 2, axis=-1)
      h = style.norm(self.groups_out, "norm2")(h) * (1 + scale) + shift
    else:
      h = style.norm(self.groups_out, "norm2")(h if shift is None else h + shift)
    h = nn.Dropout(style.dropout, deterministic=style.deterministic)(nn.silu(h))
    h = style.conv(self.features, "conv2")(h)
    if self.shortcut or x.shape[-1] != self.features:
      x = style.conv(self.features, "conv_shortcut", size=1)(x)
    return placed((x + h) / self.rescale)


class Attention(nn.Module):
  """diffusers' attention over all positions of x [B, H, W, C], with its own x added.

  Attributes:
    head: channels of one head.
    groups: of the norm before; None for no norm.
    style, rescale: as in `ResnetBlock`.
  """

  head: int
  groups: int | None
  style: Style
  rescale: float = 1.0

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    style, channels = self.style, x.shape[-1]
    if channels % self.head:
      raise ValueError(f"heads of {self.head} channels do not divide {channels} channels: check the config")
    h = x if self.groups is None else style.norm(self.groups, "group_norm")(x)
    h = h.reshape(x.shape[0], -1, channels)
    query, key, value = (
      style.dense(channels, name)(h).reshape(*h.shape[:2], channels // self.head, self.head)
      for name in ("to_q", "to_k", "to_v")
    )
    h = style.dense(channels, "to_out_0")(attend(query, key, value).reshape(h.shape))
    return placed((h.reshape(x.shape) + x) / self.rescale)


class Downsample(nn.Module):
  """Halves x [B, H, W, C] by a convolution; padding 0 is diffusers' way of padding right and below alone."""

  padding: int
  style: Style

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    pad = ((self.padding, self.padding),) * 2 if self.padding else ((0, 1),) * 2
    return self.style.conv(x.shape[-1], "conv", stride=2, pad=pad)(x)


class Upsample(nn.Module):
  """Doubles x [B, H, W, C] by repetition, and convolves."""

  style: Style

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    return self.style.conv(x.shape[-1], "conv")(resampling.upsample(x))


def time_features(t: jax.Array, size: int, shift: float, cosines_first: bool) -> jax.Array:
  """Sines and cosines of t [B] at frequencies 10000^(-i/(size/2 - shift)): [B, size] in the dtype of t.

  An odd size ends in a zero. The library's own `positional` is that of shift 1 with sines first.

  >>> time_features(jnp.zeros(1), 4, 0.0, True).tolist()
  [[1.0, 1.0, 0.0, 0.0]]
  """
  half = size // 2
  frequencies = jnp.exp(-math.log(10000.0) * jnp.arange(half, dtype=t.dtype) / (half - shift))
  angle = t[:, None] * frequencies[None, :]
  parts = [jnp.cos(angle), jnp.sin(angle)] if cosines_first else [jnp.sin(angle), jnp.cos(angle)]
  return jnp.pad(jnp.concatenate(parts, axis=-1), ((0, 0), (0, size % 2)))


def snapped(t: jax.Array, rounding: str) -> jax.Array:
  """The time [B] that a network trained on whole numbers is told.

  Args:
    t: the network's own time, 0 to 999 say.
    rounding: 'none' tells it t; 'snap' takes a t within 0.001 of a whole number for that number, which undoes
      the rounding of float32 and lets a solver stop between; 'nearest' takes the nearest whole number always.

  >>> snapped(jnp.array([998.99994, 2.4]), "snap").tolist(), snapped(jnp.array([2.4]), "nearest").tolist()
  ([999.0, 2.4000000953674316], [2.0])
  """
  if rounding not in ("none", "snap", "nearest"):
    raise ValueError(f"the rounding of time is 'none', 'snap' or 'nearest', got {rounding!r}")
  whole = jnp.round(t)
  if rounding == "snap":
    return jnp.where(jnp.abs(t - whole) < 1e-3, whole, t)
  return t if rounding == "none" else whole


class TimestepEmbedding(nn.Module):
  """diffusers' two dense layers on features of time [B, F] -> [B, features], in float32 at least."""

  features: int
  dtype: Any = jnp.float32
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, h: jax.Array) -> jax.Array:
    dense = lambda name: nn.Dense(self.features, dtype=self.dtype, param_dtype=self.param_dtype, name=name)
    return dense("linear_2")(nn.silu(dense("linear_1")(h)))
