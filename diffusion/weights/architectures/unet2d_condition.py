"""diffusers' UNet2DConditionModel: the U-Net of Stable Diffusion 1 and 2, told a text by its embedding."""

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
from diffusion.networks.layers import check_inputs, placed
from diffusion.networks.sizes import check_divisible
from diffusion.weights.architectures import scheduler, torch_layout
from diffusion.weights.architectures.layers import Style, TimestepEmbedding, snapped, time_features
from diffusion.weights.architectures.unet2d_condition_blocks import DownBlock, Level, MidBlock, UpBlock
from diffusion.weights.architectures.unet2d_condition_options import DOWN, NAME, UP, Options, read

NO_TEXT = "no_text"
"""The collection that holds the embedding of no text."""


class UNet2DCondition(nn.Module):
  """diffusers' UNet2DConditionModel as a network of this library.

  x [B, H, W, C], t [B] and cond {'text': [B, N, D]} give [B, H, W, out_channels]. t is the network's own
  time, 0 to 999; D is cross_attention_dim.

  With `no_text` the collection of that name holds the embedding [N, D] that stands for no text, which is that
  of the empty prompt in Stable Diffusion. It takes the place of each text that is zero throughout, which is
  what the null condition of classifier-free guidance is here, and of a text that is not given.

  Attributes:
    options: of the config.
    no_text: number of tokens N of the embedding of no text; None where there is none, so that a text must be
      given and zeros are told as they are.
    time_rounding, dropout, dtype, param_dtype, remat: as in `unet2d.UNet2D`.

  Raises ValueError for sizes that the levels do not divide, other channels, other conditions, and a text of
  another shape or none where one is needed.

  >>> config = {"block_out_channels": [8, 8], "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"]}
  >>> config |= {"up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"], "norm_num_groups": 4}
  >>> net = build(config | {"cross_attention_dim": 6, "attention_head_dim": 2})
  >>> x, t, cond = jnp.zeros((2, 4, 6, 4)), jnp.zeros(2), {"text": jnp.zeros((2, 77, 6))}
  >>> jax.eval_shape(net.init_with_output, jax.random.key(0), x, t, cond)[0].shape
  (2, 4, 6, 4)
  """

  options: Options
  no_text: int | None = None
  time_rounding: str = "snap"
  dropout: float | None = None
  dtype: Any = jnp.float32
  param_dtype: Any = jnp.float32
  remat: bool = False

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
      dropout=c.dropout if self.dropout is None else self.dropout,
      deterministic=not train,
      dtype=jnp.dtype(self.dtype),
      param_dtype=jnp.dtype(self.param_dtype),
      remat=self.remat,
    )
    text = self._text(x.shape[0], cond).astype(style.dtype)
    t = snapped(t.astype(at_least_single(self.dtype)), self.time_rounding)
    features = time_features(t, c.block_out_channels[0], c.freq_shift, c.flip_sin_to_cos)
    embed = TimestepEmbedding(
      c.time_embedding_dim or 4 * c.block_out_channels[0],
      t.dtype,
      jnp.dtype(self.param_dtype),
      name="time_embedding",
    )
    time = nn.silu(embed(features)).astype(style.dtype)

    x = (2.0 * x - 1.0 if c.center_input_sample else x).astype(style.dtype)
    skips = [placed(style.conv(c.block_out_channels[0], "conv_in")(x))]
    for i in range(levels):
      skips.extend(DownBlock(self._level(i, False, style), name=f"down_blocks_{i}")(skips[-1], time, text))
    h = skips[-1]
    if c.mid_block_type is not None:
      middle = MidBlock(self._level(levels - 1, False, style), c.mid_block_scale_factor, name="mid_block")
      h = middle(h, time, text)
    for i in range(levels):
      level = self._level(i, True, style)
      taken, skips = tuple(skips[-level.layers :]), skips[: -level.layers]
      h = UpBlock(level, name=f"up_blocks_{i}")(h, taken, time, text)
    h = nn.silu(style.norm(c.norm_num_groups, "conv_norm_out")(h))
    return style.conv(c.out_channels, "conv_out")(h).astype(at_least_single(self.dtype))

  def _text(self, rows, cond):
    """The embeddings of the texts, [B, N, D]."""
    width, given = self.options.cross_attention_dim, dict(cond or {})
    strange = sorted(set(given) - {"text"})
    if strange:
      raise ValueError(f"this {NAME} takes the condition 'text', got also {strange}")
    none, text = None, given.get("text")
    if self.no_text is not None:
      shape = (self.no_text, width)
      none = self.variable(NO_TEXT, "text", jnp.zeros, shape, self.param_dtype).value
    if text is None:
      if none is None:
        raise ValueError(
          f"this {NAME} is told a text: give cond={{'text': embeddings of shape {(rows, 'N', width)}}}"
        )
      return jnp.broadcast_to(none, (rows, *none.shape))
    if text.ndim != 3 or (text.shape[0], text.shape[2]) != (rows, width):
      raise ValueError(
        f"'text' is an embedding of shape {(rows, 'N', width)}, got {text.shape}: embed the prompts with the "
        "text encoder of the same model"
      )
    if none is None:
      return text
    if text.shape[1] != none.shape[0]:
      raise ValueError(f"'text' has {text.shape[1]} tokens and no text has {none.shape[0]}: give as many")
    missing = jnp.all(text == 0, axis=(1, 2), keepdims=True)
    return jnp.where(missing, none.astype(text.dtype)[None], text)

  def _level(self, index, up, style):
    c = self.options
    order = (lambda each: tuple(reversed(each))) if up else tuple
    types, known = (c.up_block_types, UP) if up else (c.down_block_types, DOWN)
    return Level(
      order(c.block_out_channels)[index],
      c.layers_per_block + up,
      c.norm_num_groups,
      known[types[index]],
      order(c.heads)[index],
      c.transformer_layers_per_block,
      c.use_linear_projection,
      c.downsample_padding,
      index == len(types) - 1,
      style,
    )


