"""What the compiled training step needs beside the state.

Less with recomputation, less in parts; and the state has no second copy.
"""

import functools

import jax
import jax.numpy as jnp
import ml_collections
import pytest

from diffusion import denoisers, losses, networks, processes
from diffusion.run import ema, sharding, state as states, step as steps
from diffusion.run.parts import optimizer, players

pytestmark = pytest.mark.standard_promotion

SHAPE, BATCH = (8, 8, 1), 64
# On a CPU, XLA removes the barriers that keep what is recomputed apart from what was computed, and so takes
# recomputation back.
KEEP_BARRIERS = {"xla_disable_hlo_passes": "cse_barrier_expander,cse"}
AVERAGES = ema.averages(dict(ema_half_life_images=500))
SECTION = ml_collections.ConfigDict(dict(learning_rate=1e-3, schedule="constant"))


@functools.cache
def memory(network, accumulate=1):
  """(the compiler's account of the step's memory on one device, bytes of the state)."""
  process, mesh = processes.edm(), sharding.make_mesh(devices=jax.devices()[:1])
  transform = optimizer.direction(SECTION)
  roles = losses.roles(model=denoisers.from_flax(network, process, denoisers.edm(), None))
  loss = losses.chain(
    losses.denoising_score_matching(process),
    losses.weight_by(losses.edm(0.5)),
    losses.at_times(losses.log_normal_sigma(process=process), roles=roles),
  )

  def initial():
    params = network.init(jax.random.key(0), jnp.zeros((1, *SHAPE)), jnp.zeros(1), None)["params"]
    loss_params, loss_state = loss.init(jax.random.key(1))
    return states.create({"model": params, "loss": loss_params}, loss_state, transform, AVERAGES)

  shapes = jax.eval_shape(initial)
  step = steps.make_step(
    players.one(loss, transform, optimizer.learning_rate(SECTION, BATCH, 100)),
    {},
    AVERAGES,
    mesh=mesh,
    state_sharding=sharding.state_sharding(mesh, shapes),
    seed=0,
    accumulate=accumulate,
  )
  compiled = step.lower(shapes, {"x": jax.ShapeDtypeStruct((BATCH, *SHAPE), jnp.float32)}).compile(
    KEEP_BARRIERS
  )
  return compiled.memory_analysis(), sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes))


def small(name, remat=False):
  if name == "dit":
    return networks.DiT(width=32, depth=6, num_heads=2, remat=remat)
  return networks.UNet(width=16, channel_multipliers=(1, 2), num_res_blocks=1, remat=remat)


def test_the_state_is_written_where_it_was_read():
  """Its buffers are donated: of the output only the metrics do not lie where the input lay."""
  found, size = memory(networks.MLP(width=128, depth=2))
  assert found.alias_size_in_bytes == size
  assert found.output_size_in_bytes - size < 2000 < size / 1000


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dit", "unet"])
def test_recomputation_and_parts_lower_the_peak(name):
  plain = memory(small(name))[0].temp_size_in_bytes
  recomputed = memory(small(name, remat=True))[0].temp_size_in_bytes
  in_parts = memory(small(name), accumulate=4)[0].temp_size_in_bytes
  print(
    f"{name}: {plain / 1e6:.2f} MB, recomputed {recomputed / plain:.2f}, in four parts {in_parts / plain:.2f}"
  )
  assert recomputed < 0.8 * plain and in_parts < 0.6 * plain
