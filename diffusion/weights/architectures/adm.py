"""The U-Net of ADM (arXiv:2105.05233): adaptive group norm, many heads, resampling within blocks.

EDM's DhariwalUNet (`dhariwal_unet`) and the networks of guided-diffusion and of OpenAI's consistency models
(`guided_diffusion`) are this one. It is not `networks.UNet` with other options: the embedding scales as well
as shifts, after the second norm; attention follows every block of its levels on the way up too; nothing is
rescaled; the shortcut of a block that resamples has no convolution; time features are cosines, then sines, of
other frequencies.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from diffusion.math.precision import at_least_single
from diffusion.networks import resampling
from diffusion.networks.attention import attend
from diffusion.networks.embeddings import Condition
from diffusion.networks.layers import check_inputs, num_groups, placed
from diffusion.networks.sizes import check_divisible
from diffusion.weights.architectures.layers import GroupNorm, snapped


def cosines(t: jax.Array, size: int, max_period: float = 10000.0) -> jax.Array:
  """Cosines, then sines, of t [B] at the frequencies max_period^(-i / half), i < half: [B, size], size even.

  >>> cosines(jnp.zeros(1), 4).tolist()
  [[1.0, 1.0, 0.0, 0.0]]
  """
  # At t = 999 a last digit of a frequency is sixty of the angle: they are rounded in the original's order.
  half = size // 2
  frequencies = np.exp(t.dtype.type(-math.log(max_period)) * np.arange(half, dtype=t.dtype) / half)
  angle = t[:, None] * jnp.asarray(frequencies, t.dtype)[None, :]
  return jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=-1)


INIT = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def norm(channels: int, groups: int, precision: Mapping[str, Any], name: str) -> GroupNorm:
  """ADM's group norm of 1e-5; 0 groups stand for a quarter of the channels, at most 32, as in EDM."""
  return GroupNorm(groups or num_groups(channels), 1e-5, name=name, **precision)


