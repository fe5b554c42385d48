"""What it costs that the prior is not the marginal at the last time."""

from typing import Any

import jax
import jax.numpy as jnp

from diffusion.processes.base import GaussianProcess


def prior_kl(process: GaussianProcess, x: jax.Array, t: jax.Array) -> jax.Array:
  """KL from q(x_t | x_0 = x) to the prior, the first term of the bound (arXiv:2107.00630, eq. 11).

  Args:
    process: the Gaussian process.
    x: [B, ...] clean data.
    t: [] array, the last time.

  Returns:
    [B] nats.

  >>> from diffusion import processes
  >>> prior_kl(processes.vp_cosine(), jnp.ones((1, 3)), jnp.array(1.0)).tolist()
  [0.0]
  """
  m, flat = process.marginal(t), x.reshape(x.shape[0], -1)
  square = jnp.sum(flat**2, axis=1) * (m.alpha / process.prior_std) ** 2
  return 0.5 * (square + flat.shape[1] * _excess((m.sigma / process.prior_std) ** 2))


def prior_gap(oracle: Any, t: jax.Array) -> jax.Array:
  """The KL divergence from the marginal of Gaussian data to the prior.

  It is the mean log-likelihood that the approximate prior costs.

  Args:
    oracle: `oracles.gaussian`.
    t: [] array, the last time.

  Returns:
    [] nats.

  >>> from diffusion import oracles, processes
  >>> oracle = oracles.gaussian(processes.vp_linear(), jnp.zeros(2), 1.0)
  >>> bool(abs(prior_gap(oracle, jnp.array(1.0))) < 1e-6)       # variance-preserved: no gap
  True
  """
  m = oracle.process.marginal(t)
  variance = (m.alpha**2 * oracle.eigenvalues + m.sigma**2) / oracle.process.prior_std**2
  square = jnp.sum(oracle.mean**2) * (m.alpha / oracle.process.prior_std) ** 2
  return 0.5 * (square + jnp.sum(_excess(variance)))


def _excess(variance):
  """v - 1 - log v, twice the KL of N(0, v) from N(0, 1), without cancellation near v = 1."""
  return (variance - 1.0) - jnp.log1p(variance - 1.0)
