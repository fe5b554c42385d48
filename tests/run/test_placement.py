"""What the compiler makes of the placement: what each device holds, and what travels between devices."""

import collections
import functools
import math
import re

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from diffusion import denoisers, losses, networks, processes, solvers
from diffusion.config.errors import UserError
from diffusion.run import ema, sharding, state as states, step as steps
from diffusion.run.parts import optimizer, players

pytestmark = pytest.mark.standard_promotion

SHAPE, CLASSES, BATCH = (8, 8, 1), 10, 64
AVERAGES = ema.averages(dict(ema_half_life_images=500))
NETWORKS = {
  "mlp": networks.MLP(width=128, depth=1, num_classes=CLASSES),
  "unet": networks.UNet(
    width=32, channel_multipliers=(1, 2), num_res_blocks=1, attention_resolutions=(4,), num_classes=CLASSES
  ),
  "dit": networks.DiT(width=64, depth=1, num_heads=4, num_classes=CLASSES),
}
SHOWN = ["mlp", pytest.param("unet", marks=pytest.mark.slow), pytest.param("dit", marks=pytest.mark.slow)]
SGD = ml_collections.ConfigDict(
  dict(learning_rate=0.1, schedule="constant", scale=dict(factory="optax.identity"))
)
ADAM = ml_collections.ConfigDict(dict(learning_rate=1e-3, schedule="constant"))


@functools.cache
def program(name, layout, accumulate=1, adam=True, model=1):
  """(compiled step, initial state in its place, mesh) over eight devices."""
  network, process, section = NETWORKS[name], processes.edm(), ADAM if adam else SGD
  mesh, transform = sharding.make_mesh(model), optimizer.direction(section)
  roles = losses.roles(model=denoisers.from_flax(network, process, denoisers.edm(), None))
  loss = losses.chain(
    losses.denoising_score_matching(process),
    losses.weight_by(losses.edm(0.5)),
    losses.at_times(losses.log_normal_sigma(process=process), roles=roles),
  )

  def initial():
    params = network.init(
      jax.random.key(0), jnp.zeros((1, *SHAPE)), jnp.zeros(1), {"label": jnp.zeros(1, jnp.int32)}
    )["params"]
    loss_params, loss_state = loss.init(jax.random.key(1))
    return states.create({"model": params, "loss": loss_params}, loss_state, transform, AVERAGES)

  shapes = jax.eval_shape(initial)
  places = sharding.state_sharding(mesh, shapes, layout)
  step = steps.make_step(
    players.one(loss, transform, optimizer.learning_rate(section, BATCH, 100)),
    {},
    AVERAGES,
    mesh=mesh,
    state_sharding=places,
    seed=0,
    accumulate=accumulate,
  )
  batch = {
    "x": jax.ShapeDtypeStruct((BATCH, *SHAPE), jnp.float32),
    "cond": {"label": jax.ShapeDtypeStruct((BATCH,), jnp.int32)},
  }
  return step.lower(shapes, batch).compile(), jax.jit(initial, out_shardings=places), mesh


def travels(text):
  """Of each kind of collective: how many there are, and how many numbers they return."""
  count, numbers = collections.Counter(), collections.Counter()
  for shapes, kind in re.findall(
    r"= (.*?) (all-reduce|all-gather|reduce-scatter|all-to-all|collective-\w+|ragged-\S+)(?:-start)?\(", text
  ):
    count[kind] += 1
    numbers[kind] += sum(
      math.prod(int(size) for size in sizes.split(",") if size)
      for sizes in re.findall(r"\w+\[([\d,]*)\]", shapes)
    )
  return count, numbers


def parameters(compiled):
  """How many numbers the network has."""
  return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(compiled.args_info[0][0].params["model"]))


@pytest.mark.parametrize("name", SHOWN)
def test_data_parallel_training_reduces_the_gradient_and_scalars_and_nothing_else(name):
  compiled, _, _ = program(name, "replicated")
  count, numbers = travels(compiled.as_text())
  assert set(count) == {"all-reduce"}
  # Equal sums (the gradients of two biases that are added) are reduced once.
  assert 0.999 * parameters(compiled) <= numbers["all-reduce"] <= parameters(compiled) + 10


@pytest.mark.parametrize("name", SHOWN)
def test_split_parameters_are_gathered_once_and_activations_never_move(name):
  compiled, _, _ = program(name, "fsdp")
  size, (count, numbers) = parameters(compiled), travels(compiled.as_text())
  assert set(count) <= {"all-gather", "all-reduce", "reduce-scatter"}
  assert 0.9 * size < numbers["all-gather"] <= size
  assert numbers["all-reduce"] <= 1.001 * size  # the gradient, and squares of its parts for the norm


