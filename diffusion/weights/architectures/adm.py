"""The U-Net of ADM (arXiv:2105.05233): adaptive group norm, many heads, resampling within blocks.

It is not `networks.UNet` with other options: the embedding scales as well as shifts, after the second norm;
attention follows every block of its levels on the way up too; nothing is rescaled; the shortcut of a block
that resamples has no convolution; time features are cosines, then sines, of other frequencies.
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
from diffusion.networks.embeddings import Condition
from diffusion.networks.layers import GroupNorm, check_inputs, placed
from diffusion.networks.sizes import check_divisible


def cosines(t: jax.Array, size: int, max_period: float = 10000.0) -> jax.Array:
  """Cosines, then sines, of t [B] at the frequencies max_period^(-i / half), i < half: [B, size], size even.

  >>> cosines(jnp.zeros(1), 4).tolist()
  [[1.0, 1.0, 0.0, 0.0]]
  """
  half = size // 2
  frequencies = jnp.exp(jnp.arange(half, dtype=t.dtype) * (-math.log(max_period) / half))
  angle = t[:, None] * frequencies[None, :]
  return jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=-1)


class Block(nn.Module):
  """Normalise, swish, convolve, twice, and attention; x [B, H, W, C] -> [B, H, W, features].

  The embedding [B, E] gives the scale and the shift after the second norm. With `resample` 'up' or 'down'
  both branches are resampled before the first convolution. `heads` is 0 for no attention.
  """

  features: int
  heads: int = 0
  resample: str | None = None
  dropout: float = 0.0
  deterministic: bool = True
  dtype: Any = jnp.float32
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, embedding: jax.Array) -> jax.Array:
    precision: dict[str, Any] = dict(dtype=self.dtype, param_dtype=self.param_dtype)
    init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
    h = nn.swish(GroupNorm(epsilon=1e-5, name="norm_0", **precision)(x))
    if self.resample is not None:
      change = {"up": resampling.upsample, "down": resampling.downsample}[self.resample]
      h, x = change(h), change(x)
    h = nn.Conv(self.features, (3, 3), kernel_init=init, name="conv_0", **precision)(h)
    parts = nn.Dense(2 * self.features, kernel_init=init, name="embedding", **precision)(embedding)
    scale, shift = jnp.split(parts[:, None, None, :], 2, axis=-1)
    h = nn.swish(GroupNorm(epsilon=1e-5, name="norm_1", **precision)(h) * (scale + 1.0) + shift)
    h = nn.Dropout(self.dropout, deterministic=self.deterministic)(h)
    h = nn.Conv(self.features, (3, 3), kernel_init=nn.initializers.zeros, name="conv_1", **precision)(h)
    if x.shape[-1] != self.features:
      x = nn.Conv(self.features, (1, 1), kernel_init=init, name="shortcut", **precision)(x)
    x = x + h
    if self.heads:
      x = x + self._attention(x, init, precision)
    return placed(x)

  @nn.nowrap
  def _attention(self, x, init, precision):
    batch, channels = x.shape[0], self.features
    h = GroupNorm(epsilon=1e-5, name="norm_2", **precision)(x).reshape(batch, -1, channels)
    h = nn.Dense(3 * channels, kernel_init=init, name="qkv", **precision)(h)
    query, key, value = jnp.moveaxis(h.reshape(batch, -1, 3, self.heads, channels // self.heads), 2, 0)
    h = attend(query, key, value).reshape(batch, -1, channels)
    return nn.Dense(channels, kernel_init=nn.initializers.zeros, name="out", **precision)(h).reshape(x.shape)


class ADM(nn.Module):
  """ADM's U-Net for [B, H, W, C] of sizes that 2^(levels - 1) divides.

  Attributes:
    width: channels of the unit; level i has width * channel_multipliers[i].
    channel_multipliers, num_res_blocks: of each level; one block more going up.
    attention_levels: whether blocks of a level have attention; the middle has it always.
    embedding_multiplier: the embedding has this times width channels.
    head_channels: channels of an attention head. A block of fewer has no attention, as in EDM.
    out_channels: of the output; 0 for as many as the input has.
    dropout: rate, drawn from the rng 'dropout' when train=True.
    num_classes, vector_size: sizes of the conditions 'label' and 'vector'; 0 for none. The label enters after
      the two dense layers of the embedding, the vector before them.
    dtype, param_dtype, remat: as of `networks.UNet`.

  >>> net = ADM(width=8, channel_multipliers=(1, 2), num_res_blocks=1, attention_levels=(False, True))
  >>> x, t = jnp.zeros((2, 4, 6, 3)), jnp.zeros(2)
  >>> jax.eval_shape(net.init_with_output, jax.random.key(0), x, t)[0].shape
  (2, 4, 6, 3)
  """

  width: int = 192
  channel_multipliers: Sequence[int] = (1, 2, 3, 4)
  num_res_blocks: int = 3
  attention_levels: Sequence[bool] = (False, True, True, True)
  head_channels: int = 64
  embedding_multiplier: int = 4
  out_channels: int = 0
  dropout: float = 0.0
  num_classes: int = 0
  vector_size: int = 0
  dtype: Any = jnp.float32
  param_dtype: Any = jnp.float32
  remat: bool = False

  @nn.compact
  def __call__(
    self, x: jax.Array, t: jax.Array, cond: Mapping[str, jax.Array] | None = None, train: bool = False
  ) -> jax.Array:
    """The output [B, H, W, out_channels] in at least float32, at x [B, H, W, C] and t [B].

    Raises ValueError for a size that does not fit, and for conditions that it was not built for.
    """
    check_inputs(x, t, (4,), "ADM")
    levels, dtype = len(self.channel_multipliers), jnp.dtype(self.dtype)
    check_divisible(x.shape[1:-1], 2 ** (levels - 1), f"a U-Net of {levels} levels")
    precision: dict[str, Any] = dict(dtype=dtype, param_dtype=jnp.dtype(self.param_dtype))
    init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
    emb = nn.swish(self._embedding(t, cond)).astype(dtype)
    kind = nn.remat(Block) if self.remat else Block

    def block(name, features, h, attention=False, resample=None):
      heads = features // self.head_channels if attention else 0
      return kind(features, heads, resample, self.dropout, not train, name=name, **precision)(h, emb)

    widths = [self.width * multiplier for multiplier in self.channel_multipliers]
    h = placed(nn.Conv(widths[0], (3, 3), kernel_init=init, name="first", **precision)(x.astype(dtype)))
    skips = [h]
    for level, width in enumerate(widths):
      if level:
        h = block(f"down_{level}", h.shape[-1], h, resample="down")
        skips.append(h)
      for i in range(self.num_res_blocks):
        h = block(f"encoder_{level}_{i}", width, h, self.attention_levels[level])
        skips.append(h)
    h = block("middle_0", h.shape[-1], h, attention=True)
    h = block("middle_1", h.shape[-1], h)
    for level, width in reversed(list(enumerate(widths))):
      if level < levels - 1:
        h = block(f"up_{level}", h.shape[-1], h, resample="up")
      for i in range(self.num_res_blocks + 1):
        h = jnp.concatenate([h, skips.pop()], axis=-1)
        h = block(f"decoder_{level}_{i}", width, h, self.attention_levels[level])
    h = nn.swish(GroupNorm(epsilon=1e-5, name="last_norm", **precision)(h))
    outputs = self.out_channels or x.shape[-1]
    h = nn.Conv(outputs, (3, 3), kernel_init=nn.initializers.zeros, name="last", **precision)(h)
    return h.astype(at_least_single(dtype))

  @nn.nowrap
  def _embedding(self, t, cond):
    """Features of t and the conditions [B, E], in float32 throughout."""
    precision: dict[str, Any] = dict(
      dtype=at_least_single(self.dtype), param_dtype=jnp.dtype(self.param_dtype)
    )
    cond, width = dict(cond or {}), self.embedding_multiplier * self.width
    vector = {"vector": cond.pop("vector")} if "vector" in cond else {}
    h = cosines(t.astype(precision["dtype"]), self.width)
    early = Condition(self.width, vector_size=self.vector_size, name="augment", **precision)(
      vector, t.shape[0]
    )
    h = h if early is None else h + early
    init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
    h = nn.swish(nn.Dense(width, kernel_init=init, name="dense_0", **precision)(h))
    h = nn.Dense(width, kernel_init=init, name="dense_1", **precision)(h)
    late = Condition(width, num_classes=self.num_classes, name="class", **precision)(cond, t.shape[0])
    return h if late is None else h + late
