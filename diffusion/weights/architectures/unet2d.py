"""diffusers' UNet2DModel: DDPM's U-Net and its variants, and NCSN++ (google/ddpm-*, google/ncsnpp-*)."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from diffusion import denoisers, processes
from diffusion.config.errors import UserError
from diffusion.math.precision import at_least_single
from diffusion.networks.embeddings import Fourier
from diffusion.networks.layers import check_inputs, placed
from diffusion.networks.sizes import check_divisible
from diffusion.weights.architectures import scheduler, torch_layout
from diffusion.weights.architectures.layers import Style, TimestepEmbedding, snapped, time_features
from diffusion.weights.architectures.options import written
from diffusion.weights.architectures.unet2d_blocks import DOWN, UP, DownBlock, Kind, Level, MidBlock, UpBlock
from diffusion.weights.architectures.unet2d_options import NAME, Options, read


class UNet2D(nn.Module):
  """diffusers' UNet2DModel as a network of this library: x [B, H, W, C] -> [B, H, W, out_channels].

  Attributes:
    options: of the config.
    kept: channels of the output that are returned, the first ones; None for all. Networks with a learned
      variance have it behind the prediction.
    time_rounding: how a time is told to a network that was trained on whole numbers: see `layers.snapped`.
      Times of 'fourier' are noise levels and never rounded.
    dropout: rate when train=True; None for the config's.
    dtype, param_dtype: of the computation and of the parameters; embeddings, softmax, normalisation
      statistics and the output stay in float32.
    remat: recompute the blocks in the backward pass instead of storing them.

  t is the network's own time: 0 to 999 in DDPM, the noise level in NCSN++ ('fourier'). cond is None or a
  dict: 'label' int [B] for num_class_embeds and class_embed_type 'timestep', where -1 and no label are no
  class and add nothing; 'vector' [B, time_embedding_dim] for 'identity'. Classes that a model's authors keep
  for "no class" are labels like others.

  Raises ValueError for sizes that the levels do not divide, other channels, and conditions it has not.

  >>> config = {"block_out_channels": [8, 8], "down_block_types": ["DownBlock2D", "AttnDownBlock2D"]}
  >>> config |= {"up_block_types": ["AttnUpBlock2D", "UpBlock2D"], "norm_num_groups": 4}
  >>> net, x, t = build(config), jnp.zeros((2, 4, 6, 3)), jnp.zeros(2)
  >>> jax.eval_shape(net.init_with_output, jax.random.key(0), x, t)[0].shape
  (2, 4, 6, 3)
  """

  options: Options
  kept: int | None = None
  time_rounding: str = "snap"
  dropout: float | None = None
  dtype: Any = jnp.float32
  param_dtype: Any = jnp.float32
  remat: bool = False

  @property
  def diffusers_config(self) -> dict[str, Any]:
    """The contents of the config.json that `build` takes."""
    return written(self.options, NAME)

  @nn.compact
  def __call__(
    self, x: jax.Array, t: jax.Array, cond: Mapping[str, jax.Array] | None = None, train: bool = False
  ) -> jax.Array:
    c = self.options
    check_inputs(x, t, (4,), NAME)
    if x.shape[-1] != c.in_channels:
      raise ValueError(f"this {NAME} takes {c.in_channels} channels, got x of shape {x.shape}")
    levels = len(c.block_out_channels)
    check_divisible(x.shape[1:-1], 2 ** (levels - 1), f"a {NAME} of {levels} levels")
    style = Style(
      c.norm_eps,
      c.resnet_time_scale_shift == "scale_shift",
      c.dropout if self.dropout is None else self.dropout,
      not train,
      jnp.dtype(self.dtype),
      jnp.dtype(self.param_dtype),
      self.remat,
    )
    t = t.astype(at_least_single(self.dtype))
    time = nn.silu(self._embedding(t, cond)).astype(style.dtype)

    image = (2.0 * x - 1.0 if c.center_input_sample else x).astype(style.dtype)
    skips = [placed(style.conv(c.block_out_channels[0], "conv_in")(image))]
    for i in range(levels):
      states, image = DownBlock(self._level(i, False, style), name=f"down_blocks_{i}")(skips[-1], time, image)
      skips.extend(states)
    h = skips[-1]
    if c.mid_block_type is not None:
      width, own = c.block_out_channels[-1], c.attn_norm_num_groups
      groups = c.norm_num_groups or min(width // 4, 32)
      normed = groups if own is None and not style.scale_shift else own
      head = c.attention_head_dim or width
      middle = MidBlock(
        groups, normed, head, c.add_attention, c.mid_block_scale_factor, style, name="mid_block"
      )
      h = middle(h, time)
    image = None
    for i in range(levels):
      level = self._level(i, True, style)
      taken, skips = tuple(skips[-level.layers :]), skips[: -level.layers]
      h, image = UpBlock(level, c.out_channels, name=f"up_blocks_{i}")(h, taken, time, image)
    groups = c.norm_num_groups or min(c.block_out_channels[0] // 4, 32)
    h = style.conv(c.out_channels, "conv_out")(nn.silu(style.norm(groups, "conv_norm_out")(h)))
    h = h.astype(at_least_single(self.dtype))
    if image is not None:
      h = h + image.astype(h.dtype)
    if c.time_embedding_type == "fourier":
      h = h / t[:, None, None, None]
    return h[..., : self.kept]

  def _embedding(self, t, cond):
    """Time and class, [B, E], in float32 or wider."""
    c = self.options
    precision: dict[str, Any] = dict(dtype=t.dtype, param_dtype=jnp.dtype(self.param_dtype))
    width = c.time_embedding_dim or 4 * c.block_out_channels[0]
    if c.time_embedding_type == "fourier":
      project = Fourier(c.block_out_channels[0], 16.0, precision["param_dtype"], name="time_proj")
      features = lambda t: project(jnp.log(t))
    else:
      t = snapped(t, self.time_rounding)
      features = lambda t: time_features(t, c.block_out_channels[0], c.freq_shift, c.flip_sin_to_cos)
    h = TimestepEmbedding(width, name="time_embedding", **precision)(features(t))
    given, kind = dict(cond or {}), _condition(c)
    strange = sorted(set(given) - {kind})
    if strange:
      takes = f"takes the condition {kind!r}" if kind else "takes no condition"
      raise ValueError(f"this {NAME} {takes}, got also {strange}")
    if kind == "vector":
      return h + given.get("vector", jnp.zeros(())).astype(h.dtype)
    if kind is None:
      return h
    label = given.get("label", jnp.full(t.shape, -1, jnp.int32))
    if label.shape != t.shape or not jnp.issubdtype(label.dtype, jnp.integer):
      raise ValueError(
        f"'label' must be integers of shape {t.shape}, got {label.dtype} of shape {label.shape}"
      )
    if c.class_embed_type == "timestep":
      embedded = TimestepEmbedding(width, name="class_embedding", **precision)(
        features(jnp.maximum(label, 0).astype(t.dtype))
      )
    else:
      embedded = nn.Embed(c.num_class_embeds or 0, width, name="class_embedding", **precision)(
        jnp.maximum(label, 0)
      )
    return h + jnp.where(label[:, None] < 0, jnp.zeros((), h.dtype), embedded)

  def _level(self, index, up, style):
    c = self.options
    widths = tuple(reversed(c.block_out_channels)) if up else c.block_out_channels
    kind = UP[c.up_block_types[index]] if up else DOWN[c.down_block_types[index]]
    if kind.change == "config":
      kind = Kind(kind.attention, c.upsample_type if up else c.downsample_type)
    return Level(
      kind,
      widths[index],
      c.layers_per_block + up,
      c.norm_num_groups,
      c.attention_head_dim or widths[index],
      c.downsample_padding,
      index == len(widths) - 1,
      style,
    )


def build(config: Mapping[str, Any], **changes: Any) -> UNet2D:
  """The module of a config.json.

  Args:
    config: its contents.
    **changes: `kept`, `time_rounding`, `dropout`, `dtype`, `param_dtype` and `remat` of `UNet2D`.

  Raises UserError for a config that is not one of a known UNet2DModel.

  >>> build({"down_block_types": ["KDownBlock2D"], "block_out_channels": [8]})
  Traceback (most recent call last):
  ...
  diffusion.config.errors.UserError: a UNet2DModel with a block of type 'KDownBlock2D' is not known here: \