@pytest.mark.parametrize("name", SHOWN)
def test_a_device_holds_one_part_in_eight_of_the_state(name):
  held = {
    layout: program(name, layout)[0].memory_analysis().argument_size_in_bytes for layout in sharding.LAYOUTS
  }
  compiled, _, mesh = program(name, "fsdp")
  state = compiled.args_info[0][0]
  leaves = [leaf.shape for leaf in jax.tree.leaves(state)]
  small = sum(
    math.prod(shape)
    for shape in leaves
    if sharding.leaf_spec(shape, "fsdp", mesh) == jax.sharding.PartitionSpec()
  )
  batch = BATCH // 8 * (math.prod(SHAPE) + 1)
  whole = sum(map(math.prod, leaves))
  # Four bytes a number; the compiler may leave out what it does not use.
  assert held["replicated"] == pytest.approx(4 * (whole + batch), rel=1e-3)
  assert held["fsdp"] == pytest.approx(4 * ((whole - small) / 8 + small + batch), rel=1e-3)
  assert held["fsdp"] < held["replicated"] / 6


def run(name, layout, accumulate=1, model=1):
  """(parameters after one step of SGD, loss)."""
  compiled, initial, mesh = program(name, layout, accumulate, adam=False, model=model)
  rng = np.random.default_rng(0)
  batch = {
    "x": rng.standard_normal((BATCH, *SHAPE)).astype(np.float32),
    "cond": {"label": np.arange(BATCH, dtype=np.int32) % CLASSES},
  }
  state, metrics = compiled(initial(), sharding.put_batch(batch, mesh))
  return jax.device_get(state.params["model"]), float(metrics["loss"])


@pytest.mark.slow
def test_layouts_and_parts_of_a_batch_give_one_loss_and_one_step():
  params, loss = run("mlp", "replicated")
  for options in (dict(layout="fsdp"), dict(layout="fsdp", accumulate=2)):
    other, value = run("mlp", **options)
    assert value == pytest.approx(loss, rel=1e-5)
    for one, two in zip(jax.tree.leaves(params), jax.tree.leaves(other)):
      assert np.linalg.norm(one - two) <= 1e-5 * np.linalg.norm(one)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["unet", "dit"])
def test_two_devices_to_a_model_share_its_channels_and_give_the_same_step(name):
  """Half the examples' arithmetic each, but for what is summed or attended over channels; unconstrained, both
  would do all of it."""
  flops = lambda compiled: compiled.cost_analysis()["flops"]
  params, loss = run(name, "replicated")
  other, value = run(name, "fsdp", model=2)
  assert value == pytest.approx(loss, rel=1e-5)
  for one, two in zip(jax.tree.leaves(params), jax.tree.leaves(other)):
    assert np.linalg.norm(one - two) <= 1e-5 * np.linalg.norm(one) + 1e-7
  single, shared = (
    program(name, "replicated", adam=False)[0],
    program(name, "replicated", adam=False, model=2)[0],
  )
  print(
    f"{name}: {flops(shared) / flops(single):.2f} of the arithmetic of eight devices with a model each; all "
    "of it twice would be 2"
  )
  assert flops(shared) < 1.6 * flops(single)


def test_sampling_has_no_collective():
  network, process, mesh = NETWORKS["dit"], processes.edm(), sharding.make_mesh()
  params = jax.eval_shape(
    network.init, jax.random.key(0), jnp.zeros((1, *SHAPE)), jnp.zeros(1), {"label": jnp.zeros(1, jnp.int32)}
  )["params"]
  place = lambda tree, where: jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where), tree
  )
  denoiser = place(
    jax.eval_shape(lambda p: denoisers.from_flax(network, process, denoisers.edm(), p), params),
    sharding.replicated(mesh),
  )
  rows = lambda tree: place(tree, sharding.batch_sharding(mesh))
  x, keys, label = rows(
    (
      jax.ShapeDtypeStruct((BATCH, *SHAPE), jnp.float32),
      jax.eval_shape(lambda: jax.random.split(jax.random.key(0), BATCH)),
      jax.ShapeDtypeStruct((BATCH,), jnp.int32),
    )
  )
  solver = solvers.build("dpmpp_2m_sde", process, 4)
  run = jax.jit(
    lambda denoiser, x, keys, label: solvers.sample(denoiser, solver, x, keys=keys, cond={"label": label})
  )
  count, _ = travels(run.lower(denoiser, x, keys, label).compile().as_text())
  assert not count


def test_a_layout_that_does_not_exist_is_said():
  with pytest.raises(UserError, match="replicated, fsdp"):
    sharding.leaf_spec((8, 8), "split", sharding.make_mesh())
