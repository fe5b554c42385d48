"""The text encoder of Stable Diffusion 1 and 2: transformers' CLIPTextModel (arXiv:2103.00020)."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn, struct

from diffusion.config.errors import UserError
from diffusion.math.precision import at_least_single
from diffusion.weights.architectures import clip_tokens, options, torch_layout
from diffusion.weights.architectures.clip_tokens import Tokenizer
from diffusion.weights.architectures.layers import LayerNorm
from diffusion.weights.formats import opening

NAME = "CLIPTextModel"
PREFIX = "text_model."


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


class ClipText(nn.Module):
  """transformers' CLIPTextModel: tokens [B, N], whole numbers -> embeddings [B, N, hidden_size].

  They are the last hidden states after the last norm, which is what Stable Diffusion is told. Each token sees
  itself and those before it. Norms, scores and softmax are in float32, and so is what comes out.

  >>> net = build({"hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1, "vocab_size": 9})
  >>> tokens = jnp.zeros((2, 77), jnp.int32)
  >>> jax.eval_shape(net.init_with_output, jax.random.key(0), tokens)[0].shape
  (2, 77, 8)
  """

  options: Options
  dtype: Any = jnp.float32
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, tokens: jax.Array) -> jax.Array:
    c = self.options
    if tokens.ndim != 2 or tokens.shape[1] > c.max_position_embeddings:
      raise ValueError(
        f"this {NAME} takes tokens of shape [B, N] with N at most {c.max_position_embeddings}, got "
        f"{tokens.shape}"
      )
    of = (c, jnp.dtype(self.dtype), jnp.dtype(self.param_dtype))
    h = Encoder(*of, name="encoder")(Embeddings(*of, name="embeddings")(tokens))
    return _norm(self, "final_layer_norm")(h).astype(at_least_single(self.dtype))


class Embeddings(nn.Module):
  """Tokens [B, N] -> [B, N, C]: the embedding of each token and that of its place."""

  options: Options
  dtype: Any
  param_dtype: Any

  @nn.compact
  def __call__(self, tokens: jax.Array) -> jax.Array:
    c = self.options
    embed = lambda count, name: nn.Embed(
      count, c.hidden_size, dtype=self.dtype, param_dtype=self.param_dtype, name=name
    )
    places = jnp.arange(tokens.shape[1])[None]
    return embed(c.vocab_size, "token_embedding")(tokens) + embed(
      c.max_position_embeddings, "position_embedding"
    )(places)


class Encoder(nn.Module):
  """All layers, h [B, N, C] -> [B, N, C]."""

  options: Options
  dtype: Any
  param_dtype: Any

  @nn.compact
  def __call__(self, h: jax.Array) -> jax.Array:
    for i in range(self.options.num_hidden_layers):
      h = Layer(self.options, self.dtype, self.param_dtype, name=f"layers_{i}")(h)
    return h


class Layer(nn.Module):
  """One layer: attention and two dense layers, each after a norm and added."""

  options: Options
  dtype: Any
  param_dtype: Any

  @nn.compact
  def __call__(self, h: jax.Array) -> jax.Array:
    of = (self.options, self.dtype, self.param_dtype)
    h = h + SelfAttention(*of, name="self_attn")(_norm(self, "layer_norm1")(h))
    return h + Mlp(*of, name="mlp")(_norm(self, "layer_norm2")(h))


class SelfAttention(nn.Module):
  """Attention of each place of h [B, N, C] to itself and those before it."""

  options: Options
  dtype: Any
  param_dtype: Any

  @nn.compact
  def __call__(self, h: jax.Array) -> jax.Array:
    heads, size = self.options.num_attention_heads, h.shape[1]
    query, key, value = (
      _dense(self, h.shape[-1], name)(h).reshape(*h.shape[:2], heads, -1)
      for name in ("q_proj", "k_proj", "v_proj")
    )
    precision = at_least_single(self.dtype)
    scores = jnp.einsum("bqhd,bkhd->bhqk", query, key, preferred_element_type=precision)
    before = jnp.tril(jnp.ones((size, size), bool))[None, None]
    scores = jnp.where(before, scores * query.shape[-1] ** -0.5, -jnp.inf)
    shares = jax.nn.softmax(scores, axis=-1).astype(value.dtype)
    out = jnp.einsum("bhqk,bkhd->bqhd", shares, value)
    return _dense(self, h.shape[-1], "out_proj")(out.reshape(h.shape))


class Mlp(nn.Module):
  """Two dense layers; between them h sigmoid(1.702 h) ('quick_gelu'), or the exact gelu."""

  options: Options
  dtype: Any
  param_dtype: Any

  @nn.compact
  def __call__(self, h: jax.Array) -> jax.Array:
    channels, h = h.shape[-1], _dense(self, self.options.intermediate_size, "fc1")(h)
    quick = self.options.hidden_act == "quick_gelu"
    h = h * jax.nn.sigmoid(1.702 * h) if quick else nn.gelu(h, approximate=False)
    return _dense(self, channels, "fc2")(h)


def _dense(module, features, name):
  return nn.Dense(features, dtype=module.dtype, param_dtype=module.param_dtype, name=name)


def _norm(module, name):
  epsilon = module.options.layer_norm_eps
  return LayerNorm(epsilon, jnp.dtype(module.dtype), jnp.dtype(module.param_dtype), name=name)


def build(config: Mapping[str, Any], **changes: Any) -> ClipText:
  """The module of a config.json; `changes` are `dtype` and `param_dtype` of `ClipText`.

  Raises UserError for a config that is not one of a known CLIPTextModel.

  >>> build({"hidden_act": "relu"})
  Traceback (most recent call last):
  ...
  diffusion.config.errors.UserError: a CLIPTextModel with hidden_act='relu' is not known here: hidden_act is \
one of 'quick_gelu', 'gelu'
  """
  c = options.read(config, Options, NAME, CHOICES, WITHOUT_EFFECT)
  if c.hidden_size % c.num_attention_heads:
    raise UserError(
      f"{c.num_attention_heads} heads do not divide {c.hidden_size} channels of a {NAME}: give the config of "
      "the same model"
    )
  return ClipText(c, **changes)


def convert(arrays: Mapping[str, Any], config: Mapping[str, Any]) -> Any:
  """The parameters of `build(config)` from the arrays of a published file, in the file's own dtype.

  Names are known with and without 'text_model.' before them, and the numbers of places that old files hold
  are left out.

  Raises UserError for names missing or left over, and for arrays of another shape.
  """
  found = {name: array for name, array in arrays.items() if not name.endswith("embeddings.position_ids")}
  return torch_layout.convert(found, shapes(config), NAME, _prefixed, _name_of)


def export(params: Any, config: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """The arrays of the published files, by dotted name: the inverse of `convert`, bit for bit."""
  del config
  return torch_layout.export(params, _name_of)


def shapes(config: Mapping[str, Any]) -> Any:
  """Shapes of the parameters of `build(config)`."""
  return torch_layout.shapes_of(build(config), jax.ShapeDtypeStruct((1, 2), jnp.int32))


def _prefixed(name):
  return name if name.startswith(PREFIX) else PREFIX + name


def _name_of(path):
  return PREFIX + torch_layout.dotted(path)


@struct.dataclass
class TextEncoder:
  """What makes embeddings of prompts: a tokenizer, and a network with its parameters, which are leaves.

  Attributes:
    params: of the network.
    module: the network.
    tokenizer: makes tokens of texts; None for an encoder that is given tokens alone.

  >>> config = {"hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1, "vocab_size": 9}
  >>> params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), shapes(config))
  >>> TextEncoder(params, build(config), None).embed(np.zeros((1, 77), np.int32)).shape
  (1, 77, 8)
  """

  params: Any
  module: ClipText = struct.field(pytree_node=False)
  tokenizer: Tokenizer | None = struct.field(pytree_node=False)

  @property
  def width(self) -> int:
    """C, the width of an embedding."""
    return self.module.options.hidden_size

  def tokens(self, prompts: Sequence[str]) -> np.ndarray:
    """The tokens of texts, [B, 77] int32; see `clip_tokens.Tokenizer`. On the host.

    Raises ValueError for an encoder without a tokenizer.
    """
    if self.tokenizer is None:
      raise ValueError("this text encoder has no tokenizer: give tokens to embed, or load it by text_encoder")
    return self.tokenizer(prompts)

  def embed(self, tokens: jax.Array | np.ndarray) -> jax.Array:
    """The embeddings [B, N, C], float32, of tokens [B, N]: pure, for use within a user's jit too."""
    return _embed(self.module, self.params, jnp.asarray(tokens, jnp.int32))

  def encode(self, prompts: Sequence[str]) -> jax.Array:
    """The embeddings of texts, [B, 77, C] float32: the condition 'text' of a model's denoiser.

    Args:
      prompts: a list of texts; the empty one stands for no text.

    Raises TypeError for what is no list of texts, ValueError for an empty list.
    """
    return self.embed(self.tokens(prompts))


@functools.partial(jax.jit, static_argnums=0)
def _embed(module, params, tokens):
  return module.apply({"params": params}, tokens)


def text_encoder(folder: str, tokenizer: str | None = None, dtype: Any = jnp.float32) -> TextEncoder:
  """The text encoder of a pipeline of Stable Diffusion, with parameters in float32.

  Args:
    folder: with the weights and the config.json of a CLIPTextModel.
    tokenizer: the folder of its tokenizer; None for the folder 'tokenizer' beside it.
    dtype: that the network computes in.

  Raises UserError for files that are missing, damaged or of another model, and where the library tokenizers
  is not installed.
  """
  contents = opening.read(folder)
  config = contents.notes.get("config")
  if config is None:
    raise UserError(f"{folder} has no config.json, which says the sizes of the text encoder: put it there")
  module = build(config, dtype=dtype)
  made = clip_tokens.tokenizer(
    tokenizer or clip_tokens.beside(folder), module.options.max_position_embeddings
  )
  if made.largest >= module.options.vocab_size:
    raise UserError(
      f"the tokenizer beside {folder} has tokens up to {made.largest} and the text encoder knows those below "
      f"{module.options.vocab_size} (vocab_size): give those of the same model"
    )
  params = torch_layout.in_single(convert(contents.load(), config))
  return TextEncoder(params, module, made)