down_block_types are some of DownBlock2D, AttnDownBlock2D, ResnetDownsampleBlock2D, SkipDownBlock2D, \
AttnSkipDownBlock2D
  """
  return UNet2D(read(config), **changes)


def convert(arrays: Mapping[str, Any], config: Mapping[str, Any]) -> Any:
  """The parameters of `build(config)` from the arrays of a published file, in the file's own dtype.

  Names of attention from before 2023 (query, key, value, proj_attn) are known too.

  Raises UserError for names missing or left over, and for arrays of another shape.
  """
  return torch_layout.convert(arrays, shapes(config), NAME, torch_layout.attention_of_today)


def export(params: Any, config: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """The arrays of diffusers' file, by dotted name: the inverse of `convert`, bit for bit."""
  del config
  return torch_layout.export(params)


def shapes(config: Mapping[str, Any]) -> Any:
  """Shapes of the parameters of `build(config)`."""
  module: Any = build(config)
  return jax.tree.map(lambda leaf: leaf, _shapes(module))


@functools.lru_cache(maxsize=16)
def _shapes(module: UNet2D) -> Any:
  c, side = module.options, 2 ** (len(module.options.block_out_channels) - 1)
  x = jax.ShapeDtypeStruct((1, side, side, c.in_channels), jnp.float32)
  kind, width = _condition(c), c.time_embedding_dim or 4 * c.block_out_channels[0]
  label, vector = jax.ShapeDtypeStruct((1,), jnp.int32), jax.ShapeDtypeStruct((1, width), jnp.float32)
  cond = {} if kind is None else {kind: {"label": label, "vector": vector}[kind]}
  return torch_layout.shapes_of(module, x, jax.ShapeDtypeStruct((1,), jnp.float32), cond)


