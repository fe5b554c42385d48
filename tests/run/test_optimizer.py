"""Schedules in images and steps against closed forms; the chain against hand-written Adam."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from diffusion.config.errors import UserError
from diffusion.run.parts import optimizer

pytestmark = pytest.mark.standard_promotion


@pytest.mark.parametrize("batch", [8, 32])
def test_a_schedule_in_images_does_not_depend_on_the_batch(batch):
  section = dict(learning_rate=2.0, schedule="cosine", warmup_images=320, decay_images=1600)
  rate = optimizer.learning_rate(section, batch, steps=10**6)
  for images in (0, 160, 320, 960, 1600, 3200):
    part = np.clip((images - 320) / 1280, 0, 1)
    expected = 2.0 * min(1, images / 320) * 0.5 * (1 + np.cos(np.pi * part))
    np.testing.assert_allclose(rate(images // batch), expected, atol=1e-6)


def test_steps_and_images_say_the_same():
  by_steps = optimizer.learning_rate(
    dict(learning_rate=1.0, schedule="linear", warmup_steps=10, final=0.1), 64, steps=100
  )
  by_images = optimizer.learning_rate(
    dict(learning_rate=1.0, schedule="linear", warmup_images=640, decay_images=6400, final=0.1), 64, steps=7
  )
  for step in (0, 3, 10, 50, 100, 200):
    np.testing.assert_allclose(by_steps(step), by_images(step), rtol=1e-6)
  np.testing.assert_allclose(by_steps(100), 0.1, rtol=1e-5)


def test_rate_is_a_pure_function_of_the_step_under_jit():
  rate = optimizer.learning_rate(dict(learning_rate=3e-4, warmup_steps=5), 1, steps=10)
  np.testing.assert_allclose(jax.jit(rate)(jnp.int32(2)), 3e-4 * 2 / 5, rtol=1e-6)
  np.testing.assert_allclose(jax.jit(rate)(jnp.int32(9)), 3e-4, rtol=1e-6)


def test_clipped_adamw_against_the_formula():
  section = dict(learning_rate=0.1, b1=0.8, b2=0.9, eps=1e-3, clip=1.0, weight_decay=0.01)
  chain = optimizer.direction(section)
  params = {"w": jnp.asarray([1.0, -2.0])}
  state = chain.init(params)
  w, m, v = np.array([1.0, -2.0]), 0.0, 0.0
  for count in range(1, 4):
    gradient = np.array([3.0, 4.0]) * count
    updates, state = chain.update({"w": jnp.asarray(gradient, jnp.float32)}, state, params)
    params = optax.apply_updates(params, jax.tree.map(lambda u: -0.1 * u, updates))
    clipped = gradient / np.linalg.norm(gradient)
    m, v = 0.8 * m + 0.2 * clipped, 0.9 * v + 0.1 * clipped**2
    w = w - 0.1 * (m / (1 - 0.8**count) / (np.sqrt(v / (1 - 0.9**count)) + 1e-3) + 0.01 * w)
    np.testing.assert_allclose(params["w"], w, rtol=1e-5)


def test_another_optimiser_by_its_name():
  chain = optimizer.direction(dict(learning_rate=1.0, scale=dict(factory="optax.identity")))
  gradient = {"w": jnp.asarray([3.0])}
  updates, _ = chain.update(gradient, chain.init(gradient), gradient)
  np.testing.assert_array_equal(updates["w"], gradient["w"])


@pytest.mark.parametrize(
  "section,words",
  [(dict(schedule="cosinus"), "did you mean 'cosine'"), (dict(warmup_steps=1, warmup_images=1), "give one")],
)
def test_schedule_mistakes(section, words):
  with pytest.raises(UserError, match=words):
    optimizer.learning_rate(dict(learning_rate=1.0) | section, 1, 1)


def test_unknown_optimizer_key():
  with pytest.raises(UserError, match="did you mean 'weight_decay'"):
    optimizer.direction(dict(learning_rate=1.0, weight_decays=0.1))


def test_weight_decay_leaves_fixed_frequencies_alone():
  params = {
    "model": {"noise": {"frequencies": jnp.ones(3)}, "dense": {"kernel": jnp.ones(3)}},
    "loss": {"head": jnp.ones(3)},
  }
  transform = optimizer.direction(dict(scale=dict(factory="optax.identity"), weight_decay=0.5))
  updates, _ = transform.update(jax.tree.map(jnp.zeros_like, params), transform.init(params), params)
  np.testing.assert_array_equal(updates["model"]["noise"]["frequencies"], 0)
  np.testing.assert_array_equal(updates["model"]["dense"]["kernel"], 0.5)
  np.testing.assert_array_equal(updates["loss"]["head"], 0)


@pytest.mark.parametrize(
  "key, value", [("b1", 2.0), ("eps", 0.0), ("clip", -1.0), ("weight_decay", -0.1), ("learning_rate", -1e-3)]
)
def test_numbers_out_of_range_are_refused(key, value):
  with pytest.raises(UserError, match=f"config.optimizer.{key}"):
    optimizer.direction({"learning_rate": 1e-3, key: value})
