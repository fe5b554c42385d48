"""The posterior covariance of a denoiser.

The covariance of the clean data given x_t, by Tweedie's formula of second order, and its main directions.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from diffusion.math.symmetric import FORMS, PRECISION, Symmetric, as_symmetric
from diffusion.processes.base import GaussianProcess, expand


def from_hessian(process: GaussianProcess, hessian: Symmetric | jax.Array, t: jax.Array) -> Symmetric:
  """The posterior covariance Cov[x0 | x_t] from the Hessian of log p_t.

  It is (sigma^4 s2 + sigma^2 I) / alpha^2 in the form of the Hessian s2 of log p_t (arXiv:2111.04726).

  Args:
    process: the Gaussian process.
    hessian: [B, D, D] or a form of `diffusion.math.symmetric`, at x_t; of a diagonal, the variances alone.
    t: [B], with alpha and sigma above zero.

  Returns:
    The covariances over the D numbers of an example, in the same form.

  >>> from diffusion import oracles, processes
  >>> oracle, x, t = oracles.gaussian(processes.edm(), jnp.zeros(2), 3.0), jnp.ones((1, 2)), jnp.ones(1)
  >>> from_hessian(oracle.process, oracle.hessian(x, t), t).dense().round(4).tolist()  # 3 x 1 / (3 + 1)
  [[[0.75, 0.0], [0.0, 0.75]]]
  """
  size = hessian.dimension if isinstance(hessian, FORMS) else jnp.shape(hessian)[-1]
  form, m = as_symmetric(hessian, size), process.marginal(t)
  return form.rescaled(m.sigma**2 / m.alpha).plus_identity((m.sigma / m.alpha) ** 2)


def from_denoiser(
  denoiser: Any,
  x: jax.Array,
  t: jax.Array,
  cond: Mapping[str, jax.Array] | None = None,
  *,
  symmetric: bool = True,
) -> Callable[[jax.Array], jax.Array]:
  """The posterior covariance as a function v -> Cov[x0 | x_t = x] v, without the matrix.

  It is sigma^2 / alpha (d x0_hat / dx) v, [B, ...] -> [B, ...].

  A trained network's Jacobian is not symmetric: `symmetric` takes its symmetric part, one derivative forwards
  and one backwards.

  Args:
    denoiser: (x, t, cond, views=) -> Prediction, with a `process`.
    x: [B, ...]; t: [B], with alpha above zero.

  >>> from diffusion import oracles, processes
  >>> oracle = oracles.gaussian(processes.edm(), jnp.zeros(2), 3.0)
  >>> from_denoiser(oracle, jnp.ones((1, 2)), jnp.ones(1))(jnp.array([[1.0, 0.0]])).round(4).tolist()
  [[0.75, 0.0]]
  """
  m = denoiser.process.marginal(t)
  scale = expand((m.sigma**2 / m.alpha).astype(x.dtype), x)
  _, forwards = jax.linearize(lambda x: denoiser(x, t, cond, views=("x0",)).x0, x)
  if not symmetric:
    return lambda v: scale * forwards(v)
  backwards = jax.linear_transpose(forwards, x)
  return lambda v: 0.5 * (scale * forwards(v) + backwards(scale * v)[0])


@struct.dataclass
class Directions:
  """The main directions of a covariance, largest variance first.

  variances: [B, k]; vectors: [B, k, ...], of norm one; residuals: [B, k], the norm of C v - variance v, which
  tells how far the iteration has come.
  """

  variances: jax.Array
  vectors: jax.Array
  residuals: jax.Array


def principal_directions(
  covariance: Symmetric | Callable[[jax.Array], jax.Array],
  x: jax.Array,
  k: int,
  *,
  key: jax.Array | None = None,
  iterations: int = 20,
  extra: int = 4,
) -> Directions:
  """The main directions of a covariance: its k eigenvectors of largest eigenvalue, row by row.

  They are found by products alone: subspace iteration, then Rayleigh-Ritz.

  k + extra products an iteration; the error falls by (eigenvalue k + extra + 1) / (eigenvalue k) each.

  Args:
    covariance: a function v [B, ...] -> [B, ...] such as `from_denoiser`'s, or a form such as
      `from_hessian`'s.
    x: [B, ...], whose shape and dtype the vectors have.
    k: how many.
    key: of the start; by default a fixed one.
    iterations: products of the whole block before the last.
    extra: further vectors that are iterated and not returned.

  Raises ValueError for a k below one or above the dimension of an example.

  >>> from diffusion import oracles, processes
  >>> oracle = oracles.gaussian(processes.edm(), jnp.zeros(3), jnp.array([0.1, 3.0, 1.0]))
  >>> found = principal_directions(from_denoiser(oracle, jnp.ones((1, 3)), jnp.ones(1)), jnp.ones((1, 3)), 2)
  >>> [round(float(v), 3) for v in found.variances[0]], jnp.abs(found.vectors[0, 0]).round(3).tolist()
  ([0.75, 0.5], [0.0, 1.0, 0.0])
  """
  size = int(np.prod(x.shape[1:]))
  if not isinstance(k, int) or not 1 <= k <= size:
    raise ValueError(
      f"principal_directions finds k=1 to {size} directions of an example of {size} numbers, got {k!r}"
    )
  if isinstance(covariance, FORMS):
    times = covariance.times
  else:
    times = lambda v: covariance(v.reshape(x.shape)).reshape(x.shape[0], size)
  product = jax.vmap(times, in_axes=2, out_axes=2)
  shape = (x.shape[0], size, min(k + extra, size))
  start = jax.random.normal(jax.random.key(0) if key is None else key, shape, x.dtype)

  def step(block, _):
    return jnp.linalg.qr(product(block))[0], None

  block, _ = jax.lax.scan(step, jnp.linalg.qr(start)[0], None, length=iterations)
  image = product(block)
  inner = jnp.einsum("bdi,bdj->bij", block, image, precision=PRECISION)
  values, mixing = jnp.linalg.eigh(0.5 * (inner + jnp.swapaxes(inner, 1, 2)))
  values, mixing = values[:, ::-1][:, :k], mixing[:, :, ::-1][:, :, :k]
  combine = lambda a: jnp.einsum("bdi,bij->bjd", a, mixing, precision=PRECISION)
  vectors = combine(block)
  residuals = jnp.linalg.norm(combine(image) - values[:, :, None] * vectors, axis=-1)
  return Directions(values, vectors.reshape(x.shape[0], k, *x.shape[1:]), residuals)
