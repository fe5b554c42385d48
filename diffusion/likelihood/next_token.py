"""The exact log-likelihood of a model that says each token given those before it."""

from typing import Any

import jax
import jax.numpy as jnp

from diffusion.losses.next_token import of_tokens
from diffusion.math.precision import sum_rows


@jax.jit
def next_token_log_likelihood(denoiser: Any, x: jax.Array, cond: Any = None) -> jax.Array:
  """log p(x) = sum_i log p(x_i | x_<i), exact, by one evaluation: [B] nats.

  Args:
    denoiser: answers 'next_logits' [B, L, K], as `networks.SequenceTransformer` with causal=True.
    x: [B, L] whole numbers below K.
    cond: None, or a dict of arrays with leading axis B.

  Raises ValueError for a denoiser without that view.

  >>> from diffusion import denoisers, likelihood
  >>> even = denoisers.from_functions(next_logits=lambda params, x, t, cond: jnp.zeros((*x.shape, 4)))
  >>> nats = next_token_log_likelihood(even, jnp.array([[0, 3, 1]]))
  >>> likelihood.bits_per_dim(nats, (3,)).round(4).tolist()
  [2.0]
  """
  return sum_rows(of_tokens(denoiser, x, jnp.zeros(x.shape[0], jnp.float32), cond))
