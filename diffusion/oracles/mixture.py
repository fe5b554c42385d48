"""A mixture of Gaussians with full covariances under a Gaussian process.

Each component has a class label if wanted.
"""

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


def class_log_weights(log_weights: jax.Array, labels: Any, cond: Any, rows: int) -> jax.Array:
  """Log-weights of the components under each row's condition, normalised: [B, K].

  A row's label keeps the components of that class; -1, or no condition, keeps all. A class without components
  makes that row NaN.

  Raises:
    ValueError: a label for an oracle that has no classes, or a condition other than 'label'.
  """
  log_weights = jnp.broadcast_to(log_weights[None, :], (rows, log_weights.shape[0]))
  if not cond:
    return log_weights
  if labels is None:
    spectral.check_no_condition(cond)
    return log_weights
  if set(cond) != {"label"}:
    raise ValueError(f"an oracle with classes is conditioned on 'label', got {', '.join(cond)}")
  label = jnp.asarray(cond["label"]).astype(labels.dtype)[:, None]
  log_weights = jnp.where((label == -1) | (label == labels[None, :]), log_weights, -jnp.inf)
  return log_weights - jax.scipy.special.logsumexp(log_weights, axis=1, keepdims=True)


def host_log_weights(weights: Any, count: int) -> np.ndarray:
  """log(weights / sum) in float64 on the host: [K]; None means equal weights. Raises ValueError."""
  weights = np.ones(count) if weights is None else np.asarray(weights, np.float64)
  if weights.shape != (count,) or not np.all(weights >= 0) or not 0 < weights.sum() < np.inf:
    raise ValueError(
      f"weights must be {count} numbers, none negative and not all zero, got shape {weights.shape}"
    )
  with np.errstate(divide="ignore"):
    return np.log(weights / weights.sum())


def host_labels(labels: Any, count: int) -> jax.Array | None:
  """Class labels as int32 [K], or None. Raises ValueError."""
  if labels is None:
    return None
  labels = np.asarray(labels)
  if labels.shape != (count,) or not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0:
    raise ValueError(f"labels must be {count} integers from 0 up, got shape {labels.shape} of {labels.dtype}")
  return jnp.asarray(labels, jnp.int32)


def draw_components(log_weights: jax.Array, keys: jax.Array) -> jax.Array:
  """One component index a row: [n, K] log-weights and [n] keys -> [n]."""
  return jax.vmap(jax.random.categorical)(keys, log_weights)


