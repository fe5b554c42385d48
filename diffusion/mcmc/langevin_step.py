"""The Langevin step and its Metropolis adjustment, as functions of arrays.

Every chain of the library makes these.

    x' = x + h score(x) + sqrt(2 h) z

is Euler's rule for dx = score(x) ds + sqrt(2) dw over a time h (arXiv:1907.05600, eq. 4, whose step is 2 h).
"""

from typing import Any

import jax
import jax.numpy as jnp

from diffusion.math.precision import sum_rows

SMALLEST = 1e-30  # of a uniform draw, so that its logarithm is finite


def langevin_step(x: jax.Array, score: jax.Array, noise: jax.Array, h: jax.Array) -> jax.Array:
  """x + h score + sqrt(2 h) noise.

  Args:
    x, score, noise: [B, ...], the score at x and standard normal noise.
    h: the step, a number or shaped to multiply x.

  >>> float(langevin_step(jnp.float32(1.0), jnp.float32(-1.0), jnp.float32(0.0), jnp.float32(0.25)))
  0.75
  """
  return x + h * score + jnp.sqrt(2.0 * h) * noise


def log_acceptance(
  gain: jax.Array, x: jax.Array, noise: jax.Array, proposed: jax.Array, score: jax.Array, h: jax.Array
) -> jax.Array:
  """The logarithm of the Metropolis-Hastings ratio of a Langevin step: [B].

  It is above 0 where the step is accepted surely.

    log p(x') - log p(x) + (|z|^2 - |z'|^2) / 2

  with z' = (x - x' - h score(x')) / sqrt(2 h) the noise that would lead back.

  Args:
    gain: [B] log p(x') - log p(x).
    x, noise: [B, ...] where the step began, and its noise z.
    proposed, score: [B, ...] x' and the score there.
    h: as in `langevin_step`.
  """
  back = (x - proposed - h * score) / jnp.sqrt(2.0 * h)
  forth = sum_rows(jnp.square(noise))
  return gain.astype(forth.dtype) + 0.5 * (forth - sum_rows(jnp.square(back)))


def accepted(keys: jax.Array, log_ratio: jax.Array) -> jax.Array:
  """Whether proposals are taken, with probability min(1, exp(log_ratio)): [B] bool.

  One without a density (NaN) is not.

  Args:
    keys: [B] typed keys.
    log_ratio: [B].
  """
  draw = lambda key: jax.random.uniform(key, (), jnp.float32, minval=SMALLEST)
  return jnp.log(jax.vmap(draw)(keys)).astype(log_ratio.dtype) < log_ratio


def choose(taken: jax.Array, new: Any, old: Any) -> Any:
  """Rows of pytrees [B, ...]: the new one where it is taken, else the old one."""
  pick = lambda new, old: jnp.where(taken.reshape(-1, *[1] * (new.ndim - 1)), new, old)
  return jax.tree.map(pick, new, old)
