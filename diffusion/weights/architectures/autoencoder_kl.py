"""diffusers' AutoencoderKL, the autoencoder of Stable Diffusion, DiT and SiT, as a codec of this library."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from diffusion.config.errors import UserError
from diffusion.math.precision import at_least_single
from diffusion.networks.layers import placed
from diffusion.weights.architectures import options, torch_layout
from diffusion.weights.architectures.kl_codec import AutoencoderKL, shapes_of
from diffusion.weights.architectures.layers import Downsample, ResnetBlock, Style, Upsample
from diffusion.weights.architectures.unet2d_blocks import MidBlock

NAME = "AutoencoderKL"
EPSILON = 1e-6
"""Of every norm."""


@dataclasses.dataclass(frozen=True)
class Options:
  """The options of a config.json of diffusers 0.42 with its defaults, under its names."""

  in_channels: int = 3
  out_channels: int = 3
  down_block_types: tuple[str, ...] = ("DownEncoderBlock2D",)
  up_block_types: tuple[str, ...] = ("UpDecoderBlock2D",)
  block_out_channels: tuple[int, ...] = (64,)
  layers_per_block: int = 1
  act_fn: str = "silu"
  latent_channels: int = 4
  norm_num_groups: int = 32
  sample_size: int | tuple[int, int] = 32
  scaling_factor: float = 0.18215
  shift_factor: float | None = None
  latents_mean: tuple[float, ...] | None = None
  latents_std: tuple[float, ...] | None = None
  use_quant_conv: bool = True
  use_post_quant_conv: bool = True
  mid_block_add_attention: bool = True


class Half(nn.Module):
  """The encoder or the decoder: h [B, H, W, C] -> [B, H', W', channels].

  Attributes:
    options: of the config.
    channels: that come out.
    up: whether it is the decoder, which begins with the middle and has a residual block more on each level.
    style: what all blocks share.
  """

  options: Options
  channels: int
  up: bool
  style: Style

  @nn.compact
  def __call__(self, h: jax.Array) -> jax.Array:
    c, style = self.options, self.style
    widths = tuple(reversed(c.block_out_channels)) if self.up else c.block_out_channels
    middle = MidBlock(
      c.norm_num_groups,
      c.norm_num_groups,
      c.block_out_channels[-1],
      c.mid_block_add_attention,
      1.0,
      style,
      name="mid_block",
    )
    h = placed(style.conv(widths[0], "conv_in")(h.astype(style.dtype)))
    if self.up:
      h = middle(h, None)
    for i, width in enumerate(widths):
      name = f"{'up' if self.up else 'down'}_blocks_{i}"
      h = Level(c, width, self.up, i == len(widths) - 1, style, name=name)(h)
    if not self.up:
      h = middle(h, None)
    h = nn.silu(style.norm(c.norm_num_groups, "conv_norm_out")(h))
    return style.conv(self.channels, "conv_out")(h)


class Level(nn.Module):
  """Residual blocks of one size, and the step to the next size unless it is the `last`: h [B, H, W, C]."""

  options: Options
  width: int
  up: bool
  last: bool
  style: Style

  @nn.compact
  def __call__(self, h: jax.Array) -> jax.Array:
    c, style = self.options, self.style
    block = style.stored(ResnetBlock)
    for i in range(c.layers_per_block + self.up):
      h = block(self.width, c.norm_num_groups, c.norm_num_groups, style, name=f"resnets_{i}")(h, None)
    if self.last:
      return h
    return (
      Upsample(style, name="upsamplers_0")(h) if self.up else Downsample(0, style, name="downsamplers_0")(h)
    )


class Network(nn.Module):
  """Both halves: pictures [B, H, W, 3] to the moments of a Gaussian over latents, and latents to pictures.

  Views: `latent` and `reconstruction`, so that `losses.reconstruction` trains it. Times and conditions are
  not used.

  Attributes:
    options: of the config.
    dtype, param_dtype: of the computation and of the parameters; norms, softmax and outputs stay in float32.
    remat: recompute the blocks in the backward pass instead of storing them.

  >>> net = build({"block_out_channels": [8], "norm_num_groups": 4})
  >>> x = jnp.zeros((2, 6, 4, 3))
  >>> mean, std = jax.eval_shape(net.init_with_output, jax.random.key(0), x)[0]
  >>> mean.shape, std.shape
  ((2, 6, 4, 4), (2, 6, 4, 4))
  """

  options: Options
  dtype: Any = jnp.float32
  param_dtype: Any = jnp.float32
  remat: bool = False

  views: ClassVar[tuple[str, ...]] = ("latent", "reconstruction")

  @property
  def diffusers_config(self) -> dict[str, Any]:
    """The contents of the config.json that `build` takes."""
    return options.written(self.options, NAME)

  def setup(self) -> None:
    c = self.options
    style = Style(
      EPSILON, dtype=jnp.dtype(self.dtype), param_dtype=jnp.dtype(self.param_dtype), remat=self.remat
    )
    one = lambda channels: nn.Conv(
      channels, (1, 1), padding="VALID", dtype=style.dtype, param_dtype=style.param_dtype
    )
    self.encoder = Half(c, 2 * c.latent_channels, False, style)
    self.decoder = Half(c, c.out_channels, True, style)
    if c.use_quant_conv:
      self.quant_conv = one(2 * c.latent_channels)
    if c.use_post_quant_conv:
      self.post_quant_conv = one(c.latent_channels)

  def moments(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(mean, standard deviation) of the latents of x [B, H, W, C] in [-1, 1]: each [B, H/f, W/f, Z].

    The log variance is cut to [-30, 20], as in the original.
    """
    h = self.encoder(x)
    h = self.quant_conv(h) if self.options.use_quant_conv else h
    mean, log_variance = jnp.split(h.astype(at_least_single(self.dtype)), 2, axis=-1)
    return mean, jnp.exp(0.5 * jnp.clip(log_variance, -30.0, 20.0))

  def decode(self, z: jax.Array) -> jax.Array:
    """Pictures [B, H, W, C] of latents z [B, H/f, W/f, Z], which are those of `moments`."""
    z = z.astype(jnp.dtype(self.dtype))
    h = self.decoder(self.post_quant_conv(z) if self.options.use_post_quant_conv else z)
    return h.astype(at_least_single(self.dtype))

  def encode(self, x: jax.Array) -> jax.Array:
    """The mean of the latents of x, neither shifted nor scaled: [B, H/f, W/f, Z]."""
    return self.moments(x)[0]

  def latent(self, x: jax.Array, t: jax.Array, cond: Any = None) -> jax.Array:
    """The view of data x: [B, H, W, C]: `encode` of them."""
    del t, cond
    return self.encode(x)

  def reconstruction(self, x: jax.Array, t: jax.Array, cond: Any = None) -> jax.Array:
    """The view of latents, [B, H/f, W/f, Z] in the place of x: `decode` of them."""
    del t, cond
    return self.decode(x)

  def __call__(
    self, x: jax.Array, t: jax.Array | None = None, cond: Any = None, train: bool = False
  ) -> tuple[jax.Array, jax.Array]:
    del t, cond, train
    mean, std = self.moments(x)
    if self.is_initializing():
      self.decode(mean)
    return mean, std


