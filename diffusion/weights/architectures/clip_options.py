"""The options of transformers' CLIPTextModel, as the text encoders of Stable Diffusion 1 and 2 have them."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from diffusion.config.errors import UserError
from diffusion.weights.architectures import options

NAME = "CLIPTextModel"


@dataclasses.dataclass(frozen=True)
class Options:
  """The options of a config.json of transformers with its defaults, under its names."""

  model_type: str = "clip_text_model"
  vocab_size: int = 49408
  hidden_size: int = 512
  intermediate_size: int = 2048
  num_hidden_layers: int = 12
  num_attention_heads: int = 8
  max_position_embeddings: int = 77
  hidden_act: str = "quick_gelu"
  layer_norm_eps: float = 1e-5
  use_attention_mask: bool = False


CHOICES = {
  "model_type": ("clip_text_model",),
  "hidden_act": ("quick_gelu", "gelu"),
  "use_attention_mask": (False,),
}
WITHOUT_EFFECT = (
  "architectures",
  "attention_dropout",
  "bos_token_id",
  "chunk_size_feed_forward",
  "dropout",
  "dtype",
  "eos_token_id",
  "gradient_checkpointing",
  "id2label",
  "initializer_factor",
  "initializer_range",
  "is_encoder_decoder",
  "label2id",
  "output_attentions",
  "output_hidden_states",
  "pad_token_id",
  "projection_dim",
  "return_dict",
  "torch_dtype",
  "transformers_version",
)
"""Of training, of the pooled output, and notes of transformers: none changes the embeddings."""


def read(config: Mapping[str, Any]) -> Options:
  """The options of a config.json.

  Raises UserError for options and values that are not known, or that do not go together.

  >>> read({"hidden_size": 768, "num_attention_heads": 12, "pad_token_id": 1}).vocab_size
  49408
  """
  c = options.read(config, Options, NAME, CHOICES, WITHOUT_EFFECT)
  if c.hidden_size % c.num_attention_heads:
    raise UserError(
      f"{c.num_attention_heads} heads do not divide {c.hidden_size} channels of a {NAME}: give the config of "
      "the same model"
    )
  return c
