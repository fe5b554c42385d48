"""Mixtures of Gaussians at the ends of a path.

Their density, score and time score are in closed form at every time between.

With component i at the first end and j at the second, x_t is a mixture of N(a m_i + b m_j, a^2 S_i + b^2 S_j
+ v I) with weights w_i w_j. The covariances of the two ends need not commute, so each is factorised at each
time: meant for small D.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from diffusion.oracles import spectral
from diffusion.oracles.oracle import Oracle
from diffusion.processes.paths import Path, as_path


@struct.dataclass
class End:
  """One end: log_weights [K], means [K, D], covariances [K, D, D] and their roots."""

  log_weights: Any
  means: Any
  covariances: Any
  roots: Any


@struct.dataclass
class PathMixture(Oracle):
  """The oracle of a path between two mixtures; x: [B, D], t: [B]."""

  path: Path
  first: End
  second: End

  @property
  def methods(self) -> tuple[str, ...]:
    """What it answers: the velocity, the parts that its path has, and the slopes of the density."""
    return ("energy", "velocity", *self.path.parts, "score", "time_score")

  @property
  def process(self) -> Path:
    """The path."""
    return self.path

  def log_prob(self, x: jax.Array, t: jax.Array, cond: Any = None) -> jax.Array:
    """log p_t(x) in nats: [B]."""
    return jax.scipy.special.logsumexp(self._components(x, t, cond)[0], axis=1)

  def score(self, x: jax.Array, t: jax.Array, cond: Any = None) -> jax.Array:
    """Gradient of log p_t at x: [B, D]."""
    log_joint, scaled = self._components(x, t, cond)[:2]
    return -_posterior_mean(log_joint, scaled)

  def time_score(self, x: jax.Array, t: jax.Array, cond: Any = None) -> jax.Array:
    """d/dt log p_t(x) at fixed x, in nats per unit of t: [B]."""
    log_joint, scaled, inverse, blend = self._components(x, t, cond)
    slope, mean_slope = self._slopes(blend)
    quadratic = jnp.einsum("bkd,bkde,bke->bk", scaled, slope, scaled, precision=spectral.PRECISION)
    trace = jnp.einsum("bkde,bked->bk", inverse, slope, precision=spectral.PRECISION)
    each = 0.5 * (quadratic - trace) + jnp.sum(mean_slope * scaled, axis=2)
    return jnp.sum(jax.nn.softmax(log_joint, axis=1) * each, axis=1)

  def velocity(self, x: jax.Array, t: jax.Array, cond: Any = None) -> jax.Array:
    """E[dx_t/dt | x_t = x]: [B, D] (arXiv:2303.08797, eq. 2.10).

    Of each pair of components, the slope of its mean and half the slope of its covariance C along C^-1 (x -
    mean): of the root of the variance only its square's slope is needed, which is finite at both ends.
    """
    log_joint, scaled, _, blend = self._components(x, t, cond)
    slope, mean_slope = self._slopes(blend)
    along = jnp.einsum("bkde,bke->bkd", slope, scaled, precision=spectral.PRECISION)
    return _posterior_mean(log_joint, mean_slope + 0.5 * along)

  def x0(self, x: jax.Array, t: jax.Array, cond: Any = None) -> jax.Array:
    """E[x_0 | x_t = x], of the first end: [B, D]."""
    own = np.repeat(np.arange(self.first.means.shape[0]), self.second.means.shape[0])
    log_joint, scaled, _, blend = self._components(x, t, cond)
    return _posterior_mean(log_joint, _end_means(self.first, own, blend.first, scaled))

  def x1(self, x: jax.Array, t: jax.Array, cond: Any = None) -> jax.Array:
    """E[x_1 | x_t = x], of the second end: [B, D]."""
    own = np.tile(np.arange(self.second.means.shape[0]), self.first.means.shape[0])
    log_joint, scaled, _, blend = self._components(x, t, cond)
    return _posterior_mean(log_joint, _end_means(self.second, own, blend.second, scaled))

  def eps(self, x: jax.Array, t: jax.Array, cond: Any = None) -> jax.Array:
    """E[eps | x_t = x], of the noise: [B, D]."""
    log_joint, scaled, _, blend = self._components(x, t, cond)
    return jnp.sqrt(blend.variance)[:, None] * _posterior_mean(log_joint, scaled)

  def sample(self, key: jax.Array, n: int, t: Any) -> jax.Array:
    """Draws of x_t, t a number or [n]: [n, D]; sample i depends on (key, i) alone."""
    keys = spectral.sample_keys(key, n, 3)
    ends = [_draw(end, own) for end, own in zip((self.first, self.second), keys)]
    dim = self.first.means.shape[1]
    t = jnp.broadcast_to(jnp.asarray(t, ends[0].dtype), (n,))
    return self.path.corrupt(ends[0], spectral.normal_rows(keys[2], dim, ends[0].dtype), t, ends[1])

  def _slopes(self, blend):
    """Time derivatives of the covariance [B, K, D, D] and of the mean [B, K, D] of every pair."""
    mean_slope = _outer_sum(
      blend.d_first[:, None, None] * self.first.means[None],
      blend.d_second[:, None, None] * self.second.means[None],
    )
    return self._pairs(blend.d_first_square, blend.d_second_square, blend.d_variance), mean_slope

  def _pairs(self, first, second, variance):
    """first S_i + second S_j + variance I for every pair, factors [B]: [B, K, D, D]."""
    expand = lambda a: a[:, None, None, None]
    total = _outer_sum(
      expand(first) * self.first.covariances[None], expand(second) * self.second.covariances[None]
    )
    return total + expand(variance) * jnp.eye(total.shape[-1], dtype=total.dtype)[None, None]

  def _components(self, x, t, cond):
    """log w N(x) [B, K], C^-1 (x - mean) [B, K, D], C^-1 [B, K, D, D] and the blend."""
    spectral.check_no_condition(cond)
    x, t = spectral.check_rows(x, t, self.first.means.shape[1:])
    blend = self.path.blend(t)
    means = _outer_sum(
      blend.first[:, None, None] * self.first.means[None],
      blend.second[:, None, None] * self.second.means[None],
    )
    covariances = self._pairs(blend.first**2, blend.second**2, blend.variance)
    inverse = jnp.linalg.inv(covariances)
    centred = x[:, None, :] - means
    scaled = jnp.einsum("bkde,bke->bkd", inverse, centred, precision=spectral.PRECISION)
    log_det = jnp.linalg.slogdet(covariances)[1]
    log_weights = (self.first.log_weights[:, None] + self.second.log_weights[None, :]).reshape(1, -1)
    log_normal = -0.5 * (jnp.sum(centred * scaled, axis=2) + log_det + x.shape[1] * np.log(2 * np.pi).item())
    return log_weights + log_normal, scaled, inverse, blend


def path_mixture(path: Any, first: Any = None, second: Any = None, dtype: Any = None) -> PathMixture:
  """The oracle of a path whose data ends are mixtures of Gaussians.

  Args:
    path: a path that goes through no map, or a Gaussian process.
    first, second: (weights [K], means [K, D], covariances: K numbers, [D] or [D, D]) of an end that is data;
      None for one that is a standard normal.
    dtype: of its arrays; by default float64 where JAX allows it, else float32.

  Raises:
    ValueError: an end given that the path does not have, or missing; shapes that do not fit; a matrix that is
      no covariance.

  >>> from diffusion import oracles, processes
  >>> oracle = path_mixture(processes.spherical(), second=([1.0], [[0.0]], [0.25]))
  >>> oracle.log_prob(jnp.zeros((2, 1)), jnp.array([0.0, 1.0])).round(4).tolist()     # N(0, 1) and N(0, 1/4)
  [-0.918..., -0.225...]
  """
  path = as_path(path, "path_mixture")
  if path.encode is not None:
    raise ValueError(
      "path_mixture knows the densities of a path that goes through no map: evaluate it at encode(x)"
    )
  for place, kind, end in zip(("first", "second"), path.ends, (first, second)):
    if (kind == "data") != (end is not None):
      raise ValueError(
        f"the {place} end of {path.name} is {'data' if kind == 'data' else 'a standard normal'}: "
        f"{place}={'(weights, means, covariances)' if kind == 'data' else 'None'} is what fits"
      )
  dim = np.asarray((second if first is None else first)[1]).shape[-1]
  dtype = dtype or spectral.default_dtype()
  return PathMixture(path, _end(first, dim, dtype), _end(second, dim, dtype))


def _end(given, dim, dtype):
  weights, means, covariances = given or ([1.0], np.zeros((1, dim)), [0.0])
  weights, means = np.asarray(weights, np.float64), np.asarray(means, np.float64)
  if means.shape != (weights.size, dim) or len(covariances) != weights.size or not np.all(weights > 0):
    raise ValueError(
      f"an end is K positive weights, means [K, {dim}] and K covariances, got {weights.size} weights, means "
      "of shape "
      f"{means.shape} and {len(covariances)} covariances"
    )
  full, roots = [], []
  for covariance in covariances:
    basis, eigenvalues = spectral.factor(covariance, dim)
    basis = np.eye(dim) if basis is None else basis
    full.append(basis @ np.diag(eigenvalues) @ basis.T)
    roots.append(basis @ np.diag(np.sqrt(eigenvalues)))
  array = lambda a: jnp.asarray(np.stack(a) if isinstance(a, list) else a, dtype)
  return End(array(np.log(weights / weights.sum())), array(means), array(full), array(roots))


def _draw(end, keys):
  which = jax.vmap(lambda k: jax.random.categorical(jax.random.fold_in(k, 0), end.log_weights))(keys)
  normal = jax.vmap(
    lambda k: jax.random.normal(jax.random.fold_in(k, 1), end.means.shape[1:], end.means.dtype)
  )(keys)
  return end.means[which] + jnp.einsum("nde,ne->nd", end.roots[which], normal, precision=spectral.PRECISION)


def _posterior_mean(log_joint, each):
  """The mean over pairs of components [B, K, D] by their responsibilities: [B, D]."""
  return jnp.einsum("bk,bkd->bd", jax.nn.softmax(log_joint, axis=1), each, precision=spectral.PRECISION)


def _end_means(end, own, factor, scaled):
  """E[x_end | x_t, pair] [B, K, D] of component own[k] of an end: m + factor S C^-1 (x - mean)."""
  along = jnp.einsum("kde,bke->bkd", end.covariances[own], scaled, precision=spectral.PRECISION)
  return end.means[own][None] + factor[:, None, None] * along


def _outer_sum(first, second):
  """Sums of every pair of components: [B, K, ...] and [B, L, ...] -> [B, K L, ...]."""
  total = first[:, :, None] + second[:, None, :]
  return total.reshape(total.shape[0], -1, *total.shape[3:])
