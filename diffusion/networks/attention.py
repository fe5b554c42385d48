"""Self-attention over all positions; the softmax is in float32."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from diffusion.math.precision import at_least_single
from diffusion.networks.layers import placed
from diffusion.networks.style import Style


def attend(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
  """Attention: softmax(q k / sqrt(d)) v.

  All are of shape [B, positions, heads, d]. The result is likewise, in the dtype of value.

  >>> q = jnp.zeros((1, 3, 1, 2))
  >>> attend(q, q, jnp.arange(6.0).reshape(1, 3, 1, 2))[0, 0, 0].tolist()
  [2.0, 3.0]
  """
  precision = at_least_single(query.dtype)
  logits = (
    jnp.einsum("bqhd,bkhd->bhqk", query, key, preferred_element_type=precision) * query.shape[-1] ** -0.5
  )
  weights = jax.nn.softmax(logits, axis=-1).astype(value.dtype)
  return jnp.einsum("bhqk,bkhd->bqhd", weights, value)


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
