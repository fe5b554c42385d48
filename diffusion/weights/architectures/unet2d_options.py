"""The options of diffusers' UNet2DModel: which there are, and which go together."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from diffusion.config.errors import UserError
from diffusion.weights.architectures import options
from diffusion.weights.architectures.unet2d_blocks import DOWN, UP

NAME = "UNet2DModel"


@dataclasses.dataclass(frozen=True)
class Options:
  """The options of a config.json of diffusers 0.42 with its defaults, under its names."""

  sample_size: int | tuple[int, int] | None = None
  in_channels: int = 3
  out_channels: int = 3
  center_input_sample: bool = False
  time_embedding_type: str = "positional"
  time_embedding_dim: int | None = None
  freq_shift: float = 0
  flip_sin_to_cos: bool = True
  down_block_types: tuple[str, ...] = (
    "DownBlock2D",
    "AttnDownBlock2D",
    "AttnDownBlock2D",
    "AttnDownBlock2D",
  )
  mid_block_type: str | None = "UNetMidBlock2D"
  up_block_types: tuple[str, ...] = ("AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D")
  block_out_channels: tuple[int, ...] = (224, 448, 672, 896)
  layers_per_block: int = 2
  mid_block_scale_factor: float = 1
  downsample_padding: int = 1
  downsample_type: str = "conv"
  upsample_type: str = "conv"
  dropout: float = 0.0
  act_fn: str = "silu"
  attention_head_dim: int | None = 8
  norm_num_groups: int | None = 32
  attn_norm_num_groups: int | None = None
  norm_eps: float = 1e-5
  resnet_time_scale_shift: str = "default"
  add_attention: bool = True
  class_embed_type: str | None = None
  num_class_embeds: int | None = None
  num_train_timesteps: int | None = None


CHOICES = {
  "time_embedding_type": ("positional", "fourier"),
  "mid_block_type": ("UNetMidBlock2D", None),
  "downsample_type": ("conv", "resnet"),
  "upsample_type": ("conv", "resnet"),
  "act_fn": ("silu", "swish"),
  "resnet_time_scale_shift": ("default", "scale_shift"),
  "class_embed_type": (None, "timestep", "identity"),
}
WITHOUT_EFFECT = ("decay", "image_size")  # of configs that were made from Score SDE's


def read(config: Mapping[str, Any]) -> Options:
  """The options of a config.json.

  Raises UserError for options, values and block types that are not known, or that do not go together.
  """
  c = options.read(config, Options, NAME, CHOICES, WITHOUT_EFFECT)
  for name, types, known in (("down", c.down_block_types, DOWN), ("up", c.up_block_types, UP)):
    if len(types) != len(c.block_out_channels):
      raise UserError(
        f"a {NAME} with {len(c.block_out_channels)} block_out_channels has as many {name}_block_types, got "
        f"{len(types)}"
      )
    for one in types:
      if one not in known:
        raise UserError(
          f"a {NAME} with a block of type {one!r} is not known here: {name}_block_types are some of "
          f"{', '.join(known)}"
        )
    skips = {known[one].skip for one in types}
    if len(skips) > 1:
      raise UserError(f"a {NAME} has either all {name}_block_types with Skip or none, got {', '.join(types)}")
    if skips == {True} and (c.in_channels, c.out_channels)[name == "up"] != 3:
      raise UserError(
        f"{types[0]} is made for pictures of 3 channels, got {c.in_channels} in and {c.out_channels} out"
      )
    if skips == {False} and c.norm_num_groups is None:
      raise UserError(f"{types[0]} needs norm_num_groups, which is null: only blocks with Skip do without")
  return c
