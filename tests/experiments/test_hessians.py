"""What the measurements of high-order score matching compare with.

The true Hessian in low rank, and the best constant.
"""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.high_order import hessians


def test_the_true_hessian_in_low_rank_is_the_oracles():
  oracle = hessians.embedded_modes(5, 1.0, 0.5)
  x, t = oracle.sample(jax.random.key(0), 6, t=0.3), jnp.full(6, 0.3)
  truth = jax.jit(hessians.true_hessian)(oracle, x, t)
  dense = np.asarray(jax.jit(oracle.hessian)(x, t))
  np.testing.assert_allclose(truth.dense(), dense, atol=1e-4)
  # The constant that minimises the mean square error is the mean.
  np.testing.assert_allclose(
    hessians.constant_error(truth), np.mean(np.sum((dense - dense.mean(0)) ** 2, axis=(1, 2))), rtol=1e-4
  )
  np.testing.assert_allclose(hessians.mean_of(truth), dense.mean(0), atol=1e-4)
