"""One Gaussian under a Gaussian process: everything in closed form, the probability flow included."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from diffusion.denoisers import Prediction
from diffusion.oracles import spectral
from diffusion.oracles.oracle import Oracle
from diffusion.processes.base import GaussianProcess
from diffusion.processes.views import GAUSSIAN_VIEWS


@struct.dataclass
class Gaussian(Oracle):
  """Data N(mean, S) under a process; x: [B, *event], t: [B], D = number of entries of an event.

  Finite at every time, both ends included, for S positive definite (velocity and time score: wherever the
  schedule's slopes are). Where S is singular, the directions without variance have no density, score or eps
  at sigma = 0.
  """

  process: GaussianProcess
  mean: Any  # [*event]
  basis: Any  # [D, D], eigenvectors as columns, or None: the axes
  eigenvalues: Any  # [D]

  posterior_views: ClassVar[tuple[str, ...]] = GAUSSIAN_VIEWS
  methods: ClassVar[tuple[str, ...]] = ("energy", "hessian", "posterior_covariance", "time_score")

  def _posterior_views(self, x, t, cond, views):
    spectral.check_no_condition(cond)
    m, y, c = self._coordinates(x, t)
    mean = self.mean.reshape(1, -1)

    def view(name):
      a, b = spectral.view_factors(name, m, self.eigenvalues[None, :], c)
      return (a * mean + self._out(b * y)).reshape(x.shape)

    return Prediction(**{name: view(name) for name in views})

  def score(self, x: jax.Array, t: jax.Array, cond: Any = None) -> jax.Array:
    """Gradient of log p_t at x: [B, *event]."""
    return self(x, t, cond, views=("score",)).score

  def hessian(self, x: jax.Array, t: jax.Array, cond: Any = None) -> jax.Array:
    """Hessian of log p_t at x, the same for every x: [B, D, D]."""
    spectral.check_no_condition(cond)
    _, _, c = self._coordinates(x, t)
    return self._matrix(-1.0 / c)

  def posterior_covariance(self, x: jax.Array, t: jax.Array, cond: Any = None) -> jax.Array:
    """Cov[x_0 | x_t = x], the same for every x: [B, D, D]."""
    spectral.check_no_condition(cond)
    m, _, c = self._coordinates(x, t)
    return self._matrix(spectral.gain(m.sigma**2, self.eigenvalues[None, :], c))

  def log_prob(self, x: jax.Array, t: jax.Array, cond: Any = None) -> jax.Array:
    """log p_t(x) in nats: [B]."""
    spectral.check_no_condition(cond)
    _, y, c = self._coordinates(x, t)
    return -0.5 * jnp.sum(y * (y / c) + jnp.log(2 * np.pi * c), axis=-1)

  def time_score(self, x: jax.Array, t: jax.Array, cond: Any = None) -> jax.Array:
    """d/dt log p_t(x) at fixed x, in nats per unit of t: [B]."""
    spectral.check_no_condition(cond)
    m, y, c = self._coordinates(x, t)
    half = spectral.half_slope(m, self.eigenvalues[None, :])
    scaled = y / c
    mean = self._into(self.mean.reshape(1, -1))
    return jnp.sum(half * (scaled**2 - 1.0 / c) + m.d_alpha * mean * scaled, axis=-1)

  def sample(self, key: jax.Array, n: int, t: Any = None, cond: Any = None) -> jax.Array:
    """Draws of x_t, or of the data for t None: [n, *event].

    t is a number or [n]. Sample i depends on (key, i) alone.
    """
    spectral.check_no_condition(cond)
    data_keys, noise_keys = spectral.sample_keys(key, n, 2)
    normal = spectral.normal_rows(data_keys, self.eigenvalues.shape[0], self.mean.dtype)
    x0 = self.mean.reshape(1, -1) + self._out(jnp.sqrt(self.eigenvalues)[None, :] * normal)
    return spectral.add_noise(self.process, x0, t, noise_keys).reshape((n, *self.mean.shape))

  def flow(self, x: jax.Array, t_from: jax.Array, t_to: jax.Array) -> jax.Array:
    """The exact solution at t_to of the probability-flow ODE that passes through x at t_from.

    x_to = alpha_to m + C_to^(1/2) C_from^(-1/2) (x - alpha_from m): the marginals commute, so the symmetric
    roots solve dx/dt = f x - g^2/2 score (arXiv:2011.13456, eq. 13).

    Args:
      x: [B, *event] at t_from.
      t_from: [B].
      t_to: [B].

    Returns:
      [B, *event] at t_to.

    >>> from diffusion import oracles, processes
    >>> oracle = oracles.gaussian(processes.edm(), jnp.zeros(2), 1.0)
    >>> t = jnp.array([3.0])
    >>> x = oracle.flow(jnp.array([[10.0, 0.0]]), t, 0.0 * t)
    >>> bool(abs(x[0, 0] - 10 / (1 + 3**2) ** 0.5) < 1e-5)
    True
    """
    _, y, c_from = self._coordinates(x, t_from)
    _, t_to = spectral.check_rows(x, t_to, self.mean.shape)
    m = self._marginal(t_to)
    c_to = spectral.marginal_variance(m.alpha, m.sigma, self.eigenvalues[None, :])
    return (m.alpha * self.mean.reshape(1, -1) + self._out(jnp.sqrt(c_to / c_from) * y)).reshape(x.shape)

  def _marginal(self, t):
    return jax.tree.map(lambda a: a[:, None], self.process.marginal(t))

  def _coordinates(self, x, t):
    """The marginal's numbers as [B, 1], y = U^T (x - alpha m) and the variances c, both [B, D]."""
    x, t = spectral.check_rows(x, t, self.mean.shape)
    m = self._marginal(t)
    c = spectral.marginal_variance(m.alpha, m.sigma, self.eigenvalues[None, :])
    return m, self._into(x - m.alpha * self.mean.reshape(1, -1)), c

  def _into(self, x):
    return x if self.basis is None else jnp.matmul(x, self.basis, precision=spectral.PRECISION)

  def _out(self, y):
    return y if self.basis is None else jnp.matmul(y, self.basis.T, precision=spectral.PRECISION)

  def _matrix(self, diagonal):
    """U diag(d) U^T for rows d: [B, D] -> [B, D, D]."""
    basis = jnp.eye(diagonal.shape[-1], dtype=diagonal.dtype) if self.basis is None else self.basis
    return jnp.einsum("de,be,fe->bdf", basis, diagonal, basis, precision=spectral.PRECISION)


def gaussian(process: Any, mean: Any, covariance: Any, dtype: Any = None) -> Gaussian:
  """The oracle of Gaussian data.

  Args:
    process: a Gaussian process.
    mean: [*event], the shape of one example.
    covariance: a number (isotropic), [D] (diagonal) or [D, D] (full), D = number of entries of an event.
    dtype: of its arrays; by default float64 where JAX allows it, else float32.

  Raises:
    ValueError: a covariance of another shape, not symmetric or not positive semi-definite.

  >>> from diffusion import oracles, processes
  >>> oracle = oracles.gaussian(processes.vp_linear(), jnp.zeros(2), jnp.eye(2))
  >>> oracle(jnp.ones((1, 2)), jnp.array([0.5]), views=("score",)).score.round(4).tolist()
  [[-1.0, -1.0]]
  """
  mean = np.asarray(mean, np.float64)
  basis, eigenvalues = spectral.factor(covariance, mean.size)
  dtype = dtype or spectral.default_dtype()
  array = lambda a: None if a is None else jnp.asarray(a, dtype)
  return Gaussian(process, array(mean), array(basis), array(eigenvalues))
