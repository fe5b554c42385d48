"""The text encoder of Stable Diffusion 1 and 2: transformers' CLIPTextModel (arXiv:2103.00020)."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn, struct

from diffusion.config.errors import UserError
from diffusion.math.precision import at_least_single
from diffusion.weights.architectures import clip_tokens, torch_layout
from diffusion.weights.architectures.clip_blocks import Embeddings, Encoder
from diffusion.weights.architectures.clip_options import NAME, Options, read
from diffusion.weights.architectures.clip_tokens import Tokenizer
from diffusion.weights.architectures.layers import LayerNorm
from diffusion.weights.formats import opening

PREFIX = "text_model."


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
    norm = LayerNorm(c.layer_norm_eps, *of[1:], name="final_layer_norm")
    return norm(h).astype(at_least_single(self.dtype))


def build(config: Mapping[str, Any], **changes: Any) -> ClipText:
  """The module of a config.json; `changes` are `dtype` and `param_dtype` of `ClipText`.

  Raises UserError for a config that is not one of a known CLIPTextModel.

  >>> build({"hidden_act": "relu"})
  Traceback (most recent call last):
  ...
  diffusion.config.errors.UserError: a CLIPTextModel with hidden_act='relu' is not known here: hidden_act is \
one of 'quick_gelu', 'gelu'
  """
  return ClipText(read(config), **changes)


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
