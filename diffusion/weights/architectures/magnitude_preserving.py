"""The U-Net of EDM2 (arXiv:2312.02696): every layer keeps the magnitude of its activations.

Weights are normalised where they are used, in float32, and so also those of an average; nothing has a bias,
and no normalisation has weights. What EDM2's training does besides, writing the normalised weights back after
every step, is not done by a network here.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from diffusion.math.precision import at_least_single
from diffusion.networks import resampling
from diffusion.networks.attention import attend
from diffusion.networks.layers import check_inputs, placed
from diffusion.networks.sizes import check_divisible


def normalize(x: jax.Array, axis: int | tuple[int, ...], epsilon: float = 1e-4) -> jax.Array:
  """x over epsilon + its root mean square along `axis` (eq. 30 and 66), in the dtype of x.

  >>> normalize(jnp.array([3.0, 3.0]), 0).round(3).tolist()
  [1.0, 1.0]
  """
  square = jnp.mean(jnp.square(x.astype(at_least_single(x.dtype))), axis=axis, keepdims=True)
  return x / (epsilon + jnp.sqrt(square)).astype(x.dtype)


def mp_swish(x: jax.Array) -> jax.Array:
  """Swish over 0.596, about its root mean square on unit noise (eq. 81)."""
  return nn.swish(x) / 0.596


def mp_sum(a: jax.Array, b: jax.Array, balance: float) -> jax.Array:
  """(1 - balance) a + balance b, over the magnitude of that for independent unit a and b (eq. 88)."""
  return (a + balance * (b - a)) / math.hypot(1.0 - balance, balance)


def mp_concatenate(a: jax.Array, b: jax.Array, balance: float) -> jax.Array:
  """a [..., Ca] and b [..., Cb] as one, weighed so that their parts are as in `mp_sum` (eq. 103)."""
  first, second = a.shape[-1], b.shape[-1]
  scale = math.sqrt(first + second) / math.hypot(1.0 - balance, balance)
  return jnp.concatenate(
    [scale * (1.0 - balance) / math.sqrt(first) * a, scale * balance / math.sqrt(second) * b], axis=-1
  )


class MPFourier(nn.Module):
  """sqrt(2) cos(f t + p) of t [B]: [B, size], with f of N(0, 2 pi) and p in [0, 2 pi] fixed (eq. 75)."""

  size: int
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, t: jax.Array) -> jax.Array:
    f = self.param("frequencies", nn.initializers.normal(2 * math.pi), (self.size,), self.param_dtype)
    p = self.param("phases", nn.initializers.uniform(2 * math.pi), (self.size,), self.param_dtype)
    f, p = (jax.lax.stop_gradient(value).astype(t.dtype)[None, :] for value in (f, p))
    return math.sqrt(2.0) * jnp.cos(t[:, None] * f + p)


class MPConv(nn.Module):
  """A convolution of `size` (0 for a dense layer) without bias, its weights normalised at use (eq. 47).

  x [..., C] -> [..., features], times `gain`.
  """

  features: int
  size: int = 0
  dtype: Any = jnp.float32
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, gain: jax.Array | float = 1.0) -> jax.Array:
    shape = (self.size,) * (2 if self.size else 0) + (x.shape[-1], self.features)
    kernel = self.param("kernel", nn.initializers.normal(1.0), shape, self.param_dtype)
    kernel = kernel.astype(at_least_single(self.dtype))
    kernel = normalize(kernel, tuple(range(len(shape) - 1))) * (gain / math.sqrt(math.prod(shape[:-1])))
    x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
    if not self.size:
      return x @ kernel
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


class Block(nn.Module):
  """A block of the encoder or the decoder (figure 21).

  x [B, H, W, C], embedding [B, E] -> [B, H, W, features]. Going down, channels change and pixels are
  normalised before the residual branch; going up, channels change beside it. The embedding multiplies.
  """

  features: int
  up: bool
  heads: int
  resample: str | None
  taps: tuple[float, ...] | None
  dropout: float
  deterministic: bool
  balances: tuple[float, float]
  clip: float | None
  dtype: Any
  param_dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array, embedding: jax.Array) -> jax.Array:
    conv = lambda name, size, features=self.features: MPConv(
      features, size, self.dtype, self.param_dtype, name=name
    )
    if self.resample is not None:
      x = {"up": resampling.upsample, "down": resampling.downsample}[self.resample](x, self.taps)
    shortcut = conv("shortcut", 1) if x.shape[-1] != self.features else lambda x: x
    if not self.up:
      x = normalize(shortcut(x), -1)
    h = conv("conv_0", 3)(mp_swish(x))
    gain = self.param("embedding_gain", nn.initializers.zeros, (), self.param_dtype)
    dense = MPConv(self.features, 0, embedding.dtype, self.param_dtype, name="embedding")
    scale = dense(embedding, gain.astype(embedding.dtype)) + 1.0
    h = mp_swish(h * scale[:, None, None, :].astype(h.dtype))
    h = nn.Dropout(self.dropout, deterministic=self.deterministic)(h)
    h = conv("conv_1", 3)(h)
    x = mp_sum(shortcut(x) if self.up else x, h, self.balances[0])
    if self.heads:
      parts = conv("qkv", 1, 3 * self.features)(x).reshape(x.shape[0], -1, 3, self.heads, self._head())
      query, key, value = jnp.moveaxis(normalize(parts, -1), 2, 0)
      h = attend(query, key, value).reshape(x.shape)
      x = mp_sum(x, conv("out", 1)(h), self.balances[1])
    return placed(x if self.clip is None else jnp.clip(x, -self.clip, self.clip))

  @nn.nowrap
  def _head(self):
    return self.features // self.heads


class MPUNet(nn.Module):
  """EDM2's U-Net for [B, H, W, C] of sizes that 2^(levels - 1) divides.

  Attributes:
    width, channel_multipliers, num_res_blocks: channels of the unit, of each level, blocks of each level.
    noise_channels, embedding_channels: features of the noise level and of the embedding.
    attention_levels: whether blocks of a level have attention; the middle has it always.
    head_channels: channels of an attention head; a block of fewer has no attention.
    taps: filter when resampling, or None for means and repetition.
    label_balance, concat_balance, res_balance, attn_balance: what the second part weighs in each sum.
    clip: activations are cut at plus and minus this after each block; None for nowhere.
    dropout: rate, drawn from the rng 'dropout' when train=True.
    num_classes: of the condition 'label', int [B], -1 for none; 0 for a network without.
    dtype, param_dtype, remat: as of `networks.UNet`.

  >>> net = MPUNet(width=8, channel_multipliers=(1, 2), num_res_blocks=1, attention_levels=(False, True))
  >>> x, t = jnp.zeros((2, 4, 6, 3)), jnp.zeros(2)
  >>> jax.eval_shape(net.init_with_output, jax.random.key(0), x, t)[0].shape
  (2, 4, 6, 3)
  """

  width: int = 192
  channel_multipliers: Sequence[int] = (1, 2, 3, 4)
  num_res_blocks: int = 3
  noise_channels: int = 192
  embedding_channels: int = 768
  attention_levels: Sequence[bool] = (False, False, True, True)
  head_channels: int = 64
  taps: Sequence[float] | None = None
  label_balance: float = 0.5
  concat_balance: float = 0.5
  res_balance: float = 0.3
  attn_balance: float = 0.3
  clip: float | None = 256.0
  dropout: float = 0.0
  num_classes: int = 0
  dtype: Any = jnp.float32
  param_dtype: Any = jnp.float32
  remat: bool = False

  @nn.compact
  def __call__(
    self, x: jax.Array, t: jax.Array, cond: Mapping[str, jax.Array] | None = None, train: bool = False
  ) -> jax.Array:
    """The output, like x, in at least float32, at x [B, H, W, C] and t [B].

    Raises ValueError for a size that does not fit, and for conditions that it was not built for.
    """
    check_inputs(x, t, (4,), "MPUNet")
    levels, dtype, param_dtype = len(self.channel_multipliers), jnp.dtype(self.dtype), self.param_dtype
    check_divisible(x.shape[1:-1], 2 ** (levels - 1), f"a U-Net of {levels} levels")
    emb, kind = self._embedding(t, cond), nn.remat(Block) if self.remat else Block
    taps = None if self.taps is None else tuple(self.taps)

    def block(name, features, h, up, attention=False, resample=None):
      heads = features // self.head_channels if attention else 0
      balances = (self.res_balance, self.attn_balance)
      return kind(
        features, up, heads, resample, taps, self.dropout, not train, balances, self.clip, dtype, param_dtype,
        name=name,
      )(h, emb)  # fmt: skip

    widths, channels = [self.width * multiplier for multiplier in self.channel_multipliers], x.shape[-1]
    h = jnp.concatenate([x, jnp.ones_like(x[..., :1])], axis=-1).astype(dtype)
    h = placed(MPConv(widths[0], 3, dtype, param_dtype, name="first")(h))
    skips = [h]
    for level, width in enumerate(widths):
      if level:
        h = block(f"down_{level}", h.shape[-1], h, up=False, resample="down")
        skips.append(h)
      for i in range(self.num_res_blocks):
        h = block(f"encoder_{level}_{i}", width, h, False, self.attention_levels[level])
        skips.append(h)
    h = block("middle_0", h.shape[-1], h, up=True, attention=True)
    h = block("middle_1", h.shape[-1], h, up=True)
    for level, width in reversed(list(enumerate(widths))):
      if level < levels - 1:
        h = block(f"up_{level}", h.shape[-1], h, up=True, resample="up")
      for i in range(self.num_res_blocks + 1):
        h = mp_concatenate(h, skips.pop(), self.concat_balance)
        h = block(f"decoder_{level}_{i}", width, h, True, self.attention_levels[level])
    gain = self.param("last_gain", nn.initializers.zeros, (), param_dtype)
    h = MPConv(channels, 3, dtype, param_dtype, name="last")(h, gain.astype(at_least_single(dtype)))
    return h.astype(at_least_single(dtype))

  @nn.nowrap
  def _embedding(self, t, cond):
    """Features of t and the class [B, E], in float32 throughout."""
    single = at_least_single(self.dtype)
    dense = lambda name: MPConv(self.embedding_channels, 0, single, self.param_dtype, name=name)
    h = dense("noise")(MPFourier(self.noise_channels, self.param_dtype, name="fourier")(t.astype(single)))
    cond = dict(cond or {})
    label = cond.pop("label", None)
    if cond or (label is not None and not self.num_classes):
      unknown = sorted(cond) or ["label"]
      raise ValueError(f"This network was not built for the conditions {unknown}: leave them out.")
    if self.num_classes:
      label = jnp.full(t.shape, -1, jnp.int32) if label is None else jnp.asarray(label)
      if label.shape != t.shape or not jnp.issubdtype(label.dtype, jnp.integer):
        raise ValueError(f"'label' must be integers of shape {t.shape}, got {label.dtype} of {label.shape}.")
      one_hot = jax.nn.one_hot(label, self.num_classes, dtype=single) * math.sqrt(self.num_classes)
      h = mp_sum(h, dense("class")(one_hot), self.label_balance)
    return mp_swish(h)