def parts(
  config: Mapping[str, Any], scheduler_config: Mapping[str, Any] | None, **changes: Any
) -> tuple[UNet2D, processes.GaussianProcess, denoisers.Parameterization]:
  """(network, process, what its output means) of a published UNet2DModel.

  Args:
    config: contents of config.json.
    scheduler_config: contents of scheduler_config.json, which says the process and what is predicted; None
      for what the network's time says: DDPM's table and noise, or Score SDE's levels and score.
    **changes: as of `build`.

  Raises UserError for what is not known: see `build` and `scheduler.read`.
  """
  c = build(config).options
  twice = c.out_channels == 2 * c.in_channels
  if c.out_channels != c.in_channels and not twice:
    raise UserError(
      f"a denoiser gives {c.in_channels} channels, or twice as many with a learned variance, and this {NAME} "
      f"gives {c.out_channels}"
    )
  module = build(config, **dict(kept=c.in_channels if twice else None) | changes)
  return module, *scheduler.read(scheduler_config, levels=c.time_embedding_type == "fourier")


def denoiser(
  config: Mapping[str, Any],
  scheduler_config: Mapping[str, Any] | None,
  arrays: Mapping[str, Any],
  **changes: Any,
) -> denoisers.NetworkDenoiser:
  """The library's denoiser of a published UNet2DModel, with parameters in float32.

  Args:
    config, scheduler_config, **changes: as of `parts`.
    arrays: of the file, by dotted name.

  Raises UserError for what is not known: see `parts` and `convert`.
  """
  module, process, meaning = parts(config, scheduler_config, **changes)
  return denoisers.from_flax(module, process, meaning, torch_layout.in_single(convert(arrays, config)))


def _condition(c: Options) -> str | None:
  """The one condition that the network takes."""
  if c.class_embed_type == "identity":
    return "vector"
  return "label" if c.class_embed_type == "timestep" or c.num_class_embeds is not None else None
