"""The update does not depend on how it is spread: over devices, or over parts of the batch."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import tiny
from diffusion import data
from diffusion.errors import UserError
from diffusion.training import ema, model, optimizer, sharding, step as steps

pytestmark = pytest.mark.standard_promotion

SGD = dict(learning_rate=0.1, schedule="constant", scale=dict(factory="optax.identity"))


def prepare(devices=1, accumulate=1, section=SGD, variant="plain"):
  config = tiny.get_config(variant)
  config.optimizer = section
  parts = model.assemble(config)
  mesh = sharding.make_mesh(devices=jax.devices()[:devices])
  places = sharding.state_sharding(mesh, model.shape_state(parts))
  state = jax.jit(functools.partial(model.init_state, parts), out_shardings=places)()
  averages = ema.half_lives(config.training.ema_half_life_images)
  step = steps.make_step(model.loss(parts), optimizer.direction(section), optimizer.learning_rate(section, 32, 200), averages,
                         mesh=mesh, state_sharding=places, seed=1, accumulate=accumulate)
  stream = data.stream(parts.dataset, 32, 1, num_threads=0)
  return state, step, lambda: sharding.put_batch(next(stream), mesh)


def run(number=1, **options):
  """(states after each step, losses); with SGD and rate 0.1 the first difference is the gradient."""
  state, step, batch = prepare(**options)
  seen, values = [jax.device_get(state.params)], []
  for _ in range(number):
    state, metrics = step(state, batch())
    seen.append(jax.device_get(state.params))
    values.append(float(metrics["loss"]))
  return seen, values, state


def relative(a, b):
  a, b = (np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)]).astype(np.float64) for tree in (a, b))
  return np.linalg.norm(a - b) / np.linalg.norm(b)


def difference(a, b):
  return jax.tree.map(lambda x, y: np.asarray(x, np.float64) - np.asarray(y, np.float64), a, b)


@pytest.mark.parametrize("variant", ["plain", "everything"])
def test_one_and_eight_devices_agree(variant):
  """Losses and one step's gradient to 1e-5 relative, and parameters after ten steps of SGD; also with batch statistics."""
  one, losses_one, _ = run(10, devices=1, variant=variant)
  eight, losses_eight, state = run(10, devices=8, variant=variant)
  assert all(len(leaf.sharding.device_set) == 8 for leaf in jax.tree.leaves(state))
  np.testing.assert_allclose(losses_one, losses_eight, rtol=1e-5)
  gradients = [jax.tree.map(lambda d: d / -0.1, difference(seen[1], seen[0])) for seen in (one, eight)]
  # Differences of float32 parameters carry their rounding, 6e-8 of a weight of size one over 0.1.
  assert relative(*gradients) < 1e-5
  assert relative(one[-1], eight[-1]) < 1e-5


@pytest.mark.parametrize("devices,accumulate", [(1, 4), (4, 4), (2, 16)])
def test_accumulation_keeps_the_draw_and_the_gradient(devices, accumulate):
  whole, losses_whole, _ = run(3, devices=1)
  parts, losses_parts, state = run(3, devices=devices, accumulate=accumulate)
  np.testing.assert_allclose(losses_whole, losses_parts, rtol=1e-5)
  assert relative(difference(parts[1], parts[0]), difference(whole[1], whole[0])) < 1e-5
  assert relative(parts[-1], whole[-1]) < 1e-5
  assert int(state.loss_state["objective"]["inner"]["own"]["count"]) == 3 * accumulate


def test_parts_of_a_batch_have_dropout_masks_of_their_own():
  """The same examples in both halves of a batch, the same noise forced: only the masks can differ."""
  parts = model.assemble(tiny.get_config("everything"))
  closed = model.loss(parts)
  batch = {"x": jnp.ones((4, 2)), "cond": {"label": jnp.zeros(4, jnp.int32)}, "index": jnp.arange(4)}
  t = jnp.ones(4)
  state = closed.objective.init(jax.random.key(0))[1]
  draws = [steps._of_part(closed, number).objective.draw(jax.random.key(3), batch, t, state) for number in (0, 1)]
  np.testing.assert_array_equal(draws[0].x_t, draws[1].x_t)
  assert not np.array_equal(jax.random.key_data(draws[0].key), jax.random.key_data(draws[1].key))


def test_the_averages_follow_the_parameters_of_every_step():
  state, step, batch = prepare()
  expected = {name: jax.device_get(average) for name, average in state.emas.items()}
  for number in range(3):
    state, _ = step(state, batch())
    for name, half_life in (("500", 500.0), ("2000", 2000.0)):
      share = 1 - 0.5 ** (32 / half_life)
      expected[name] = jax.tree.map(lambda old, new: old + share * (np.asarray(new) - old), expected[name], state.params["model"])
  for name in expected:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), state.emas[name], expected[name])


def test_the_state_is_taken_over_not_copied():
  state, step, batch = prepare(devices=8, section=dict(learning_rate=1e-3))
  old = jax.tree.leaves(state)
  text = step.lower(state, batch()).compile().as_text()
  state, _ = step(state, batch())
  assert all(leaf.is_deleted() for leaf in old)
  header = text.split("\n", 1)[0]  # the compiled program reuses one input buffer for each leaf of the state
  assert header.count("may-alias") + header.count("must-alias") == len(old)


def test_optimiser_and_rate_are_those_of_the_global_step():
  """Adam with warm-up against optax's own loop on the gradients that SGD steps reveal is too indirect: compare one step."""
  section = dict(learning_rate=1.0, schedule="linear", warmup_steps=4, scale=dict(factory="optax.identity"), clip=1e-3)
  state, step, batch = prepare(section=section)
  before = jax.device_get(state.params)
  state, metrics = step(state, batch())
  assert float(metrics["learning_rate"]) == 0.0
  jax.tree.map(np.testing.assert_array_equal, before, jax.device_get(state.params))
  state, metrics = step(state, batch())
  moved = optax.global_norm(difference(jax.device_get(state.params), before))
  np.testing.assert_allclose(moved, 0.25 * 1e-3, rtol=1e-3)  # a quarter of the warm-up, the clipped norm


def test_one_compilation_for_all_steps():
  state, step, batch = prepare()
  for _ in range(4):
    state, _ = step(state, batch())
  assert step._cache_size() == 1


def test_batches_that_do_not_split():
  with pytest.raises(UserError, match="multiple of 24"):
    sharding.check_batch_size(32, 3, sharding.make_mesh())
  with pytest.raises(UserError, match="layouts are replicated"):
    sharding.leaf_spec((1,), "fspd", sharding.make_mesh())
  with pytest.raises(UserError, match="does not divide the 8"):
    sharding.make_mesh(model=3)


def test_all_finite():
  good = {"a": jnp.ones(3), "n": jnp.arange(3)}
  assert steps.all_finite(good) and not steps.all_finite(good | {"b": jnp.asarray([1.0, jnp.nan])})
