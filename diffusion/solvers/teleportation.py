"""Teleportation: skipping the first part of a run.

The probability flow of the data's Gaussian approximation takes its place, in one closed form. At high noise
the score of any data is nearly that of the Gaussian with its mean and covariance (arXiv:2412.09726), whose
flow needs no network.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.core import Tracer


@struct.dataclass
class GaussianFit:
  """The mean and covariance of data.

  The covariance is basis diag(eigenvalues) basis^T + rest (I - basis basis^T). D is the number of entries of
  an example.

  Attributes:
    mean: [*event].
    basis: [D, k], orthonormal columns.
    eigenvalues: [k].
    rest: [] variance in every other direction.
  """

  mean: Any
  basis: Any
  eigenvalues: Any
  rest: Any


def fit_gaussian(data: Any, rank: int | None = None) -> GaussianFit:
  """The mean and covariance of data, in float64 on the host.

  Args:
    data: [N, *event] examples in the units of the model.
    rank: None for all directions, or how many of the largest variance; the others share what is left of it
      (probabilistic PCA). The paper has none there: `fit.replace(rest=0.0)`.

  Raises:
    ValueError: fewer than two examples, values that are not finite, a rank that data do not have.

  >>> fit = fit_gaussian(np.array([[0.0, 1.0], [2.0, 1.0], [0.0, 3.0], [2.0, 3.0]]))
  >>> fit.mean.tolist(), fit.eigenvalues.round(6).tolist()
  ([1.0, 2.0], [1.0, 1.0])
  """
  data = np.asarray(data, np.float64)
  flat = data.reshape(data.shape[0], -1)
  if data.ndim < 2 or data.shape[0] < 2 or not np.isfinite(flat).all():
    raise ValueError(
      f"a Gaussian is fitted to at least two finite examples [N, *event], got shape {data.shape}"
    )
  dim = flat.shape[1]
  if rank is not None and not 1 <= rank <= dim:
    raise ValueError(f"the rank lies between 1 and the {dim} entries of an example, got {rank}")
  mean = flat.mean(axis=0)
  eigenvalues, basis = np.linalg.eigh((flat - mean).T @ (flat - mean) / flat.shape[0])
  eigenvalues, basis = np.maximum(eigenvalues[::-1], 0.0), basis[:, ::-1]
  kept = dim if rank is None else rank
  rest = eigenvalues[kept:].mean() if kept < dim else 0.0
  return GaussianFit(mean.reshape(data.shape[1:]), basis[:, :kept], eigenvalues[:kept], np.float64(rest))


def teleport(process: Any, fit: GaussianFit, x: Any, t_to: Any, t_from: Any = None) -> jax.Array:
  """The flow of the fitted Gaussian from t_from to t_to (arXiv:2412.09726).

  It is exact for Gaussian data on every Gaussian process.

    x_to = alpha_to m + C_to^(1/2) C_from^(-1/2) (x - alpha_from m),  C = alpha^2 S + sigma^2 I

  No network is called. Start any solver from there: `solvers.sample(denoiser, solvers.heun(process,
  grids.karras(process, 8, t_max=10.0)), x)`.

  Args:
    process: the Gaussian process.
    fit: `GaussianFit` of the data.
    x: [B, *event] at t_from.
    t_to: a number or [B], below t_from: where the data still look Gaussian, on sets of images sigma/alpha of
      5 to 40.
    t_from: a number or [B]; by default the process's t_max, where there need be no signal.

  Returns:
    [B, *event] at t_to.

  Raises:
    ValueError: x of another shape than the data, or times that do not decrease.

  >>> from diffusion import processes
  >>> fit = GaussianFit(jnp.zeros(2), jnp.eye(2), jnp.ones(2), jnp.zeros(()))
  >>> x = teleport(processes.edm(), fit, jnp.array([[80.0, 0.0]]), 3.0)
  >>> bool(abs(x[0, 0] - 80 * ((1 + 3**2) / (1 + 80**2)) ** 0.5) < 1e-4)
  True
  """
  x = jnp.asarray(x)
  t_from = process.t_max if t_from is None else t_from
  if x.ndim < 2 or x.shape[1:] != np.shape(fit.mean):
    raise ValueError(
      f"x has shape {x.shape} and the fitted data {np.shape(fit.mean)}: give x shaped [B, *event]"
    )
  if not any(isinstance(t, Tracer) for t in (t_from, t_to)) and not np.all(
    np.asarray(t_to) < np.asarray(t_from)
  ):
    raise ValueError(f"a jump goes from a later time to an earlier, got t_from={t_from} and t_to={t_to}")
  rows = lambda t: jnp.broadcast_to(jnp.asarray(t, x.dtype), x.shape[:1])
  return _flow(
    process, jax.tree.map(lambda leaf: jnp.asarray(leaf, x.dtype), fit), x, rows(t_from), rows(t_to)
  )


@jax.jit
def _flow(process, fit, x, t_from, t_to):
  here, there = (jax.tree.map(lambda leaf: leaf[:, None], process.marginal(t)) for t in (t_from, t_to))
  mean = fit.mean.reshape(1, -1)
  centred = x.reshape(x.shape[0], -1) - here.alpha * mean
  # Full precision: accelerators round the inputs of a default product.
  product = lambda a, b: jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)
  inside = product(centred, fit.basis)
  scale = lambda variance: jnp.sqrt(
    (there.alpha**2 * variance + there.sigma**2) / (here.alpha**2 * variance + here.sigma**2)
  )
  outside = centred - product(inside, fit.basis.T)
  moved = product(scale(fit.eigenvalues[None, :]) * inside, fit.basis.T) + scale(fit.rest) * outside
  return (there.alpha * mean + moved).reshape(x.shape)
