"""Divergences of vectors that are not negative, with their digits kept where the vectors nearly agree."""

import jax
import jax.numpy as jnp

from diffusion.math.precision import at_least_single


def generalised_kl(truth: jax.Array, model: jax.Array) -> jax.Array:
  """The sum over k of m_k - a_k + a_k log(a_k / m_k), a the truth and m the model: [..., K] -> [...].

  It is not negative, and zero where both are equal. Of probabilities it is the Kullback-Leibler divergence;
  of jump rates, the rate at which that of two chains grows (arXiv:2205.14987, appendix B). Each term is a_k
  phi(m_k / a_k) with phi(u) = u - 1 - log u, so that nothing large is subtracted.

  >>> generalised_kl(jnp.array([0.5, 0.5, 0.0]), jnp.array([0.25, 0.5, 0.25])).round(4)  # log(2) / 2
  Array(0.3466, dtype=float32)
  """
  dtype = at_least_single(jnp.result_type(truth.dtype, model.dtype))
  truth, model = truth.astype(dtype), model.astype(dtype)
  some = truth > 0
  a = jnp.where(some, truth, 1.0)
  apart = jnp.where(some, (model - a) / a, 0.0)
  near = apart > -0.5
  tiny = jnp.finfo(dtype).tiny
  log = jnp.where(
    near, jnp.log1p(jnp.where(near, apart, 0.0)), jnp.log(jnp.maximum(jnp.where(near, 1.0, model / a), tiny))
  )
  return jnp.sum(jnp.where(some, a * (apart - log), model), axis=-1)
