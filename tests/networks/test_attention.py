"""Attention against a softmax computed in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np

from diffusion.networks.attention import attend


def numpy_attention(q, k, v):
  out = np.zeros_like(v)
  for b in range(q.shape[0]):
    for h in range(q.shape[2]):
      logits = q[b, :, h] @ k[b, :, h].T / np.sqrt(q.shape[-1])
      weights = np.exp(logits - logits.max(axis=1, keepdims=True))
      out[b, :, h] = weights / weights.sum(axis=1, keepdims=True) @ v[b, :, h]
  return out


def draw(seed, shape=(2, 5, 3, 4)):
  return np.random.default_rng(seed).normal(size=shape)


def test_matches_numpy():
  q, k, v = 3 * draw(0), draw(1), draw(2)
  got = jax.jit(attend)(*(jnp.asarray(a, jnp.float32) for a in (q, k, v)))
  np.testing.assert_allclose(got, numpy_attention(q, k, v), atol=1e-5)


def test_bfloat16_inputs_have_a_float32_softmax():
  q, k, v = (jnp.asarray(draw(seed), jnp.bfloat16) for seed in range(3))
  got = jax.jit(attend)(q, k, v)
  assert got.dtype == jnp.bfloat16
  want = numpy_attention(*(np.asarray(a, np.float64) for a in (q, k, v)))
  np.testing.assert_allclose(got.astype(jnp.float32), want, atol=0.02)


def test_large_logits_do_not_overflow():
  q = jnp.full((1, 2, 1, 4), 1e4)
  v = jnp.arange(8.0).reshape(1, 2, 1, 4)
  np.testing.assert_allclose(
    attend(q, q, v), np.broadcast_to(v.mean(axis=1, keepdims=True), v.shape), rtol=1e-6
  )
