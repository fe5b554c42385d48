"""Weights are read without the rest of a train state, as they were saved, and never as something else."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from diffusion.config.errors import UserError
from diffusion.run import sharding, state as states
from diffusion.run.saved import checkpoints, contents, names, weights
from diffusion.weights.formats import orbax

LARGE = 1500


def large_state():
  """Three layers of nine megabytes; the average, the optimiser's moments and a fixed teacher are as large
  each."""
  generator = np.random.default_rng(0)
  layer = lambda: {"kernel": jnp.asarray(generator.normal(size=(LARGE, LARGE)), jnp.float32)}
  params = {"model": {f"dense_{i}": layer() for i in range(3)}, "loss": {"bias": jnp.ones(3)}}
  state = states.create(
    params, {"collections": {"model": {"batch": jnp.full(4, 2.0)}}}, optax.scale_by_adam(), ("100",)
  )
  return state.replace(
    emas={"100": jax.tree.map(lambda leaf: leaf + 1, params["model"])},
    loss_state={
      **state.loss_state,
      "fixed": {"teacher": jax.tree.map(lambda leaf: leaf + 2, params["model"])},
    },
  )


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
  """(folder of one checkpoint, the state in it)."""
  folder, state = str(tmp_path_factory.mktemp("large")), large_state()
  writer = checkpoints.Writer(folder)
  writer.save(state, {"step": 1}, "{}")
  writer.close()
  return checkpoints.choose(folder), state


def like(tree, count=1):
  mesh = sharding.make_mesh(devices=jax.devices()[:count])
  places = sharding.state_sharding(mesh, tree, "fsdp")
  return sharding.placed(tree, places)


def same(found, expected):
  jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize("role, average", [("model", None), ("model", "100"), ("teacher", None)])
def test_weights_are_those_that_were_saved(saved, role, average):
  """Of each place that holds a role's, as arrays on one device and split over eight, and as NumPy arrays."""
  path, state = saved
  expected = (
    {"model": state.params["model"], "teacher": state.loss_state["fixed"]["teacher"]}[role]
    if average is None
    else state.emas[average]
  )
  own = state.loss_state["collections"].get(role, {})
  for count in (1, 8):
    found = weights.read_weights(path, role, average, like((expected, own), count))
    same(found, (expected, own))
    assert all(len(leaf.sharding.device_set) == count for leaf in jax.tree.leaves(found[0]))
  found = weights.read_weights(path, role, average)
  same(found, (expected, own))
  assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(found))


def test_no_other_array_is_read(saved, monkeypatch):
  """Orbax is asked for three arrays of the twenty-three and their collection."""
  import orbax.checkpoint as ocp

  path, state = saved
  asked, restore = [], ocp.Checkpointer.restore

  def watched(self, *arguments, args, **options):
    asked.extend(orbax.names_of(key) for key, _ in jax.tree_util.tree_leaves_with_path(args.item))
    return restore(self, *arguments, args=args, **options)

  monkeypatch.setattr(ocp.Checkpointer, "restore", watched)
  own = state.loss_state["collections"]["model"]
  weights.read_weights(path, average="100", like=like((state.params["model"], own)))
  assert asked == [
    *(("emas", "100", f"dense_{i}", "kernel") for i in range(3)),
    ("loss_state", "collections", "model", "batch"),
  ]


def test_reading_needs_little_more_memory_than_the_weights(saved):
  """27 MB of weights of 135 MB: the resident peak grows by less than 2.5 times these, and by 5 with the whole
  state.

  `benchmarks/open_run.py` has the figure for large ones, beside which what the first read sets up is small.
  """
  path, state = saved
  wanted = like((state.params["model"], {"batch": state.loss_state["collections"]["model"]["batch"]}))
  weights.read_weights(path, like=wanted)  # sets up Orbax and its threads
  size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(wanted))
  before = resident("VmRSS")
  with open("/proc/self/clear_refs", "w") as file:
    file.write("5")
  found = weights.read_weights(path, like=wanted)
  assert resident("VmHWM") - before < 2.5 * size and len(jax.tree.leaves(found)) == 4


def resident(name):
  with open("/proc/self/status") as file:
    return next(1024 * int(line.split()[1]) for line in file if line.startswith(name))


@pytest.mark.parametrize(
  "change, words",
  [
    (lambda tree: {**tree, "more": tree["dense_0"]}, "params.model.more.kernel is not there"),
    (lambda tree: {"dense_0": tree["dense_0"]}, "params.model.dense_1.kernel is there and not here"),
    (
      lambda tree: jax.tree.map(lambda leaf: leaf[:7], tree),
      r"dense_0.kernel is float32\[1500, 1500\] there and float32\[7, 1500\] here",
    ),
    (
      lambda tree: jax.tree.map(lambda leaf: leaf.astype(jnp.int32), tree),
      r"float32\[1500, 1500\] there and int32\[1500, 1500\] here",
    ),
  ],
)
def test_what_does_not_fit_is_refused_before_it_is_read(saved, change, words):
  path, state = saved
  with pytest.raises(UserError, match=words):
    weights.read_weights(path, like=like((change(state.params["model"]), {})))


def test_a_role_or_an_average_that_is_not_there(saved):
  path, _ = saved
  with pytest.raises(UserError, match="no average 7; it has 100"):
    weights.read_weights(path, average="7")
  with pytest.raises(UserError, match="no weights of the role 'critic'"):
    weights.read_weights(path, "critic")


def test_trees_with_lists_numbers_and_dots_come_back(tmp_path):
  """A parameter is known by its name, not by its place: 2 comes before 10."""
  model = {
    "list": [jnp.full(2, float(i)) for i in range(12)],
    "numbers": {i: jnp.full(2, 20.0 + i) for i in range(12)},
    "enc.w": jnp.full(2, 50.0),
  }
  writer = checkpoints.Writer(str(tmp_path))
  state = states.create({"model": model, "loss": {}}, {}, optax.scale_by_adam(), ())
  names.check(state)
  writer.save(state, {"step": 1}, "{}")
  writer.close()
  path = checkpoints.choose(str(tmp_path))
  same(weights.read_weights(path, like=like((model, {})))[0], model)
  same(checkpoints.read_state(path, like(state)).params["model"], model)


@pytest.mark.parametrize(
  "tree, words",
  [
    ({"enc.w": jnp.ones(2), "enc": {"w": jnp.zeros(2)}}, "two arrays .* the name params.model.enc.w "),
    ({"nought": jnp.zeros((0, 3))}, r"params.model.nought .* \[0, 3\] and holds no number"),
  ],
)
def test_what_a_checkpoint_would_lose_is_refused(tree, words):
  state = states.create({"model": tree, "loss": {}}, {}, optax.identity(), ())
  with pytest.raises(UserError, match=words):
    names.check(state)


def test_a_run_is_read_in_the_terms_of_published_files(tmp_path, saved):
  """From its folder, a checkpoint of it, and the folder of the arrays: the same names and numbers."""
  path, state = saved
  (tmp_path / "checkpoints").symlink_to(os.path.dirname(path))
  place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  for where in (str(tmp_path), path, os.path.join(path, "state")):
    found = contents.read(where)
    assert found.format == "orbax" and "step" in found.arrays
    layer = found.load(["params.model.dense_1.kernel"], lambda name: place)
    same(layer, {"params.model.dense_1.kernel": state.params["model"]["dense_1"]["kernel"]})
  notes = contents.read(str(tmp_path), step=1).notes
  assert notes["config"] == {} and notes["metadata"]["step"] == 1
  with pytest.raises(UserError, match="no checkpoint of step 7"):
    contents.read(str(tmp_path), step=7)