def build(config: Mapping[str, Any], **changes: Any) -> UNet2DCondition:
  """The module of a config.json.

  Args:
    config: its contents.
    **changes: `no_text`, `time_rounding`, `dropout`, `dtype`, `param_dtype` and `remat` of `UNet2DCondition`.

  Raises UserError for a config that is not one of Stable Diffusion 1 or 2.

  >>> build({"addition_embed_type": "text_time"})
  Traceback (most recent call last):
  ...
  diffusion.config.errors.UserError: a UNet2DConditionModel with addition_embed_type='text_time' is not \
known here: addition_embed_type is one of None
  """
  return UNet2DCondition(read(config), **changes)


def convert(arrays: Mapping[str, Any], config: Mapping[str, Any]) -> Any:
  """The parameters of `build(config)` from the arrays of a published file, in the file's own dtype.

  Raises UserError for names missing or left over, and for arrays of another shape.
  """
  return torch_layout.convert(arrays, shapes(config), NAME)


def export(params: Any, config: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """The arrays of diffusers' file, by dotted name: the inverse of `convert`, bit for bit."""
  del config
  return torch_layout.export(params)


def shapes(config: Mapping[str, Any]) -> Any:
  """Shapes of the parameters of `build(config)`."""
  module: Any = build(config)
  return jax.tree.map(lambda leaf: leaf, _shapes(module))


@functools.lru_cache(maxsize=16)
def _shapes(module: UNet2DCondition) -> Any:
  c, side = module.options, 2 ** (len(module.options.block_out_channels) - 1)
  struct = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.float32)
  cond = {"text": struct(1, 2, c.cross_attention_dim)}
  return torch_layout.shapes_of(module, struct(1, side, side, c.in_channels), struct(1), cond)


def parts(
  config: Mapping[str, Any], scheduler_config: Mapping[str, Any] | None, **changes: Any
) -> tuple[UNet2DCondition, processes.GaussianProcess, denoisers.Parameterization]:
  """(network, process, what its output means) of a published UNet2DConditionModel.

  Args:
    config: contents of config.json.
    scheduler_config: contents of scheduler_config.json, which says the process and what is predicted; None
      for DDPM's table with a predicted noise, which Stable Diffusion's is not.
    **changes: as of `build`.

  Raises UserError for what is not known: see `build` and `scheduler.read`.
  """
  c = read(config)
  if c.out_channels != c.in_channels:
    raise UserError(
      f"a denoiser gives as many channels as it takes, and this {NAME} takes {c.in_channels} and gives "
      f"{c.out_channels}: it is told more than x, as for inpainting or depth, which is not known here"
    )
  return build(config, **changes), *scheduler.read(scheduler_config)


def without_text(config: Mapping[str, Any], no_text: Any) -> tuple[dict[str, Any], dict[str, Any]]:
  """(changes of the network, its collections) with which it knows what no text is.

  Args:
    config: contents of config.json.
    no_text: the embedding [N, D] of the empty prompt.

  Raises UserError for an embedding of another width than the network reads.
  """
  width = read(config).cross_attention_dim
  if no_text.ndim != 2 or no_text.shape[1] != width:
    raise UserError(
      f"the text encoder gives embeddings of width {no_text.shape[-1]} and this {NAME} reads those of "
      f"width {width} (cross_attention_dim): give the text encoder of the same model"
    )
  return dict(no_text=no_text.shape[0]), {NO_TEXT: {"text": jnp.asarray(no_text, jnp.float32)}}


def denoiser(
  config: Mapping[str, Any],
  scheduler_config: Mapping[str, Any] | None,
  arrays: Mapping[str, Any],
  no_text: Any = None,
  **changes: Any,
) -> denoisers.NetworkDenoiser:
  """The library's denoiser of a published UNet2DConditionModel, with parameters in float32.

  Its condition is {'text': [B, N, D]}, the embeddings of prompts: see `clip`.

  Args:
    config, scheduler_config, **changes: as of `parts`.
    arrays: of the file, by dotted name.
    no_text: the embedding [N, D] of the empty prompt, which stands for no text; None for none.

  Raises UserError for what is not known: see `parts`, `without_text` and `convert`.
  """
  told, collections = ({}, {}) if no_text is None else without_text(config, no_text)
  module, process, meaning = parts(config, scheduler_config, **told | changes)
  return denoisers.from_flax(
    module, process, meaning, torch_layout.in_single(convert(arrays, config)), collections
  )
