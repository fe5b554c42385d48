"""The path from a standard normal to N(0, M) as a parametric model.

Its time score and its score are functions of a root of M.

Every density of the path is N(0, b^2 M + v I), so one eigenbasis of M serves all times. Derivatives with
respect to M are those of first-order perturbation, exact for equal eigenvalues too, where an eigenbasis
itself has none.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from diffusion.processes.base import GaussianProcess
from diffusion.processes.paths import Path, as_path


def prepare(root: jax.Array) -> dict[str, jax.Array]:
  """The parameters of `gaussian_end`'s functions from a root [D, D] of M: once a step, for all terms.

  >>> sorted(prepare(jnp.eye(3)))
  ['basis', 'matrix']
  """
  covariance = root @ root.T
  basis = jnp.linalg.eigh(jax.lax.stop_gradient(covariance))[1]
  return {"basis": basis, "matrix": basis.T @ covariance @ basis}


def gaussian_end(path: Path | GaussianProcess) -> tuple[Callable[..., jax.Array], Callable[..., jax.Array]]:
  """(time_score, score) for `denoisers.from_functions`: (prepared, x [B, D], t [B], cond) -> [B], [B, D].

  Raises ValueError for a path that does not lead from a standard normal to data.

  >>> from diffusion import processes
  >>> time_score, score = gaussian_end(processes.spherical())
  >>> found = time_score(prepare(0.5 * jnp.eye(2)), jnp.zeros((1, 2)), jnp.ones(1))
  >>> # -tr(dC/dt C^-1) / 2 = 2 (1 - 1/4) / (1/4)
  >>> bool(abs(found[0] - 6) < 1e-5)
  True
  """
  path = as_path(path, "gaussian_end")
  if path.ends != ("normal", "data"):
    raise ValueError(
      f"gaussian_end models a path from a standard normal to data; the ends of {path.name} are {path.ends}"
    )

  def solved(prepared, x, t):
    """C^-1 x in the eigenbasis, with what else the functions need."""
    matrix, blend = prepared["matrix"], path.blend(t)
    square, variance = blend.second[:, None] ** 2, blend.variance[:, None]
    diagonal = jnp.diagonal(matrix)[None]
    spread = square * diagonal + variance
    fixed = jax.lax.stop_gradient(diagonal) * square + variance
    y = x @ prepared["basis"]
    w = y / fixed
    # One step of refinement: the value is the same, and its derivative in M is -C^-1 dC C^-1 y.
    w = w + (y - square * (w @ matrix) - variance * w) / fixed
    return matrix, blend, diagonal, spread, w

  def time_score(prepared, x, t, cond=None):
    del cond
    matrix, blend, diagonal, spread, w = solved(prepared, x, t)
    d_square, d_variance = blend.d_second_square[:, None], blend.d_variance[:, None]
    quadratic = jnp.sum(w * (d_square * (w @ matrix) + d_variance * w), axis=1)
    return 0.5 * (quadratic - jnp.sum((d_square * diagonal + d_variance) / spread, axis=1))

  def score(prepared, x, t, cond=None):
    del cond
    return -solved(prepared, x, t)[-1] @ prepared["basis"].T

  return time_score, score
