"""The residual MLP."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.networks import MLP


def test_starts_at_zero():
  net = MLP(width=16, depth=2)
  x, t = jax.random.normal(jax.random.key(0), (3, 5)), jnp.zeros(3)
  y = net.apply(net.init(jax.random.key(1), x, t), x, t)
  assert not np.asarray(y).any()


def test_an_image_is_its_flattened_vector():
  net = MLP(width=16, depth=1)
  x, t = jax.random.normal(jax.random.key(0), (3, 2, 4, 3)), jnp.arange(3.0)
  params = jax.tree.map(lambda a: a + 0.1, net.init(jax.random.key(1), x, t))
  flat = net.apply(params, x.reshape(3, 24), t)
  np.testing.assert_allclose(net.apply(params, x, t).reshape(3, 24), flat, rtol=1e-6)


def test_a_scalar_per_example_needs_an_axis():
  with pytest.raises(ValueError, match="batch first"):
    MLP().init(jax.random.key(0), jnp.zeros(3), jnp.zeros(3))
