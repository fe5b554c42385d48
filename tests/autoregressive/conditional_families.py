"""Autoregressive models in closed form.

A Gaussian with any covariance, and a mixture on the line that the coordinate before it moves.
"""

import jax
import jax.numpy as jnp
import numpy as np

from diffusion import denoisers

MEAN = np.array([0.5, -1.0, 0.2])
COVARIANCE = np.array([[1.0, 0.6, -0.3], [0.6, 0.8, 0.1], [-0.3, 0.1, 0.5]])
WEIGHTS, CENTRES, SPREAD = np.array([0.7, 0.3]), np.array([-1.5, 1.5]), 0.3


def gaussian(mean=MEAN, covariance=COVARIANCE):
  """The model of N(mean, covariance): p(x_d | x_<d) is normal with the Cholesky factor's mean and variance,
  which are the context."""

  def context(own, x, t, cond):
    root = jnp.asarray(np.linalg.cholesky(covariance), x.dtype)
    shape, x = x.shape, x.reshape(x.shape[0], -1)
    z = jax.scipy.linalg.solve_triangular(root, (x - jnp.asarray(mean, x.dtype)[None]).T, lower=True).T
    centre = jnp.asarray(mean, x.dtype)[None] + z @ root.T - z * jnp.diag(root)[None]
    return jnp.stack([centre, jnp.broadcast_to(jnp.diag(root)[None] ** 2, x.shape)], -1).reshape(*shape, 2)

  head = lambda own, x, t, cond: (cond["context"][..., 0] - x) / cond["context"][..., 1]
  return denoisers.from_functions({}, context=context, head=head)


def log_normal_pdf(x, centre, variance):
  return -0.5 * (x - centre) ** 2 / variance - 0.5 * np.log(2 * np.pi * variance)


def mixture(process=None):
  """The model of x_1 from two normals of unequal weight, and x_2 from the same moved by x_1; at time t of a
  process with alpha = 1."""

  def variance(t):
    return SPREAD**2 + (0.0 if process is None else process.marginal(t).sigma ** 2) * jnp.ones_like(t)

  def context(own, x, t, cond):
    # Noised x_1 says as much of x_2 as it can only in one dimension; with a process take shape (1,).
    moved = jnp.concatenate([jnp.zeros_like(x[:, :1]), x[:, :-1]], 1)
    return jnp.stack([moved, jnp.broadcast_to(variance(t)[:, None], x.shape)], -1)

  def head(own, x, t, cond):
    context = cond["context"]
    centres, weights = jnp.asarray(CENTRES, x.dtype), jnp.asarray(WEIGHTS, x.dtype)
    gap = (context[..., 0] - x)[..., None] + centres.reshape((1,) * x.ndim + (2,))
    gap = gap / context[..., 1:]
    share = jax.nn.softmax(
      -0.5 * gap**2 * context[..., 1:] + jnp.log(weights).reshape((1,) * x.ndim + (2,)), axis=-1
    )
    return jnp.sum(share * gap, -1)

  return denoisers.from_functions({}, context=context, head=head)


def mixture_log_prob(x):
  """log p of `mixture` without noise, x [B, D]: [B], float64."""
  x = np.asarray(x, np.float64)
  moved = np.concatenate([np.zeros_like(x[:, :1]), x[:, :-1]], 1)
  each = [np.log(w) + log_normal_pdf(x, moved + c, SPREAD**2) for w, c in zip(WEIGHTS, CENTRES)]
  return np.logaddexp(*each).sum(1)