@struct.dataclass
class GaussianMixture(Oracle):
  """Data sum_k w_k N(mean_k, S_k) under a process; x: [B, *event], t: [B], D = number of entries of an event.

  Every method takes `cond={'label': [B] int}`, which keeps the components of that class (-1: all), where
  labels were given. Finite at every time, both ends included, for positive definite S_k (velocity and time
  score: wherever the schedule's slopes are).
  """

  process: GaussianProcess
  log_weights: Any  # [K], normalised
  means: Any  # [K, *event]
  basis: Any  # [K, D, D], eigenvectors as columns, or None: the axes
  eigenvalues: Any  # [K, D]
  labels: Any = None  # [K] int32 or None

  posterior_views: ClassVar[tuple[str, ...]] = GAUSSIAN_VIEWS
  methods: ClassVar[tuple[str, ...]] = ("energy", "hessian", "posterior_covariance", "time_score")

  def _posterior_views(self, x, t, cond, views):
    m, y, c, log_joint = self._components(x, t, cond)
    weights = jax.nn.softmax(log_joint, axis=-1)
    return Prediction(**{name: self._mean_view(name, m, y, c, weights).reshape(x.shape) for name in views})

  def score(self, x: jax.Array, t: jax.Array, cond: Any = None) -> jax.Array:
    """Gradient of log p_t at x: [B, *event]."""
    return self(x, t, cond, views=("score",)).score

  def hessian(self, x: jax.Array, t: jax.Array, cond: Any = None) -> jax.Array:
    """Hessian of log p_t at x: [B, D, D].

    sum_k r_k ((g_k - s)(g_k - s)^T - C_k^-1) with the components' scores g_k and their mean s: the form
    without cancellation of sum_k r_k (g_k g_k^T - C_k^-1) - s s^T.
    """
    _, y, c, log_joint = self._components(x, t, cond)
    weights = jax.nn.softmax(log_joint, axis=-1)
    scores = self._out(-y / c)
    return self._spread(scores, weights) + self._mean_matrix(-1.0 / c, weights)

  def posterior_covariance(self, x: jax.Array, t: jax.Array, cond: Any = None) -> jax.Array:
    """Cov[x_0 | x_t = x]: [B, D, D], the components' covariances plus the spread of their means."""
    m, y, c, log_joint = self._components(x, t, cond)
    weights = jax.nn.softmax(log_joint, axis=-1)
    eigenvalues = self.eigenvalues[None, :, :]
    means = self._flat_means()[None, :, :] + self._out(spectral.gain(m.alpha, eigenvalues, c) * y)
    return self._spread(means, weights) + self._mean_matrix(
      spectral.gain(m.sigma**2, eigenvalues, c), weights
    )

  def log_prob(self, x: jax.Array, t: jax.Array, cond: Any = None) -> jax.Array:
    """log p_t(x) in nats: [B]."""
    return jax.scipy.special.logsumexp(self._components(x, t, cond)[-1], axis=-1)

  def responsibilities(self, x: jax.Array, t: jax.Array, cond: Any = None) -> jax.Array:
    """Posterior probability of each component at x: [B, K]."""
    return jax.nn.softmax(self._components(x, t, cond)[-1], axis=-1)

  def time_score(self, x: jax.Array, t: jax.Array, cond: Any = None) -> jax.Array:
    """d/dt log p_t(x) at fixed x, in nats per unit of t: [B]."""
    m, y, c, log_joint = self._components(x, t, cond)
    weights = jax.nn.softmax(log_joint, axis=-1)
    half = spectral.half_slope(m, self.eigenvalues[None, :, :])
    scaled = y / c
    means = self._into(self._flat_means()[None, :, :])
    each = jnp.sum(half * (scaled**2 - 1.0 / c) + m.d_alpha * means * scaled, axis=-1)
    return jnp.sum(weights * each, axis=-1)

  def sample(self, key: jax.Array, n: int, t: Any = None, cond: Any = None) -> jax.Array:
    """Draws of x_t, or of the data for t None: [n, *event].

    t is a number or [n]. Sample i depends on (key, i) alone.
    """
    which_keys, data_keys, noise_keys = spectral.sample_keys(key, n, 3)
    which = draw_components(class_log_weights(self.log_weights, self.labels, cond, n), which_keys)
    normal = spectral.normal_rows(data_keys, self.eigenvalues.shape[1], self.means.dtype)
    offset = jnp.sqrt(self.eigenvalues[which]) * normal
    if self.basis is not None:
      offset = jnp.einsum("nde,ne->nd", self.basis[which], offset, precision=spectral.PRECISION)
    x0 = self._flat_means()[which] + offset
    return spectral.add_noise(self.process, x0, t, noise_keys).reshape((n, *self.means.shape[1:]))

  def _flat_means(self):
    return self.means.reshape(self.means.shape[0], -1)

  def _components(self, x, t, cond):
    """The terms of every component's density at x, in the eigenbasis of its covariance.

    Returns the marginal's numbers as [B, 1, 1], y_k = U_k^T (x - alpha m_k), c_k, both [B, K, D],
    and log w_k N_k(x) [B, K].
    """
    x, t = spectral.check_rows(x, t, self.means.shape[1:])
    m = jax.tree.map(lambda a: a[:, None, None], self.process.marginal(t))
    c = spectral.marginal_variance(m.alpha, m.sigma, self.eigenvalues[None, :, :])
    y = self._into(x[:, None, :] - m.alpha * self._flat_means()[None, :, :])
    log_normal = -0.5 * jnp.sum(y * (y / c) + jnp.log(2 * np.pi * c), axis=-1)
    return m, y, c, log_normal + class_log_weights(self.log_weights, self.labels, cond, x.shape[0])

  def _mean_view(self, name, m, y, c, weights):
    a, b = spectral.view_factors(name, m, self.eigenvalues[None, :, :], c)
    offset = weights[:, :, None] * b * y
    if self.basis is None:
      offset = jnp.sum(offset, axis=1)
    else:
      offset = jnp.einsum("kde,bke->bd", self.basis, offset, precision=spectral.PRECISION)
    return a[:, :, 0] * jnp.matmul(weights, self._flat_means(), precision=spectral.PRECISION) + offset

  def _into(self, x):
    return (
      x if self.basis is None else jnp.einsum("bkd,kde->bke", x, self.basis, precision=spectral.PRECISION)
    )

  def _out(self, y):
    return (
      y if self.basis is None else jnp.einsum("bke,kde->bkd", y, self.basis, precision=spectral.PRECISION)
    )

  def _spread(self, vectors, weights):
    """Weighted covariance of vectors [B, K, D] under weights [B, K]: [B, D, D]."""
    centred = vectors - jnp.einsum("bk,bkd->bd", weights, vectors, precision=spectral.PRECISION)[:, None, :]
    return jnp.einsum("bk,bkd,bke->bde", weights, centred, centred, precision=spectral.PRECISION)

  def _mean_matrix(self, diagonals, weights):
    """sum_k w_k U_k diag(d_k) U_k^T: [B, K, D] and [B, K] -> [B, D, D]."""
    diagonals = weights[:, :, None] * diagonals
    if self.basis is None:
      return (
        jnp.sum(diagonals, axis=1)[:, :, None] * jnp.eye(diagonals.shape[-1], dtype=diagonals.dtype)[None]
      )
    return jnp.einsum("kde,bke,kfe->bdf", self.basis, diagonals, self.basis, precision=spectral.PRECISION)


