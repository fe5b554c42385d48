"""The loop in memory: its steps in closed form, and the same update as that of a training run."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from diffusion.run import fit as fits, sharding, state as states, step as steps
from diffusion.run.parts import optimizer, players

pytestmark = pytest.mark.standard_promotion
GOAL = np.array([3.0, -1.0, 0.5], np.float32)


class Pull:
  """Half the squared distance of 'model' from the batch, plus that from a fixed role where there is one; its
  state counts the calls."""

  def init(self, key):
    state = {"objective": {"calls": jnp.zeros((), jnp.int32)}, "collections": {}}
    return {"offset": jax.random.normal(key, ())}, state

  def __call__(self, params, state, step, key, batch):
    value = 0.5 * jnp.sum((params["model"] - batch["x"]) ** 2) + 0.5 * params["loss"]["offset"] ** 2
    if "teacher" in params:
      value += 0.5 * jnp.sum((params["model"] - params["teacher"]) ** 2)
    calls = {"calls": state["objective"]["calls"] + 1}
    return value, ({**state, "objective": calls}, {"loss": value})


def fixed_batch(key):
  del key
  return {"x": jnp.asarray(GOAL)}


def fit(**options):
  options = dict(steps=10, seed=0) | options
  return fits.fit(Pull(), jnp.zeros(3), optax.sgd(0.1), fixed_batch, **options)


def test_gradient_descent_on_a_parabola_contracts_by_its_rate():
  """After n steps of rate r the distance is (1 - r)^n of the first, for the model and for the loss's own
  parameter."""
  found = fit()
  first = jax.random.normal(jax.random.split(jax.random.key(0), 3)[0], ())
  left = 0.9 ** np.arange(11)
  np.testing.assert_allclose(found.params["model"], GOAL * (1 - left[-1]), rtol=1e-5)
  np.testing.assert_allclose(found.params["loss"]["offset"], first * left[-1], rtol=1e-5)
  before = 0.5 * left[:-1] ** 2 * (np.sum(GOAL**2) + float(first) ** 2)
  np.testing.assert_allclose(found.history, before, rtol=1e-5)
  assert int(found.loss_state["objective"]["calls"]) == 10


def test_a_fixed_role_pulls_and_stays_and_what_is_observed_comes_after_the_step():
  """Between the data and a teacher at 0 the minimum is half way, approached by (1 - 2 r)^n."""
  found = fit(fixed={"teacher": jnp.zeros(3)}, observe=lambda params: params["model"])
  left = 0.8 ** np.arange(1, 11)
  np.testing.assert_allclose(found.history, GOAL / 2 * (1 - left[:, None]), rtol=1e-5)
  assert set(found.params) == {"model", "loss"}


def test_a_seed_may_be_traced():
  """Rows of one program over seeds are the runs of each seed."""
  rows = jax.jit(jax.vmap(lambda seed: fit(seed=seed).params))(jnp.arange(3))
  for seed in range(3):
    np.testing.assert_allclose(
      rows["loss"]["offset"][seed], fit(seed=seed).params["loss"]["offset"], rtol=1e-6
    )


def test_a_training_run_makes_the_same_updates():
  """Adam with clipping and weight decay: `fit` with the rate inside the transformation, the jitted step with
  the rate beside it."""
  section = dict(learning_rate=0.1, schedule="constant", clip=1.0, weight_decay=0.01)
  direction = optimizer.direction(section)
  loss, number = Pull(), 5
  found = fits.fit(
    loss,
    jnp.zeros(3),
    optax.chain(direction, optax.scale_by_learning_rate(0.1)),
    fixed_batch,
    steps=number,
    seed=0,
  )
  loss_params, loss_state = loss.init(jax.random.split(jax.random.key(0), 3)[0])
  state = states.create({"model": jnp.zeros(3), "loss": loss_params}, loss_state, direction, ())
  mesh = sharding.make_mesh(devices=jax.devices()[:1])
  places = sharding.state_sharding(mesh, state)
  step = steps.make_step(
    players.one(loss, direction, optimizer.learning_rate(section, 3, number)),
    {},
    {},
    mesh=mesh,
    state_sharding=places,
    seed=0,
  )
  state = jax.device_put(state, places)
  for _ in range(number):
    state, _ = step(state, {"x": jnp.asarray(GOAL)})
  np.testing.assert_allclose(state.params["model"], found.params["model"], rtol=1e-6)
  np.testing.assert_allclose(
    state.params["loss"]["model"]["offset"], found.params["loss"]["offset"], rtol=1e-6
  )
