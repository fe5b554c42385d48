"""The published size of a latent model: DiT-XL/2 on the latents of Stable Diffusion's autoencoder.

Nothing is compiled and no weight is drawn: shapes alone.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from diffusion import solvers
from diffusion.run import sharding, step as steps
from diffusion.run.parts import assembly, codec

pytestmark = [pytest.mark.slow, pytest.mark.standard_promotion]

VAE = dict(
  _class_name="AutoencoderKL",
  block_out_channels=[128, 256, 512, 512],
  down_block_types=["DownEncoderBlock2D"] * 4,
  up_block_types=["UpDecoderBlock2D"] * 4,
  layers_per_block=2,
)
"""sd-vae-ft-mse and sd-vae-ft-ema."""


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
  """Of a run on pictures of 256 by 256 with classes."""
  path = tmp_path_factory.mktemp("data") / "data.npz"
  x = np.random.default_rng(0).integers(0, 256, (40, 256, 256, 3)).astype(np.uint8)
  np.savez(path, x=x, label=np.arange(40) % 2)
  config = ConfigDict(
    dict(
      seed=0,
      data=dict(factory="data.npz", path=str(path), held_out=0.2),
      process=dict(factory="processes.ddpm_ladder"),
      network=dict(
        factory="weights.architectures.dit_files.build", config=dict(_class_name="DiT"), kept=4, remat=True
      ),
      denoiser=dict(factory="denoisers.eps", time_scale=1000.0, time_shift=-1.0),
      loss=dict(
        factory="losses.denoising_score_matching",
        target="eps",
        per_dimension=True,
        times=dict(factory="losses.ladder_times", num_steps=1000),
        condition_dropout=0.1,
      ),
      optimizer=dict(learning_rate=1e-4),
      training=dict(batch_size=8, steps=10, ema_half_life_images=(1_774_000,)),
    )
  )
  with config.unlocked(), config.ignore_type():
    config.codec = dict(factory="weights.autoencoder_kl", path="vae", saved=dict(config=VAE))
  return assembly.assemble(config)


def count(tree):
  return sum(leaf.size for leaf in jax.tree.leaves(tree))


def test_its_numbers_of_parameters(parts):
  """675,129,632 with the positions, which are computed here and not trained (DiT's own count)."""
  assert parts.shape == (32, 32, 4)
  state = assembly.shape_state(parts)
  positions = 256 * 1152
  assert count(state.params["model"]) == 675_129_632 - positions == 674_834_720
  assert count(state.loss_state["fixed"]["codec"]) == 83_653_863


def test_a_training_step_is_lowered(parts):
  mesh = sharding.make_mesh(devices=jax.devices()[:8])
  shapes = assembly.shape_state(parts)
  places = sharding.state_sharding(mesh, shapes, "fsdp")
  step = steps.make_step(
    assembly.players_of(parts),
    parts.roles,
    {},
    mesh=mesh,
    state_sharding=places,
    seed=0,
    encode=functools.partial(codec.encoded, parts.codec),
  )
  rows = sharding.batch_sharding(mesh)
  place = lambda spec: jax.ShapeDtypeStruct(spec.shape, spec.dtype, sharding=rows)
  lowered = step.lower(sharding.placed(shapes, places), jax.tree.map(place, assembly.example_batch(parts, 8)))
  out, _ = lowered.out_info
  assert jax.tree.map(lambda leaf: leaf.shape, out.params) == jax.tree.map(
    lambda leaf: leaf.shape, shapes.params
  )


def test_sampling_and_decoding_are_lowered(parts):
  params, _ = assembly.shape_network(parts, parts.network)
  denoiser = assembly.denoiser(parts, params)
  solver = solvers.build("dpmpp_2m", parts.process, 4)

  def draw(params, weights, noise, label):
    z = solvers.sample(denoiser.with_params(params), solver, noise, cond={"label": label})
    return parts.codec.decode(weights, z)

  noise = jax.ShapeDtypeStruct((2, *parts.shape), jnp.float32)
  label, weights = jax.ShapeDtypeStruct((2,), jnp.int32), jax.eval_shape(parts.codec.init)
  lowered = jax.jit(draw).lower(params, weights, noise, label)
  assert lowered.out_info.shape == (2, 256, 256, 3)
