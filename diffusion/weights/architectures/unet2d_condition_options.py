"""The options of diffusers' UNet2DConditionModel that Stable Diffusion 1 and 2 use."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from diffusion.config.errors import UserError
from diffusion.weights.architectures import options

NAME = "UNet2DConditionModel"

DOWN = {"DownBlock2D": False, "CrossAttnDownBlock2D": True}
UP = {"UpBlock2D": False, "CrossAttnUpBlock2D": True}
"""{block type: whether it attends to the text}."""


@dataclasses.dataclass(frozen=True)
class Options:
  """The options of a config.json of diffusers 0.42 with its defaults, under its names.

  `attention_head_dim` is the number of heads here, one or one a level, whatever its name says.
  """

  sample_size: int | tuple[int, int] | None = None
  in_channels: int = 4
  out_channels: int = 4
  center_input_sample: bool = False
  flip_sin_to_cos: bool = True
  freq_shift: float = 0
  down_block_types: tuple[str, ...] = ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",)
  mid_block_type: str | None = "UNetMidBlock2DCrossAttn"
  up_block_types: tuple[str, ...] = ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3
  only_cross_attention: bool = False
  block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280)
  layers_per_block: int = 2
  downsample_padding: int = 1
  mid_block_scale_factor: float = 1
  dropout: float = 0.0
  act_fn: str = "silu"
  norm_num_groups: int = 32
  norm_eps: float = 1e-5
  cross_attention_dim: int = 1280
  transformer_layers_per_block: int = 1
  reverse_transformer_layers_per_block: None = None
  encoder_hid_dim: None = None
  encoder_hid_dim_type: None = None
  attention_head_dim: int | tuple[int, ...] = 8
  num_attention_heads: None = None
  dual_cross_attention: bool = False
  use_linear_projection: bool = False
  class_embed_type: None = None
  addition_embed_type: None = None
  addition_time_embed_dim: None = None
  num_class_embeds: None = None
  upcast_attention: bool = False
  resnet_time_scale_shift: str = "default"
  resnet_skip_time_act: bool = False
  resnet_out_scale_factor: float = 1.0
  time_embedding_type: str = "positional"
  time_embedding_dim: int | None = None
  time_embedding_act_fn: None = None
  timestep_post_act: None = None
  time_cond_proj_dim: None = None
  conv_in_kernel: int = 3
  conv_out_kernel: int = 3
  projection_class_embeddings_input_dim: None = None
  attention_type: str = "default"
  class_embeddings_concat: bool = False
  mid_block_only_cross_attention: bool | None = None
  cross_attention_norm: None = None
  addition_embed_type_num_heads: int = 64

  @property
  def heads(self) -> tuple[int, ...]:
    """Heads of attention of each level, from the largest."""
    each = self.attention_head_dim
    return each if isinstance(each, tuple) else (each,) * len(self.block_out_channels)


CHOICES: dict[str, tuple[Any, ...]] = {
  "mid_block_type": ("UNetMidBlock2DCrossAttn", None),
  "only_cross_attention": (False,),
  "act_fn": ("silu", "swish"),
  "reverse_transformer_layers_per_block": (None,),
  "encoder_hid_dim": (None,),
  "encoder_hid_dim_type": (None,),
  "num_attention_heads": (None,),
  "dual_cross_attention": (False,),
  "class_embed_type": (None,),
  "addition_embed_type": (None,),
  "num_class_embeds": (None,),
  "resnet_time_scale_shift": ("default",),
  "resnet_skip_time_act": (False,),
  "resnet_out_scale_factor": (1.0,),
  "time_embedding_type": ("positional",),
  "time_embedding_act_fn": (None,),
  "timestep_post_act": (None,),
  "time_cond_proj_dim": (None,),
  "conv_in_kernel": (3,),
  "conv_out_kernel": (3,),
  "attention_type": ("default",),
  "class_embeddings_concat": (False,),
  "mid_block_only_cross_attention": (None, False),
  "cross_attention_norm": (None,),
}
"""What Stable Diffusion 1 and 2 have; other text-to-image models of the class have more."""

WHOLE = ("layers_per_block", "cross_attention_dim", "transformer_layers_per_block", "norm_num_groups")
"""Options that may be lists in models of other families, and are one number here."""


def read(config: Mapping[str, Any]) -> Options:
  """The options of a config.json.

  Raises UserError for options, values and block types that are not known, or that do not go together.

  >>> read({"attention_head_dim": [5, 10, 20, 20], "cross_attention_dim": 1024}).heads
  (5, 10, 20, 20)
  """
  c = options.read(config, Options, NAME, CHOICES)
  levels = len(c.block_out_channels)
  for name, types, known in (("down", c.down_block_types, DOWN), ("up", c.up_block_types, UP)):
    if len(types) != levels:
      raise UserError(
        f"a {NAME} with {levels} block_out_channels has as many {name}_block_types, got {len(types)}"
      )
    for one in types:
      if one not in known:
        raise UserError(
          f"a {NAME} with a block of type {one!r} is not known here: {name}_block_types are some of "
          f"{', '.join(known)}"
        )
  for name in WHOLE:
    value = getattr(c, name)
    if not isinstance(value, int) or value < 1:
      raise UserError(
        f"a {NAME} with {name}={value!r} is not known here: Stable Diffusion 1 and 2 have one whole number"
      )
  if len(c.heads) != levels:
    raise UserError(
      f"a {NAME} with {levels} block_out_channels has one attention_head_dim or as many, got {len(c.heads)}"
    )
  for channels, heads in zip(c.block_out_channels, c.heads):
    if channels % heads:
      raise UserError(
        f"{heads} heads do not divide {channels} channels: attention_head_dim is the number of heads in a "
        f"{NAME}; give the config of the same model"
      )
  return c
