"""The options of DiT and SiT: the arguments of their authors' classes, and a config.json of diffusers."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from diffusion.config.errors import UserError
from diffusion.weights.architectures import options
from diffusion.weights.architectures.dit import Shape

DIFFUSERS = "DiTTransformer2DModel"
OF_OLD = "Transformer2DModel"
"""The class that facebook/DiT-XL-2-* name; diffusers too takes it for the other where norm_type says so."""


@dataclasses.dataclass(frozen=True)
class Authors:
  """The arguments of the authors' classes DiT and SiT, with their defaults, under their names."""

  input_size: int = 32
  patch_size: int = 2
  in_channels: int = 4
  hidden_size: int = 1152
  depth: int = 28
  num_heads: int = 16
  mlp_ratio: float = 4.0
  class_dropout_prob: float = 0.1
  num_classes: int = 1000
  learn_sigma: bool = True


@dataclasses.dataclass(frozen=True)
class Diffusers:
  """The options of a config.json of diffusers 0.42 with its defaults, under its names."""

  num_attention_heads: int = 16
  attention_head_dim: int = 72
  in_channels: int = 4
  out_channels: int | None = None
  num_layers: int = 28
  dropout: float = 0.0
  norm_num_groups: int = 32
  attention_bias: bool = True
  sample_size: int = 32
  patch_size: int = 2
  activation_fn: str = "gelu-approximate"
  num_embeds_ada_norm: int = 1000
  upcast_attention: bool = False
  norm_type: str = "ada_norm_zero"
  norm_elementwise_affine: bool = False
  norm_eps: float = 1e-5


CHOICES = {
  "dropout": (0.0,),
  "attention_bias": (True,),
  "activation_fn": ("gelu-approximate",),
  "norm_type": ("ada_norm_zero",),
  "norm_elementwise_affine": (False,),
}

OF_OTHERS = (
  "cross_attention_dim",
  "double_self_attention",
  "num_vector_embeds",
  "only_cross_attention",
  "use_linear_projection",
)
"""Options of the old class that a DiT does not have, and has empty."""


def shape_of(config: Mapping[str, Any], copies: int = 1, trained_in_diffusers: bool = False) -> Shape:
  """What fixes the network of a config, whose _class_name is DiT, SiT or DiTTransformer2DModel.

  Args:
    config: arguments of the authors' class, or contents of diffusers' config.json.
    copies: see `copies_of`.
    trained_in_diffusers: whether the weights were trained with diffusers' function: see `dit`.

  Raises UserError for options that are not known.

  >>> shape_of({"_class_name": "SiT", "hidden_size": 384, "num_heads": 6}).hidden
  1536
  """
  name = config.get("_class_name")
  if is_of_diffusers(config):
    plain = {key: value for key, value in config.items() if value or key not in OF_OTHERS}
    c = options.read(plain | {"_class_name": DIFFUSERS}, Diffusers, DIFFUSERS, CHOICES)
    width = c.num_attention_heads * c.attention_head_dim
    return Shape(
      c.sample_size,
      c.patch_size,
      width,
      c.num_layers,
      c.num_attention_heads,
      4 * width,
      c.in_channels,
      c.out_channels or c.in_channels,
      c.num_embeds_ada_norm + 1,
      True,
      copies,
      int(trained_in_diffusers),
      c.norm_eps if trained_in_diffusers else 1e-6,
    )
  if name not in ("DiT", "SiT"):
    raise UserError(f"the _class_name of a config here is DiT, SiT or {DIFFUSERS}, got {name!r}: give it")
  c = options.read(config, Authors, name, {})
  if c.hidden_size % c.num_heads:
    raise UserError(f"a {name} with {c.num_heads} heads has a hidden_size they divide, got {c.hidden_size}")
  null = c.class_dropout_prob > 0
  return Shape(
    c.input_size,
    c.patch_size,
    c.hidden_size,
    c.depth,
    c.num_heads,
    int(c.hidden_size * c.mlp_ratio),
    c.in_channels,
    c.in_channels * (2 if c.learn_sigma else 1),
    c.num_classes + null,
    null,
  )


def is_of_diffusers(config: Mapping[str, Any]) -> bool:
  """Whether a config is of diffusers' class, under its name of today or that of before.

  >>> is_of_diffusers({"_class_name": "Transformer2DModel", "norm_type": "ada_norm_zero"})
  True
  """
  name = config.get("_class_name")
  return name == DIFFUSERS or (name == OF_OLD and config.get("norm_type") == "ada_norm_zero")
