"""The log-ratio of two oracles' densities."""

from typing import Any

import jax
from flax import struct


@struct.dataclass
class DensityRatio:
  """log p_t(x) - log q_t(x) in nats as a function of x: [B, *event] and t: [B]."""

  numerator: Any
  denominator: Any

  def __call__(self, x: jax.Array, t: jax.Array, cond: Any = None) -> jax.Array:
    return self.numerator.log_prob(x, t, cond) - self.denominator.log_prob(x, t, cond)


def density_ratio(p: Any, q: Any) -> DensityRatio:
  """The log-density ratio log p_t / q_t of two oracles (of anything with `log_prob`).

  >>> import jax.numpy as jnp
  >>> from diffusion import oracles, processes
  >>> p, q = (oracles.gaussian(processes.edm(), jnp.array([mean]), 1.0) for mean in (1.0, -1.0))
  >>> print(density_ratio(p, q)(jnp.array([[0.5]]), jnp.zeros(1)).round(4))        # 2 x
  [1.]
  """
  return DensityRatio(p, q)