class Block(nn.Module):
  """Normalise, swish, convolve, twice, and attention; x [B, H, W, C] -> [B, H, W, features].

  The embedding [B, E] gives the scale and the shift after the second norm; without `scale_shift` it is added
  before it. With `resample` 'up' or 'down' both branches are resampled before the first convolution. `heads`
  is 0 for no attention, `groups` of the norms as in `norm`.
  """

  features: int
  heads: int = 0
  resample: str | None = None
  dropout: float = 0.0
  deterministic: bool = True
  groups: int = 0
  scale_shift: bool = True
  dtype: Any = jnp.float32
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, embedding: jax.Array) -> jax.Array:
    precision: dict[str, Any] = dict(dtype=self.dtype, param_dtype=self.param_dtype)
    h = nn.swish(norm(x.shape[-1], self.groups, precision, "norm_0")(x))
    if self.resample is not None:
      change = {"up": resampling.upsample, "down": resampling.downsample}[self.resample]
      h, x = change(h), change(x)
    h = nn.Conv(self.features, (3, 3), kernel_init=INIT, name="conv_0", **precision)(h)
    width = 2 * self.features if self.scale_shift else self.features
    shift = nn.Dense(width, kernel_init=INIT, name="embedding", **precision)(embedding)[:, None, None, :]
    second = norm(self.features, self.groups, precision, "norm_1")
    if self.scale_shift:
      scale, shift = jnp.split(shift, 2, axis=-1)
      h = second(h) * (scale + 1.0) + shift
    else:
      h = second(h + shift)
    h = nn.Dropout(self.dropout, deterministic=self.deterministic)(nn.swish(h))
    h = nn.Conv(self.features, (3, 3), kernel_init=nn.initializers.zeros, name="conv_1", **precision)(h)
    if x.shape[-1] != self.features:
      x = nn.Conv(self.features, (1, 1), kernel_init=INIT, name="shortcut", **precision)(x)
    x = x + h
    if self.heads:
      x = x + self._attention(x, precision)
    return placed(x)

  @nn.nowrap
  def _attention(self, x, precision):
    batch, channels = x.shape[0], self.features
    h = norm(channels, self.groups, precision, "norm_2")(x).reshape(batch, -1, channels)
    h = nn.Dense(3 * channels, kernel_init=INIT, name="qkv", **precision)(h)
    query, key, value = jnp.moveaxis(h.reshape(batch, -1, 3, self.heads, channels // self.heads), 2, 0)
    h = attend(query, key, value).reshape(batch, -1, channels)
    return nn.Dense(channels, kernel_init=nn.initializers.zeros, name="out", **precision)(h).reshape(x.shape)


class Trunk(nn.Module):
  """What the U-Net and the classifier of ADM have in common: the embedding, the way down and the middle.

  Attributes:
    width: channels of the unit; level i has width * channel_multipliers[i].
    channel_multipliers, num_res_blocks: of each level; one block more going up. A multiplier may be 0.5.
    attention_levels: whether blocks of a level have attention; the middle has it always.
    head_channels: channels of an attention head. A block of fewer has no attention, as in EDM.
    num_heads: heads of every attention; 0 for as many as head_channels says.
    embedding_multiplier: the embedding has this times width channels.
    groups: of the norms, see `norm`.
    scale_shift: see `Block`.
    resample_blocks: resampling within blocks, or by a convolution of its own.
    time_rounding: what a network of whole timesteps is told: see `layers.snapped`.
    dropout: rate, drawn from the rng 'dropout' when train=True.
    num_classes, vector_size: sizes of the conditions 'label' and 'vector'; 0 for none. The label enters after
      the two dense layers of the embedding, the vector before them.
    passed_over: names of conditions that others look at and this network does not.
    dtype, param_dtype, remat: as of `networks.UNet`.
  """

  width: int = 192
  channel_multipliers: Sequence[float] = (1, 2, 3, 4)
  num_res_blocks: int = 3
  attention_levels: Sequence[bool] = (False, True, True, True)
  head_channels: int = 64
  num_heads: int = 0
  embedding_multiplier: int = 4
  groups: int = 0
  scale_shift: bool = True
  resample_blocks: bool = True
  time_rounding: str = "none"
  dropout: float = 0.0
  num_classes: int = 0
  vector_size: int = 0
  passed_over: Sequence[str] = ()
  dtype: Any = jnp.float32
  param_dtype: Any = jnp.float32
  remat: bool = False

  @property
  def widths(self) -> tuple[int, ...]:
    """Channels of each level."""
    return tuple(int(self.width * multiplier) for multiplier in self.channel_multipliers)

  @property
  def precision(self) -> dict[str, Any]:
    """The dtypes of a layer."""
    return dict(dtype=jnp.dtype(self.dtype), param_dtype=jnp.dtype(self.param_dtype))

  @nn.nowrap
  def block(
    self,
    name: str,
    features: int,
    h: jax.Array,
    emb: jax.Array,
    train: bool,
    attention: bool = False,
    resample: str | None = None,
  ) -> jax.Array:
    """A block, or the convolution that resamples in its place; within the `__call__` of the network."""
    if resample and not self.resample_blocks:
      stride = (2, 2) if resample == "down" else (1, 1)
      h = resampling.upsample(h) if resample == "up" else h
      conv = nn.Conv(features, (3, 3), stride, ((1, 1),) * 2, kernel_init=INIT, name=name, **self.precision)
      return placed(conv(h))
    heads = (self.num_heads or features // self.head_channels) if attention else 0
    kind = nn.remat(Block) if self.remat else Block
    made = kind(
      features,
      heads,
      resample,
      self.dropout,
      not train,
      self.groups,
      self.scale_shift,
      name=name,
      **self.precision,
    )
    return made(h, emb)

  @nn.nowrap
  def way_down(
    self, x: jax.Array, t: jax.Array, cond: Mapping[str, jax.Array] | None, train: bool
  ) -> tuple[list[jax.Array], jax.Array, jax.Array]:
    """(what each block going down gives, what the middle gives, the embedding); within `__call__`.

    Raises ValueError for a size that does not fit, and for conditions that it was not built for.
    """
    check_inputs(x, t, (4,), type(self).__name__)
    levels, dtype = len(self.channel_multipliers), jnp.dtype(self.dtype)
    check_divisible(x.shape[1:-1], 2 ** (levels - 1), f"a U-Net of {levels} levels")
    emb = nn.swish(self._embedding(t, cond)).astype(dtype)
    first = nn.Conv(self.widths[0], (3, 3), kernel_init=INIT, name="first", **self.precision)
    h = placed(first(x.astype(dtype)))
    skips = [h]
    for level, width in enumerate(self.widths):
      if level:
        h = self.block(f"down_{level}", h.shape[-1], h, emb, train, resample="down")
        skips.append(h)
      for i in range(self.num_res_blocks):
        h = self.block(f"encoder_{level}_{i}", width, h, emb, train, self.attention_levels[level])
        skips.append(h)
    h = self.block("middle_0", h.shape[-1], h, emb, train, attention=True)
    return skips, self.block("middle_1", h.shape[-1], h, emb, train), emb

  @nn.nowrap
  def _embedding(self, t, cond):
    """Features of t and the conditions [B, E], in float32 throughout."""
    precision: dict[str, Any] = self.precision | dict(dtype=at_least_single(self.dtype))
    width = self.embedding_multiplier * self.width
    cond = {name: one for name, one in (cond or {}).items() if name not in self.passed_over}
    vector = {"vector": cond.pop("vector")} if "vector" in cond else {}
    h = cosines(snapped(t.astype(precision["dtype"]), self.time_rounding), self.width)
    early = Condition(self.width, vector_size=self.vector_size, name="augment", **precision)(
      vector, t.shape[0]
    )
    h = h if early is None else h + early
    h = nn.swish(nn.Dense(width, kernel_init=INIT, name="dense_0", **precision)(h))
    h = nn.Dense(width, kernel_init=INIT, name="dense_1", **precision)(h)
    late = Condition(width, num_classes=self.num_classes, name="class", **precision)(cond, t.shape[0])
    return h if late is None else h + late


class ADM(Trunk):
  """ADM's U-Net for [B, H, W, C] of sizes that 2^(levels - 1) divides.

  Attributes: those of `Trunk`, and
    out_channels: of the output; 0 for as many as the input has.

  >>> net = ADM(width=8, channel_multipliers=(1, 2), num_res_blocks=1, attention_levels=(False, True))
  >>> x, t = jnp.zeros((2, 4, 6, 3)), jnp.zeros(2)
  >>> jax.eval_shape(net.init_with_output, jax.random.key(0), x, t)[0].shape
  (2, 4, 6, 3)
  """

  out_channels: int = 0

  @nn.compact
  def __call__(
    self, x: jax.Array, t: jax.Array, cond: Mapping[str, jax.Array] | None = None, train: bool = False
  ) -> jax.Array:
    """The output [B, H, W, out_channels] in at least float32, at x [B, H, W, C] and t [B].

    Raises ValueError for a size that does not fit, and for conditions that it was not built for.
    """
    skips, h, emb = self.way_down(x, t, cond, train)
    for level, width in reversed(list(enumerate(self.widths))):
      if level < len(self.widths) - 1:
        h = self.block(f"up_{level}", h.shape[-1], h, emb, train, resample="up")
      for i in range(self.num_res_blocks + 1):
        h = jnp.concatenate([h, skips.pop()], axis=-1)
        h = self.block(f"decoder_{level}_{i}", width, h, emb, train, self.attention_levels[level])
    h = nn.swish(norm(h.shape[-1], self.groups, self.precision, "last_norm")(h))
    outputs = self.out_channels or x.shape[-1]
    h = nn.Conv(outputs, (3, 3), kernel_init=nn.initializers.zeros, name="last", **self.precision)(h)
    return h.astype(at_least_single(self.dtype))
