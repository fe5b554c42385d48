"""Averages against their closed form, and half-lives against their meaning."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.config.errors import UserError
from diffusion.run import ema, posthoc


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


@pytest.mark.parametrize("length", [0.05, 0.1, posthoc.LONGEST])
def test_the_average_by_a_power_is_the_sum_by_its_profile(length):
  """As trained, in float32, from a start that leaves no trace, against the profile's share of each step."""
  gamma, values = posthoc.power_gamma(length), np.cos(np.arange(60.0)).astype(np.float32)
  average = {"w": jnp.full((3,), 1e6)}
  for step, value in enumerate(values):
    average = ema.update(average, {"w": jnp.full((3,), value)}, ema.power_rate(gamma, jnp.int32(step)))
  weights = np.diff((np.arange(61) / 60) ** (gamma + 1))
  np.testing.assert_allclose(
    average["w"], np.full(3, weights @ values.astype(np.float64)), rtol=2e-5, atol=2e-6
  )


@pytest.mark.parametrize("step", [0, 1, 99, 10**6, 2**31 - 2])
def test_the_share_by_a_power_keeps_its_digits_in_long_runs(step):
  gamma = posthoc.power_gamma(0.05)
  expected = -np.expm1((gamma + 1) * np.log1p(-1 / np.float64(step + 1))) if step else 1.0
  np.testing.assert_allclose(ema.power_rate(gamma, jnp.int32(step)), expected, rtol=3e-6)


def test_averages_stay_in_their_own_precision():
  out = ema.update({"w": jnp.zeros(3)}, {"w": jnp.ones(3, jnp.bfloat16)}, ema.rate(64.0, jnp.int32(0), 64))
  assert out["w"].dtype == jnp.float32


def test_names_and_mistakes():
  assert list(ema.half_lives(1e6)) == ["1000000"] and ema.half_lives(()) == {}
  with pytest.raises(UserError, match="finite numbers"):
    ema.half_lives((-1,))
  assert jax.tree.leaves(ema.half_lives([0, 10])) == [0.0, 10.0]


def test_what_config_training_asks_for():
  kept = lambda **training: list(ema.averages(training))
  assert kept() == [] and kept(ema_half_life_images=64) == ["64"]
  assert kept(ema_half_life_images=64, ema_snapshot_every=10) == ["64", "0.05", "0.1"]
  assert kept(ema_sigma_rel=0.125) == ["0.125"] and kept(ema_sigma_rel=(), ema_snapshot_every=None) == []
  step = jnp.int32(9)
  shares = ema.averages(dict(ema_half_life_images=1e6, ema_ramp=0.05, ema_sigma_rel=0.1))
  assert shares["1000000"](step, 16) == ema.rate(1e6, step, 16, 0.05)
  assert shares["0.1"](step, 16) == shares["0.1"](step, 999) == ema.power_rate(posthoc.power_gamma(0.1), step)


@pytest.mark.parametrize(
  "training, words",
  [
    (dict(ema_sigma_rel=0.3), "ema_sigma_rel=0.3: .*from 0.0001 to 0.2887"),
    (dict(ema_sigma_rel=(0.05, 0)), "from 0.0001 to 0.2887"),
    (dict(ema_sigma_rel="long"), "give one relative length"),
    (dict(ema_sigma_rel=0.1, ema_half_life_images=0.1), "both make an average '0.1'"),
    (dict(ema_snapshot_every=0), "ema_snapshot_every=0: .*whole number"),
    (dict(ema_snapshot_every=0.5), "whole number"),
    (dict(ema_snapshot_every=5, ema_sigma_rel=()), "ema_sigma_rel names none"),
  ],
)
def test_mistakes_in_config_training(training, words):
  with pytest.raises(UserError, match=words):
    ema.averages(training)


def test_which_average_is_meant():
  named = lambda asked, **training: ema.average_name(dict(training=training), asked)
  kept = dict(ema_half_life_images=500, ema_snapshot_every=10)
  assert [named(asked, **kept) for asked in (None, "500", "none", "0.1", "0.10", "0.075", ".2")] == [
    "500",
    "500",
    None,
    "0.1",
    "0.1",
    "0.075",
    "0.2",
  ]
  assert named(None, ema_sigma_rel=(0.1, 0.2)) == "0.1" and named(None) is None
  for asked, words in (("0.3", "from 0.0001 to 0.2887"), ("7", "half-life 7"), ("long", "half-life long")):
    with pytest.raises(UserError, match=f"{words}.* it has 500, 0.05, 0.1"):
      named(asked, **kept)
  with pytest.raises(UserError, match="keeps no snapshots .*it has 500$"):
    named("0.2", ema_half_life_images=500)
