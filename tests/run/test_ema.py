"""Averages against their closed form, and half-lives against their meaning."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.config.errors import UserError
from diffusion.run import ema


@pytest.mark.parametrize("half_life,batch", [(1000.0, 32), (50.0, 32), (7.0, 64)])
def test_average_of_a_sequence_is_the_closed_form(half_life, batch):
  values = np.sin(np.arange(40.0)).astype(np.float32)
  average = {"w": jnp.full((3,), 2.0)}
  for step, value in enumerate(values):
    average = ema.update(average, {"w": jnp.full((3,), value)}, ema.rate(half_life, jnp.int32(step), batch))
  decay = 0.5 ** (batch / half_life)
  weights = (1 - decay) * decay ** np.arange(len(values) - 1, -1, -1)
  expected = decay ** len(values) * 2.0 + np.sum(weights * values)
  np.testing.assert_allclose(average["w"], np.full(3, expected), rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("batch", [10, 50, 250])
def test_half_life_is_in_images_whatever_the_batch(batch):
  """After one half-life of images at parameters 0, an average that stood at 1 stands at 1/2."""
  average = {"w": jnp.ones(())}
  for step in range(1000 // batch):
    average = ema.update(average, {"w": jnp.zeros(())}, ema.rate(1000.0, jnp.int32(step), batch))
  np.testing.assert_allclose(average["w"], 0.5, rtol=1e-5)


def test_ramp_bounds_the_half_life_by_the_images_seen():
  step, batch = jnp.int32(20), 16
  expected = 1 - 0.5 ** (batch / (0.05 * 20 * batch))
  np.testing.assert_allclose(ema.rate(1e6, step, batch, ramp=0.05), expected, rtol=1e-5)
  assert float(ema.rate(1e6, jnp.int32(0), batch, ramp=0.05)) == 1.0  # the random start leaves no trace
  late = jnp.int32(10**7)
  np.testing.assert_allclose(ema.rate(1e4, late, batch, ramp=0.05), ema.rate(1e4, late, batch), rtol=1e-6)


def test_zero_half_life_follows_the_parameters_and_long_ones_keep_precision():
  params = {"w": jnp.arange(3.0)}
  followed = ema.update({"w": jnp.zeros(3)}, params, ema.rate(0.0, jnp.int32(0), 8))
  np.testing.assert_array_equal(followed["w"], params["w"])
  np.testing.assert_allclose(ema.rate(1e12, jnp.int32(0), 1), np.log(2) * 1e-12, rtol=1e-5)


def test_averages_stay_in_their_own_precision():
  out = ema.update({"w": jnp.zeros(3)}, {"w": jnp.ones(3, jnp.bfloat16)}, ema.rate(64.0, jnp.int32(0), 64))
  assert out["w"].dtype == jnp.float32


def test_names_and_mistakes():
  assert list(ema.half_lives(1e6)) == ["1000000"] and ema.half_lives(()) == {}
  with pytest.raises(UserError, match="finite numbers"):
    ema.half_lives((-1,))
  assert jax.tree.leaves(ema.half_lives([0, 10])) == [0.0, 10.0]
