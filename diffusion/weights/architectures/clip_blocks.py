"""The layers of CLIP's text encoder, under transformers' names."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from diffusion.math.precision import at_least_single
from diffusion.weights.architectures.clip_options import Options
from diffusion.weights.architectures.layers import LayerNorm


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
