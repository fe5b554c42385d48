"""The diffusion transformer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.networks import DiT, dit


def test_starts_at_zero_with_identity_blocks():
  net = DiT(patch=2, width=16, depth=2, num_heads=2, num_classes=4)
  rng = np.random.default_rng(0)
  x, t = jnp.asarray(rng.normal(size=(2, 4, 6, 3)), jnp.float32), jnp.array([0.3, 5.0])
  y, params = jax.jit(net.init_with_output, compiler_options={"xla_backend_optimization_level": 0})(
    jax.random.key(0), x, t
  )
  assert not np.asarray(y).any()

  h = jnp.asarray(rng.normal(size=(2, 6, 16)), jnp.float32)
  embedding = jnp.asarray(rng.normal(size=(2, 16)), jnp.float32)
  block = dit.Block(2, 4.0, 0.0, True, jnp.float32, jnp.float32)
  np.testing.assert_array_equal(
    jax.jit(block.apply)({"params": params["params"]["block_1"]}, h, embedding), h
  )


@pytest.mark.parametrize("shape, patch", [((2, 6, 3), 3), ((2, 4, 6, 3), 2), ((1, 3, 3, 1), 1)])
def test_patches_and_back(shape, patch):
  x = jnp.arange(np.prod(shape), dtype=jnp.float32).reshape(shape)
  h = dit.to_patches(x, patch)
  grid = tuple(size // patch for size in shape[1:-1])
  assert h.shape == (shape[0], np.prod(grid), patch ** len(grid) * shape[-1])
  np.testing.assert_array_equal(dit.from_patches(h, grid, patch), x)


def test_a_patch_is_a_block_of_pixels():
  x = np.arange(24.0, dtype=np.float32).reshape(1, 4, 6, 1)
  np.testing.assert_array_equal(dit.to_patches(jnp.asarray(x), 2)[0, 4], x[0, 2:4, 2:4, 0].ravel())


def test_positions_tell_every_token_apart_by_axis():
  table = dit.positions((3, 5), 8)
  grid = table.reshape(3, 5, 8)
  np.testing.assert_allclose(grid[:, :, :4], np.broadcast_to(grid[:, :1, :4], (3, 5, 4)))  # first half: rows
  np.testing.assert_allclose(
    grid[:, :, 4:], np.broadcast_to(grid[:1, :, 4:], (3, 5, 4))
  )  # second half: columns
  np.testing.assert_allclose(grid[2, 0, :4], [np.sin(2), np.sin(0.02), np.cos(2), np.cos(0.02)])
  distance = np.abs(table[:, None] - table[None]).max(axis=-1) + np.eye(15)
  assert distance.min() > 0.1


@pytest.mark.parametrize(
  "changes, shape, message",
  [
    (dict(patch=4), (8, 10, 1), "divisible by 4.\nThe nearest sizes that fit are 8 x 8 and 8 x 12"),
    (dict(patch=4), (3, 1), "The nearest size that fits is 4:"),
    (dict(num_heads=5), (4, 1), "num_heads=5 must divide width=16"),
    (dict(width=18, num_heads=2), (4, 4, 1), "width=18 must be divisible by 4 for 2 spatial axes"),
  ],
)
def test_what_does_not_fit_is_named(changes, shape, message):
  net = DiT(**{"patch": 2, "width": 16, "depth": 1, "num_heads": 2, **changes})
  with pytest.raises(ValueError, match=message):
    jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, *shape)), jnp.zeros(1))
