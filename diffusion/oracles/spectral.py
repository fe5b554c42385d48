"""A Gaussian N(m, S) under x_t = alpha x_0 + sigma eps, in the eigenbasis of S.

Every quantity is a diagonal there.

With S = U diag(l) U^T and y = U^T (x - alpha m), the marginal has covariance U diag(c) U^T, c = alpha^2 l +
sigma^2, and every view of the denoiser is a m + U (b y) with the two factors of `view_factors`. No factor
subtracts nearly equal numbers, so float32 keeps its digits at both ends of the process.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

# Matrix products in full precision: accelerators round the inputs of a default one to bfloat16 or TF32.
PRECISION = jax.lax.Precision.HIGHEST


def default_dtype() -> Any:
  """float64 where JAX allows it, else float32."""
  return jax.dtypes.canonicalize_dtype(np.float64)


def factor(covariance: Any, dim: int) -> tuple[np.ndarray | None, np.ndarray]:
  """Eigenbasis and eigenvalues of a covariance, in float64 on the host.

  Args:
    covariance: a number (isotropic), [D] (diagonal) or [D, D] (full), positive semi-definite.
    dim: D.

  Returns:
    (basis, eigenvalues): basis [D, D] with eigenvectors as columns, or None for an isotropic or diagonal
    covariance; eigenvalues [D], ascending for a full covariance and in the order of the axes otherwise.

  Raises:
    ValueError: another shape, not symmetric, or not positive semi-definite.
  """
  covariance = np.asarray(covariance, np.float64)
  basis = None
  if covariance.shape in ((), (dim,)):
    eigenvalues = np.broadcast_to(covariance, (dim,)).copy()
  elif covariance.shape == (dim, dim):
    if not np.allclose(covariance, covariance.T, rtol=1e-5, atol=1e-8 * np.abs(covariance).max()):
      raise ValueError("a covariance must be symmetric: give (S + S.T) / 2")
    eigenvalues, basis = np.linalg.eigh(0.5 * (covariance + covariance.T))
  else:
    raise ValueError(
      f"a covariance in {dim} dimensions is a number, [{dim}] or [{dim}, {dim}], got shape {covariance.shape}"
    )
  # What rounding of a float32 matrix can do to a zero eigenvalue is no error.
  if not np.all(eigenvalues >= -1e-6 * np.abs(eigenvalues).max()):
    raise ValueError(
      f"a covariance must be positive semi-definite, got the eigenvalue {eigenvalues.min():.3g}"
    )
  return basis, np.maximum(eigenvalues, 0.0)


def marginal_variance(alpha: jax.Array, sigma: jax.Array, eigenvalues: jax.Array) -> jax.Array:
  """c = alpha^2 l + sigma^2, the eigenvalues of the covariance of x_t; arguments broadcast."""
  return alpha**2 * eigenvalues + sigma**2


def gain(numerator: jax.Array, eigenvalues: jax.Array, variance: jax.Array) -> jax.Array:
  """numerator * l / c, zero along the directions without data variance even where c = 0."""
  return jnp.where(eigenvalues > 0, numerator * eigenvalues / jnp.where(eigenvalues > 0, variance, 1.0), 0.0)


def view_factors(
  view: str, m: Any, eigenvalues: jax.Array, variance: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Factors (a, b) with which a view of the denoiser of N(m, S) is a m + U (b y).

  Args:
    view: 'x0', 'eps', 'score', 'v' or 'velocity'.
    m: the process's `Marginal`, its fields shaped to broadcast against `variance`.
    eigenvalues: of S, likewise.
    variance: c, of any shape.

  Returns:
    a shaped like m.alpha, b shaped like c.
  """
  zero = jnp.zeros_like(m.alpha)
  if view == "x0":
    return jnp.ones_like(m.alpha), gain(m.alpha, eigenvalues, variance)
  if view == "eps":
    return zero, m.sigma / variance
  if view == "score":
    return zero, -1.0 / variance
  if view == "v":  # alpha eps - sigma x0
    return -m.sigma, m.alpha * m.sigma * (1.0 - eigenvalues) / variance
  # velocity: half the slope of c along y, over c; sigma d_sigma taken together stays finite at sigma = 0.
  return m.d_alpha, half_slope(m, eigenvalues) / variance


def half_slope(m: Any, eigenvalues: jax.Array) -> jax.Array:
  """(1/2) dc/dt = alpha d_alpha l + sigma d_sigma."""
  return m.alpha * m.d_alpha * eigenvalues + 0.5 * m.d_variance


def check_rows(x: Any, t: Any, event: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
  """The rows of x as vectors and t as an array: ([B, D], [B]).

  Raises:
    ValueError: x does not hold events of the oracle's shape, or t not one time for each row.
  """
  x, t = jnp.asarray(x), jnp.asarray(t)
  if x.shape[1:] != tuple(event) or x.ndim == 0:
    raise ValueError(
      f"x has shape {x.shape} but this oracle's data has shape {tuple(event)}: give x shaped [B, ...] with "
      "that event shape"
    )
  if t.shape != x.shape[:1]:
    raise ValueError(
      f"t has shape {t.shape} and x has shape {x.shape}: give one time for each row, for example "
      f"jnp.full(({x.shape[0]},), t)"
    )
  return x.reshape(x.shape[0], -1), t


def check_no_condition(cond: Any) -> None:
  """Raises ValueError where an oracle without classes is given a condition."""
  if cond:
    raise ValueError(
      f"this oracle has no classes but got a condition with {', '.join(cond)}: give labels= when making it, "
      "or cond=None"
    )


def sample_keys(key: jax.Array, n: int, purposes: int) -> list[jax.Array]:
  """Keys folded by sample index, then by purpose: a list of [n] keys, one for each purpose."""
  rows = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(n))
  return [jax.vmap(lambda k, p=p: jax.random.fold_in(k, p))(rows) for p in range(purposes)]


def normal_rows(keys: jax.Array, dim: int, dtype: Any) -> jax.Array:
  """Standard normal numbers, one row a key: [n, dim]."""
  return jax.vmap(lambda k: jax.random.normal(k, (dim,), dtype))(keys)


def add_noise(process: Any, x0: jax.Array, t: Any, keys: jax.Array) -> jax.Array:
  """x_t for rows x0: [n, D] at times t: a number or [n]; x0 itself for t None."""
  if t is None:
    return x0
  m = process.marginal(jnp.broadcast_to(jnp.asarray(t, x0.dtype), x0.shape[:1]))
  return m.alpha[:, None] * x0 + m.sigma[:, None] * normal_rows(keys, x0.shape[1], x0.dtype)
