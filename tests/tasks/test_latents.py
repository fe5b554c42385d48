"""Tasks on pictures for models of latents: exact where the decoder is linear."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion import codecs, oracles, processes, tasks


def test_a_measurement_through_a_linear_decoder_is_that_of_the_latents():
  """x = (z - 1) / 2, of which two numbers are measured: A A^T = 1/4 on what is measured, where dps with a
  data_std is the posterior mean of Gaussian latents, which PiGDM has of the same measurement of z itself."""
  process = processes.edm()
  prior = oracles.gaussian(process, jnp.zeros(4), jnp.ones(4))
  known, noise = np.array([1, 0, 1, 0]), 0.3
  rng = np.random.default_rng(0)
  z, y_z = (jnp.asarray(rng.normal(size=(5, 4)), jnp.float32) for _ in range(2))
  y_z = tasks.inpainting(known)(y_z)
  y = tasks.inpainting(known)(0.5 * y_z - 0.5)
  seen = tasks.decoded(tasks.inpainting(known, 0.5 * noise), codecs.scale(-0.5, 0.5), {}, (4,))
  t = jnp.full((5,), 0.7)
  wanted = tasks.pigdm(tasks.inpainting(known, noise), y_z, 1.0)(prior)(z, t).x0
  found = tasks.dps(seen, y, data_std=1.0)(prior)(z, t).x0
  np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
  with pytest.raises(ValueError, match="inpainting of decoded latents is not one"):
    tasks.pigdm(seen, y, 1.0)


def test_one_program_serves_all_weights_of_a_decoder():
  made = lambda std: tasks.decoded(tasks.inpainting(np.ones(3)), codecs.scale(0.0, std), {}, (3,))
  first, second = made(1.0), made(2.0)
  assert first.measured == (3,)
  np.testing.assert_array_equal(2 * first(jnp.ones((1, 3))), second(jnp.ones((1, 3))))
  assert len(jax.tree.leaves(first)) == len(jax.tree.leaves(second)) >= 3


def test_a_mask_on_latents_has_every_block_with_a_pixel_of_the_mask():
  mask = np.zeros((8, 12, 3), int)
  mask[3, 5] = 1
  found = tasks.latent_mask(mask, (2, 3, 4))
  assert found.shape == (2, 3, 4) and found[..., 0].tolist() == [[0, 1, 0], [0, 0, 0]]
  assert (found == found[..., :1]).all()
  for shape in ((5,), (3, 3, 4)):
    with pytest.raises(ValueError, match="a mask on pixels is none on them"):
      tasks.latent_mask(mask, shape)
