"""Finitely many points under a Gaussian process: the empirical distribution.

Its perfect denoiser memorises.
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from diffusion.denoisers import Prediction
from diffusion.oracles import spectral
from diffusion.oracles.mixture import class_log_weights, draw_components, host_labels, host_log_weights
from diffusion.oracles.oracle import Oracle
from diffusion.processes.base import GaussianProcess
from diffusion.processes.views import GAUSSIAN_VIEWS


@struct.dataclass
class Atoms(Oracle):
  """Data sum_k w_k delta(points_k) under a process.

  x: [B, *event], t: [B], D = number of entries of an event.

  Every method takes `cond={'label': [B] int}`, which keeps the points of that class (-1: all), where labels
  were given. At sigma = 0 there is no density: log_prob, eps, score, Hessian and time score are not finite
  there. x0 and the posterior covariance have limits, the nearest point and zero, and take them.
  """

  process: GaussianProcess
  points: Any  # [K, *event]
  log_weights: Any  # [K], normalised
  labels: Any = None  # [K] int32 or None

  posterior_views: ClassVar[tuple[str, ...]] = GAUSSIAN_VIEWS
  methods: ClassVar[tuple[str, ...]] = ("energy", "hessian", "posterior_covariance", "time_score")

  def _posterior_views(self, x, t, cond, views):
    flat, m, _, weights = self._posterior(x, t, cond)
    x0 = self._mean(weights)
    m = jax.tree.map(lambda a: a[:, None], m)
    residual = flat - m.alpha * x0

    def view(name):
      if name == "x0":
        return x0
      if name == "eps":
        return residual / m.sigma
      if name == "score":
        return -residual / m.sigma**2
      if name == "v":
        return m.alpha * residual / m.sigma - m.sigma * x0
      return m.d_alpha * x0 + 0.5 * m.d_variance / m.sigma**2 * residual

    return Prediction(**{name: view(name).reshape(x.shape) for name in views})

  def score(self, x: jax.Array, t: jax.Array, cond: Any = None) -> jax.Array:
    """Gradient of log p_t at x: [B, *event]."""
    return self(x, t, cond, views=("score",)).score

  def hessian(self, x: jax.Array, t: jax.Array, cond: Any = None) -> jax.Array:
    """Hessian of log p_t at x: [B, D, D] = alpha^2/sigma^4 Cov[x_0 | x_t] - I/sigma^2."""
    flat, t = spectral.check_rows(x, t, self.points.shape[1:])
    m = jax.tree.map(lambda a: a[:, None, None], self.process.marginal(t))
    identity = jnp.eye(flat.shape[1], dtype=flat.dtype)[None]
    return (m.alpha / m.sigma**2) ** 2 * self.posterior_covariance(x, t, cond) - identity / m.sigma**2

  def posterior_covariance(self, x: jax.Array, t: jax.Array, cond: Any = None) -> jax.Array:
    """Cov[x_0 | x_t = x]: [B, D, D]; holds K D numbers a row."""
    _, _, _, weights = self._posterior(x, t, cond)
    centred = self._flat_points()[None, :, :] - self._mean(weights)[:, None, :]
    return jnp.einsum("bk,bkd,bke->bde", weights, centred, centred, precision=spectral.PRECISION)

  def log_prob(self, x: jax.Array, t: jax.Array, cond: Any = None) -> jax.Array:
    """log p_t(x) in nats, defined for sigma > 0 (NaN at sigma = 0): [B]."""
    flat, m, square, _ = self._posterior(x, t, cond)
    variance = m.sigma**2
    log_weights = class_log_weights(self.log_weights, self.labels, cond, flat.shape[0])
    log_mean = jax.scipy.special.logsumexp(log_weights - 0.5 * square / variance[:, None], axis=-1)
    value = log_mean - 0.5 * flat.shape[1] * jnp.log(2 * np.pi * variance)
    return jnp.where(variance > 0, value, jnp.nan)

  def responsibilities(self, x: jax.Array, t: jax.Array, cond: Any = None) -> jax.Array:
    """Posterior probability of each point at x: [B, K]; at sigma = 0 all of it on the nearest."""
    return self._posterior(x, t, cond)[-1]

  def time_score(self, x: jax.Array, t: jax.Array, cond: Any = None) -> jax.Array:
    """d/dt log p_t(x) at fixed x, in nats per unit of t: [B]."""
    flat, m, square, weights = self._posterior(x, t, cond)
    points, alpha = self._flat_points()[None, :, :], m.alpha[:, None, None]
    along = jnp.sum(points * (flat[:, None, :] - alpha * points), axis=-1)
    variance, half_slope = (m.sigma**2)[:, None], (0.5 * m.d_variance)[:, None]
    each = half_slope / variance * (square / variance - flat.shape[1]) + m.d_alpha[:, None] * along / variance
    return jnp.sum(jnp.where(weights > 0, weights * each, 0.0), axis=-1)

  def sample(self, key: jax.Array, n: int, t: Any = None, cond: Any = None) -> jax.Array:
    """Draws of x_t, or of the data for t None: [n, *event].

    t is a number or [n]. Sample i depends on (key, i) alone.
    """
    which_keys, noise_keys = spectral.sample_keys(key, n, 2)
    which = draw_components(class_log_weights(self.log_weights, self.labels, cond, n), which_keys)
    x_t = spectral.add_noise(self.process, self._flat_points()[which], t, noise_keys)
    return x_t.reshape((n, *self.points.shape[1:]))

  def _flat_points(self):
    return self.points.reshape(self.points.shape[0], -1)

  def _mean(self, weights):
    return jnp.matmul(weights, self._flat_points(), precision=spectral.PRECISION)

  def _posterior(self, x, t, cond):
    """The posterior weights of the points given x_t, and what they are made of.

    Returns x as [B, D], the marginal at t, the squares |x - alpha a_k|^2 and the posterior weights,
    both [B, K].
    """
    flat, t = spectral.check_rows(x, t, self.points.shape[1:])
    m = self.process.marginal(t)
    log_weights = class_log_weights(self.log_weights, self.labels, cond, flat.shape[0])
    # Differences before squares: |x|^2 - 2 alpha x.a + alpha^2 |a|^2 would lose everything at small sigma.
    # XLA fuses the difference into the sum, so [B, K, D] is never stored.
    square = jnp.sum(
      (flat[:, None, :] - m.alpha[:, None, None] * self._flat_points()[None, :, :]) ** 2, axis=-1
    )
    allowed = jnp.where(log_weights > -jnp.inf, square, jnp.inf)
    # Softmax does not see a common shift, so the smallest square may be taken out without its gradient.
    excess = square - jax.lax.stop_gradient(jnp.min(allowed, axis=-1, keepdims=True))
    noisy = (m.sigma > 0)[:, None]
    variance = jnp.where(noisy, (m.sigma**2)[:, None], 1.0)
    likelihood = jnp.where(noisy, -0.5 * excess / variance, jnp.where(excess <= 0, 0.0, -jnp.inf))
    return flat, m, square, jax.nn.softmax(log_weights + likelihood, axis=-1)


def atoms(process: Any, points: Any, weights: Any = None, labels: Any = None, dtype: Any = None) -> Atoms:
  """The oracle of a finite set of points, for example of a training set.

  Args:
    process: a Gaussian process.
    points: [K, *event].
    weights: [K], none negative, normalised here; None for equal weights.
    labels: [K] integers, the class of each point, for conditional use.
    dtype: of its arrays; by default float64 where JAX allows it, else float32.

  Raises:
    ValueError: shapes that do not fit, or a negative weight.

  >>> from diffusion import oracles, processes
  >>> oracle = oracles.atoms(processes.rectified_flow(), [[0.0], [4.0]])
  >>> x, t = jnp.array([[1.9], [1.9]]), jnp.array([0.0, 1.0])
  >>> oracle(x, t).x0.tolist()  # the nearest point, then the mean
  [[0.0], [2.0]]
  """
  points = np.asarray(points, np.float64)
  if points.ndim < 1 or points.shape[0] < 1:
    raise ValueError(f"points must be [K, *event] with K >= 1, got shape {points.shape}")
  dtype = dtype or spectral.default_dtype()
  count = points.shape[0]
  return Atoms(
    process,
    jnp.asarray(points, dtype),
    jnp.asarray(host_log_weights(weights, count), dtype),
    host_labels(labels, count),
  )