def build(config: Mapping[str, Any], **changes: Any) -> Network:
  """The module of a config.json; `changes` are `dtype`, `param_dtype` and `remat` of `Network`.

  Raises UserError for a config that is not one of a known AutoencoderKL.
  """
  c = options.read(config, Options, NAME, {"act_fn": ("silu", "swish")}, ("force_upcast",))
  for name, types, known in (
    ("down", c.down_block_types, "DownEncoderBlock2D"),
    ("up", c.up_block_types, "UpDecoderBlock2D"),
  ):
    if set(types) != {known} or len(types) != len(c.block_out_channels):
      raise UserError(
        f"an {NAME} has {known} as each of its {len(c.block_out_channels)} {name}_block_types here, got "
        f"{', '.join(types)}"
      )
  if (c.latents_mean is None) != (c.latents_std is None) or None not in (c.latents_mean, c.shift_factor):
    raise UserError(
      f"an {NAME} has latents_mean and latents_std together, or a shift_factor, and here has "
      f"latents_mean={c.latents_mean}, latents_std={c.latents_std}, shift_factor={c.shift_factor}"
    )
  return Network(c, **changes)


def codec_of(config: Mapping[str, Any], sampled: bool = True, **changes: Any) -> AutoencoderKL:
  """The codec of a config.json, whose parameters `convert` makes.

  Args:
    config: contents of config.json.
    sampled: see `AutoencoderKL`.
    **changes: as of `build`.

  Raises UserError as `build`.
  """
  network = build(config, **changes)
  c = network.options
  if c.latents_mean is None:
    shift, scale = np.float32(c.shift_factor or 0.0), np.float32(c.scaling_factor)
  else:
    shift = np.asarray(c.latents_mean, np.float32)
    scale = np.float32(c.scaling_factor) / np.asarray(c.latents_std, np.float32)
  return AutoencoderKL(shift, scale, network, sampled)


def codec(config: Mapping[str, Any], arrays: Mapping[str, Any], **changes: Any) -> tuple[AutoencoderKL, Any]:
  """(codec, its parameters in float32) of a published AutoencoderKL; `changes` as of `codec_of`."""
  return codec_of(config, **changes), torch_layout.in_single(convert(arrays, config))


def convert(arrays: Mapping[str, Any], config: Mapping[str, Any]) -> Any:
  """The parameters of `build(config)` from the arrays of a published file, in the file's own dtype.

  Names of attention from before 2023 (query, key, value, proj_attn) are known too.

  Raises UserError for names missing or left over, and for arrays of another shape.
  """
  network: Any = build(config)
  return torch_layout.convert(arrays, shapes_of(network), NAME, torch_layout.attention_of_today)


def with_deviation(params: Any, config: Mapping[str, Any], deviation: float) -> Any:
  """The parameters whose encoder gives the same mean, and this deviation for every latent of every picture.

  So an encoder is written that was trained with a deviation of its own choice (`losses.reconstruction`).

  Raises ValueError for a deviation that is not above 0.
  """
  if not deviation > 0:
    raise ValueError(f"a deviation of latents is above 0, got {deviation}")
  c = build(config).options

  def fixed(layer):
    half = layer["bias"].shape[0] // 2
    bias = np.asarray(layer["bias"]).copy()
    kernel = np.asarray(layer["kernel"]).copy()
    kernel[..., half:], bias[half:] = 0.0, 2 * np.log(deviation)
    return {"kernel": kernel, "bias": bias}

  if c.use_quant_conv:
    return {**params, "quant_conv": fixed(params["quant_conv"])}
  return {**params, "encoder": {**params["encoder"], "conv_out": fixed(params["encoder"]["conv_out"])}}


def export(params: Any, config: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """The arrays of diffusers' file, by dotted name: the inverse of `convert`, bit for bit."""
  del config
  return torch_layout.export(params)
