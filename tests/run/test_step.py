"""The update does not depend on how it is spread: over devices, or over parts of the batch."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from diffusion import data
from diffusion.config.errors import UserError
from diffusion.run import ema, posthoc, sharding, state as states, step as steps
from diffusion.run.parts import assembly, optimizer, players

pytestmark = pytest.mark.standard_promotion

AVERAGES = ema.averages(dict(ema_half_life_images=(500, 2000), ema_sigma_rel=(0.05, 0.1)))
SGD = dict(learning_rate=0.1, schedule="constant", scale=dict(factory="optax.identity"))


@functools.cache
def initial(variant):
  config = tiny.get_config(variant)
  parts = assembly.assemble(config)
  return parts, jax.device_get(jax.jit(functools.partial(assembly.init_state, parts))())


@functools.cache
def program(devices, accumulate, variant):
  """(compiled step, sharding of the state, mesh) under SGD; compiled quickly rather than to run fast."""
  parts, _ = initial(variant)
  mesh = sharding.make_mesh(devices=jax.devices()[:devices])
  config = parts.config.copy_and_resolve_references()
  config.optimizer = SGD
  config.training.ema_half_life_images = (500, 2000)
  with config.unlocked():
    config.training.update(dict(ema_sigma_rel=(0.05, 0.1)))
  parts = parts._replace(config=config)
  shapes = assembly.shape_state(parts)
  places = sharding.state_sharding(mesh, shapes)
  step = steps.make_step(
    assembly.players_of(parts),
    parts.roles,
    AVERAGES,
    mesh=mesh,
    state_sharding=places,
    seed=1,
    accumulate=accumulate,
  )
  compiled = step.lower(shapes, assembly.example_batch(parts, 32)).compile(
    compiler_options={"xla_backend_optimization_level": 0}
  )
  return compiled, places, mesh


def run(number=1, *, devices=1, accumulate=1, variant="plain"):
  """(parameters before and after each step, losses, last state)."""
  parts, start = initial(variant)
  start = start.replace(emas=dict.fromkeys(AVERAGES, start.params["model"]))
  step, places, mesh = program(devices, accumulate, variant)
  state = jax.device_put(
    start.replace(
      opt_state={"model": optimizer.direction(SGD).init(assembly.model_player(parts).own(start.params))}
    ),
    places,
  )
  stream = data.stream(parts.dataset, 32, 1, num_threads=0)
  seen, values = [jax.device_get(state.params)], []
  for _ in range(number):
    state, metrics = step(state, sharding.put_batch(next(stream), mesh))
    seen.append(jax.device_get(state.params))
    values.append(float(metrics["loss"]))
  return seen, values, state


def pull(params, loss_state, step, key, batch):
  """A loss that compiles at once: half the squared distance to the batch."""
  del step, key
  value = 0.5 * jnp.mean(jnp.sum((params["model"]["w"] - batch["x"]) ** 2, -1))
  return value, (loss_state, {"loss": value})


def simple(section, devices=1):
  """(state, step, next batch) of `pull`."""
  mesh = sharding.make_mesh(devices=jax.devices()[:devices])
  transform = optimizer.direction(section)
  state = states.create(
    {"model": {"w": jnp.zeros(3)}, "loss": {}}, {"objective": {}, "collections": {}}, transform, AVERAGES
  )
  places = sharding.state_sharding(mesh, state)
  step = steps.make_step(
    players.one(pull, transform, optimizer.learning_rate(section, 32, 200)),
    {},
    AVERAGES,
    mesh=mesh,
    state_sharding=places,
    seed=1,
  )
  generator = np.random.default_rng(0)
  return (
    jax.device_put(state, places),
    step,
    lambda: sharding.put_batch({"x": generator.standard_normal((32, 3)).astype(np.float32) + 5}, mesh),
  )


def relative(a, b):
  a, b = (
    np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)]).astype(np.float64) for tree in (a, b)
  )
  return np.linalg.norm(a - b) / np.linalg.norm(b)


def difference(a, b):
  return jax.tree.map(lambda x, y: np.asarray(x, np.float64) - np.asarray(y, np.float64), a, b)


@pytest.mark.parametrize("variant", [pytest.param("plain", marks=pytest.mark.slow), "everything"])
def test_one_and_eight_devices_agree(variant):
  """Losses and one step's gradient to 1e-5 relative, and parameters after ten steps of SGD; also with batch
  statistics."""
  one, losses_one, alone = run(10, devices=1, variant=variant)
  eight, losses_eight, state = run(10, devices=8, variant=variant)
  assert all(len(leaf.sharding.device_set) == 8 for leaf in jax.tree.leaves(state))
  np.testing.assert_allclose(losses_one, losses_eight, rtol=1e-5)
  gradients = [jax.tree.map(lambda d: d / -0.1, difference(seen[1], seen[0])) for seen in (one, eight)]
  # Differences of float32 parameters carry their rounding, 6e-8 of a weight of size one over 0.1.
  assert relative(*gradients) < 1e-5
  assert relative(one[-1], eight[-1]) < 1e-5
  for name in AVERAGES:
    assert relative(state.emas[name], alone.emas[name]) < 1e-5, name


@pytest.mark.slow
@pytest.mark.parametrize("devices,accumulate", [(4, 4)])
def test_accumulation_keeps_the_draw_and_the_gradient(devices, accumulate):
  whole, losses_whole, _ = run(3, devices=1)
  parts, losses_parts, state = run(3, devices=devices, accumulate=accumulate)
  np.testing.assert_allclose(losses_whole, losses_parts, rtol=1e-5)
  assert relative(difference(parts[1], parts[0]), difference(whole[1], whole[0])) < 1e-5
  assert relative(parts[-1], whole[-1]) < 1e-5
  assert (
    int(jax.tree.leaves(state.loss_state["objective"])[0]) == 3 * accumulate
  )  # the objective's state saw every part


def test_parts_of_a_batch_have_dropout_masks_of_their_own():
  """The same examples in both halves of a batch, the same noise forced: only the masks can differ."""
  closed = assembly.loss(initial("everything")[0])
  batch = {"x": jnp.ones((4, 2)), "cond": {"label": jnp.zeros(4, jnp.int32)}, "index": jnp.arange(4)}
  t = jnp.ones(4)
  state = closed.objective.init(jax.random.key(0))[1]
  draws = [
    steps._of_part(closed, number).objective.draw(jax.random.key(3), batch, t, state) for number in (0, 1)
  ]
  np.testing.assert_array_equal(draws[0].noise, draws[1].noise)
  assert not np.array_equal(jax.random.key_data(draws[0].key), jax.random.key_data(draws[1].key))


def test_the_averages_follow_the_parameters_of_every_step():
  state, step, batch = simple(SGD)
  expected = dict.fromkeys(AVERAGES, 0.0)
  for t in range(1, 5):
    state, _ = step(state, batch())
    power = lambda length, t=t: 1 - (1 - 1 / t) ** (posthoc.power_gamma(length) + 1)
    shares = {
      "500": 1 - 0.5 ** (32 / 500),
      "2000": 1 - 0.5 ** (32 / 2000),
      "0.05": power(0.05),
      "0.1": power(0.1),
    }
    for name, share in shares.items():
      expected[name] = expected[name] + share * (
        np.asarray(state.params["model"]["w"], np.float64) - expected[name]
      )
  for name in AVERAGES:
    np.testing.assert_allclose(state.emas[name]["w"], expected[name], rtol=1e-5)
  assert int(state.step) == 4 and step._cache_size() == 1


def test_the_state_is_taken_over_not_copied():
  state, step, batch = simple(dict(learning_rate=1e-3), devices=8)
  old = jax.tree.leaves(state)
  text = step.lower(state, batch()).compile().as_text()
  state, _ = step(state, batch())
  assert all(leaf.is_deleted() for leaf in old)
  header = text.split("\n", 1)[0]  # the compiled program reuses one input buffer for each leaf of the state
  assert header.count("may-alias") + header.count("must-alias") == len(old)


def test_rate_and_clipping_are_those_of_the_global_step():
  section = dict(
    learning_rate=1.0, schedule="linear", warmup_steps=4, scale=dict(factory="optax.identity"), clip=1e-3
  )
  state, step, batch = simple(section)
  state, metrics = step(state, batch())
  assert float(metrics["learning_rate"]) == 0.0 and not np.any(np.asarray(state.params["model"]["w"]))
  np.testing.assert_allclose(metrics["grad_norm"], 5 * 3**0.5, rtol=0.1)  # before clipping
  state, metrics = step(state, batch())
  np.testing.assert_allclose(np.linalg.norm(state.params["model"]["w"]), 0.25 * 1e-3, rtol=1e-5)
  # A restart at another step finds the rate of that step, whatever the optimiser has counted.
  state, metrics = step(state.replace(step=jnp.int32(3)), batch())
  np.testing.assert_allclose(metrics["learning_rate"], 0.75)


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
