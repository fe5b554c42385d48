"""Self-attention over all positions; the softmax is in float32."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from diffusion.math.precision import at_least_single
from diffusion.networks.layers import placed
from diffusion.networks.style import Style


def attend(query: jax.Array, key: jax.Array, value: jax.Array, causal: bool = False) -> jax.Array:
  """Attention: softmax(q k / sqrt(d)) v.

  All are of shape [B, positions, heads, d]. The result is likewise, in the dtype of value. With `causal` a
  position sees itself and those before it.

  >>> q = jnp.zeros((1, 3, 1, 2))
  >>> attend(q, q, jnp.arange(6.0).reshape(1, 3, 1, 2))[0, 0, 0].tolist()
  [2.0, 3.0]
  """
  precision = at_least_single(query.dtype)
  logits = (
    jnp.einsum("bqhd,bkhd->bhqk", query, key, preferred_element_type=precision) * query.shape[-1] ** -0.5
  )
  if causal:
    seen = jnp.tril(jnp.ones(logits.shape[-2:], bool))
    logits = jnp.where(seen[None, None], logits, -jnp.inf)
  weights = jax.nn.softmax(logits, axis=-1).astype(value.dtype)
  return jnp.einsum("bhqk,bkhd->bqhd", weights, value)


def dot_product(query: jax.Array, key: jax.Array, value: jax.Array, causal: bool = False) -> jax.Array:
  """JAX's own `jax.nn.dot_product_attention`, which takes the kernels that a device has.

  All are of shape [B, positions, heads, d], and so is the result, in the dtype of value. JAX's own has its
  softmax in float32 always; in float64 the formula itself is taken. With `causal` a position sees itself and
  those before it.

  >>> q = jnp.zeros((1, 3, 1, 2))
  >>> dot_product(q, q, jnp.arange(6.0).reshape(1, 3, 1, 2), causal=True)[0, :, 0, 0].tolist()
  [0.0, 1.0, 2.0]
  """
  if query.dtype != jnp.float64:
    with jax.numpy_dtype_promotion("standard"):  # it asks for the type of bfloat16 beside float32
      return jax.nn.dot_product_attention(query, key, value, is_causal=causal)
  return attend(query, key, value, causal)


class SpatialAttention(nn.Module):
  """The attention block of DDPM (arXiv 2006.11239), [B, ..., C].

  It normalises, attends over all positions, and adds.
  """

  style: Style

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    style, channels, heads = self.style, x.shape[-1], self.style.num_heads
    if channels % heads:
      raise ValueError(f"num_heads={heads} does not divide the {channels} channels of an attention block.")
    h = style.norm("norm")(x).reshape(x.shape[0], -1, channels)
    query, key, value = (
      style.dense(channels, name, scale=0.1)(h).reshape(*h.shape[:2], heads, channels // heads)
      for name in ("query", "key", "value")
    )
    h = attend(query, key, value).reshape(h.shape)
    return placed(style.merge(x, style.dense(channels, "out", scale=style.init_scale)(h).reshape(x.shape)))
