"""Posterior covariances against the mixture oracle's own.

And their main directions against a dense eigendecomposition.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion import oracles, processes
from diffusion.math import symmetric
from diffusion.tasks import posterior_covariance as task

RNG = np.random.default_rng(0)


def mixture(size=6):
  """(oracle with an event of two axes, x_t, t): alpha is below one."""
  means, roots = RNG.normal(size=(3, size // 2, 2)), RNG.normal(size=(3, size, size)) / size
  oracle = oracles.gaussian_mixture(
    processes.vp_cosine(), None, means, roots @ np.swapaxes(roots, 1, 2) + 0.02 * np.eye(size)
  )
  t = jnp.array([0.2, 0.5, 0.8])
  return oracle, oracle.sample(jax.random.key(0), 3, t=t), t


@pytest.mark.slow
def test_both_ways_give_the_mixtures_own_covariance(x64):
  oracle, x, t = mixture()
  truth = np.asarray(jax.jit(lambda x: oracle.posterior_covariance(x, t))(x))
  by_hessian = jax.jit(lambda x: task.from_hessian(oracle.process, oracle.hessian(x, t), t).dense())(x)
  np.testing.assert_allclose(by_hessian, truth, atol=1e-10)
  for symmetrised in (False, True):
    product = jax.jit(jax.vmap(task.from_denoiser(oracle, x, t, symmetric=symmetrised)))
    columns = product(jnp.broadcast_to(jnp.eye(6).reshape(6, 1, 3, 2), (6, 3, 3, 2))).reshape(6, 3, 6)
    np.testing.assert_allclose(np.moveaxis(columns, 0, 2), truth, atol=1e-10)
  low = symmetric.LowRank(
    jnp.asarray(RNG.normal(size=(3, 6))), jnp.asarray(RNG.normal(size=(3, 6, 2))), (1, -1)
  )
  m = oracle.process.marginal(t)
  dense = (m.sigma**4 / m.alpha**2)[:, None, None] * low.dense() + ((m.sigma / m.alpha) ** 2)[
    :, None, None
  ] * jnp.eye(6)[None]
  np.testing.assert_allclose(task.from_hessian(oracle.process, low, t).dense(), dense, atol=1e-12)


def test_main_directions_are_the_eigenvectors(x64):
  """Variances to 1e-8, vectors up to their sign to 1e-4 (the error of a vector is the root of that of its
  value)."""
  oracle, x, t = mixture()
  values, vectors = np.linalg.eigh(oracle.posterior_covariance(x, t))
  for covariance in (
    task.from_denoiser(oracle, x, t),
    task.from_hessian(oracle.process, oracle.hessian(x, t), t),
  ):
    found = jax.jit(
      lambda covariance=covariance: task.principal_directions(covariance, x, 3, iterations=60, extra=2)
    )()
    np.testing.assert_allclose(found.variances, values[:, ::-1][:, :3], rtol=1e-8)
    overlap = np.abs(np.einsum("bkd,bdk->bk", found.vectors.reshape(3, 3, 6), vectors[:, :, ::-1][:, :, :3]))
    np.testing.assert_allclose(overlap, 1.0, atol=1e-4)
    assert found.vectors.shape == (3, 3, 3, 2) and found.residuals.max() < 1e-4


def test_a_jacobian_that_is_not_symmetric_gives_its_symmetric_part(x64):
  from diffusion import denoisers

  matrix = jnp.asarray(RNG.normal(size=(3, 3)))
  denoiser = denoisers.from_function(lambda m, x, t, cond: x @ m.T, processes.edm(), denoisers.x0(), matrix)
  product = task.from_denoiser(denoiser, jnp.ones((1, 3)), jnp.array([2.0]))
  columns = np.stack([product(jnp.eye(3)[i][None])[0] for i in range(3)], 1)
  np.testing.assert_allclose(columns, 4.0 * 0.5 * (matrix + matrix.T), rtol=1e-12)


@pytest.mark.parametrize("k", [0, 3, 1.0])
def test_as_many_directions_as_there_are_dimensions(k):
  with pytest.raises(ValueError, match="k=1 to 2 directions"):
    task.principal_directions(symmetric.Diagonal(jnp.ones((1, 2))), jnp.ones((1, 2)), k)