def gaussian_mixture(
  process: Any, weights: Any, means: Any, covariances: Any, labels: Any = None, dtype: Any = None
) -> GaussianMixture:
  """The oracle of a mixture of K Gaussians.

  Args:
    process: a Gaussian process.
    weights: [K], none negative, normalised here; None for equal weights.
    means: [K, *event].
    covariances: K covariances, each a number, [D] or [D, D]; or one number for all.
    labels: [K] integers, the class of each component, for conditional use.
    dtype: of its arrays; by default float64 where JAX allows it, else float32.

  Raises:
    ValueError: shapes that do not fit, a negative weight, a matrix that is no covariance.

  >>> from diffusion import oracles, processes
  >>> oracle = oracles.gaussian_mixture(processes.edm(), [0.5, 0.5], [[-1.0], [1.0]], 0.01, labels=[0, 1])
  >>> x, t = jnp.zeros((2, 1)), jnp.ones(2)
  >>> print(np.asarray(oracle(x, t, {"label": jnp.array([-1, 1])}).x0).round(2))
  [[0.  ]
   [0.99]]
  """
  means = np.asarray(means, np.float64)
  if means.ndim < 1 or means.shape[0] < 1:
    raise ValueError(f"means must be [K, *event] with K >= 1, got shape {means.shape}")
  count, dim = means.shape[0], int(np.prod(means.shape[1:]))
  covariances = [covariances] * count if np.ndim(covariances) == 0 else list(covariances)
  if len(covariances) != count:
    raise ValueError(f"{count} means need {count} covariances, got {len(covariances)}")
  bases, eigenvalues = zip(*[spectral.factor(s, dim) for s in covariances])
  if all(b is None for b in bases):
    basis = None
  else:
    basis = np.stack([np.eye(dim) if b is None else b for b in bases])
  dtype = dtype or spectral.default_dtype()
  array = lambda a: None if a is None else jnp.asarray(a, dtype)
  return GaussianMixture(
    process,
    array(host_log_weights(weights, count)),
    array(means),
    array(basis),
    array(np.stack(eigenvalues)),
    host_labels(labels, count),
  )
