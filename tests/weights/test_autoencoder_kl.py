"""diffusers' AutoencoderKL: equal to the original on drawn weights, and what a codec promises."""

import functools
import json

import diffusers_networks as case
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.config.errors import UserError
from diffusion.weights.architectures import autoencoder_kl, torch_layout

RECORDED = np.load(case.FILE)
NAMES = json.loads(RECORDED["names"].tobytes())
EVERY = pytest.mark.parametrize("name", case.AUTOENCODERS)


def arrays_of(name):
  return {one: case.draw(one, tuple(shape)) for one, shape in NAMES[name].items()}


def relative(found, wanted):
  """The norm of the difference over the norm."""
  return float(np.linalg.norm(np.asarray(found, np.float64) - wanted) / np.linalg.norm(wanted))


@functools.cache
def made(name):
  codec, params = autoencoder_kl.codec(case.AUTOENCODERS[name], arrays_of(name))
  return codec, params, jax.jit(codec.encode), jax.jit(codec.decode)


def flat(tree, path=()):
  """The outputs that Flax kept of each module, by dotted name."""
  for key, value in tree.items():
    if key == "__call__":
      yield torch_layout.dotted((*path, ""))[:-1], value[0]
    elif isinstance(value, dict):
      yield from flat(value, (*path, key))


@pytest.mark.parametrize("name", ["kl_shifted", "kl_no_attention"])
def test_its_latents_are_scaled_as_by_a_pipeline_of_diffusers(name):
  """(z - shift) * scale, and z / scale + shift."""
  _, params, encode, decode = made(name)
  x, z = case.kl_inputs(name)
  shift, scale = {"kl_shifted": (0.0609, 1.5305), "kl_no_attention": (0.0, 0.18215)}[name]
  found = encode(params, x)
  assert found.dtype == jnp.float32
  assert relative(found, (RECORDED[f"{name}/mean"] - shift) * scale) < 1e-5
  scaled = (z - np.float32(shift)) * np.float32(scale)
  assert relative(decode(params, scaled), RECORDED[f"{name}/output"]) < 1e-5


def test_it_is_equal_to_the_original_in_every_block():
  net, params = autoencoder_kl.build(case.KL), autoencoder_kl.convert(arrays_of("kl"), case.KL)
  x, z = case.kl_inputs("kl")
  both = jax.jit(
    lambda p: [
      net.apply({"params": p}, one, method=method, capture_intermediates=True)
      for one, method in ((x, "moments"), (z, "decode"))
    ]
  )
  ((mean, std), down), (out, up) = both(params)
  assert out.dtype == jnp.float32 and relative(out, RECORDED["kl/output"]) < 1e-5
  assert relative(mean, RECORDED["kl/mean"]) < 1e-5 and relative(std, RECORDED["kl/std"]) < 1e-5
  found = dict([*flat(down["intermediates"]), *flat(up["intermediates"])])
  wanted = [key for key in RECORDED.files if key.startswith("kl/block/")]
  assert len(wanted) == 24
  for key in wanted:
    assert relative(case.thinned(np.asarray(found[key.split("/")[2]])), RECORDED[key]) < 1e-5, key


@EVERY
def test_a_file_comes_back_bit_for_bit(name):
  config, arrays = case.AUTOENCODERS[name], arrays_of(name)
  again = autoencoder_kl.export(autoencoder_kl.convert(arrays, config), config)
  assert sorted(again) == sorted(arrays)
  for key, value in arrays.items():
    assert again[key].dtype == value.dtype and again[key].flags["C_CONTIGUOUS"]
    np.testing.assert_array_equal(again[key], value)


def test_a_draw_has_the_encoders_mean_and_deviation_and_follows_its_key():
  """Of 400 draws of one picture: mean within 5 errors and variance within 5 errors in each number."""
  name = "kl_no_attention"
  codec, params, encode, _ = made(name)
  x, _ = case.kl_inputs(name)
  x, keys = x[:, :2, :2], jax.random.split(jax.random.key(3), 400)
  mean, std = jax.jit(lambda p: codec.network.apply({"params": p}, x, method="moments"))(params)
  draws = np.asarray(encode(params, np.broadcast_to(x, (400, *x.shape[1:])), keys)) / codec.scale
  z = (draws - np.asarray(mean)) / np.asarray(std)
  assert np.abs(z.mean(axis=0)).max() < 5 / np.sqrt(400)
  assert np.abs(z.var(axis=0) - 1).max() < 5 * np.sqrt(2 / 400)
  few = np.array([7, 2])
  one = encode(params, np.repeat(x, 2, axis=0), keys[few]) / codec.scale
  np.testing.assert_allclose(one, draws[few], rtol=1e-4, atol=1e-4)
  by_mean = autoencoder_kl.codec_of(case.AUTOENCODERS[name], sampled=False)
  same = jax.jit(by_mean.encode)(params, np.repeat(x, 2, axis=0), keys[few]) / codec.scale
  np.testing.assert_allclose(same, np.repeat(np.asarray(mean), 2, axis=0), rtol=1e-4, atol=1e-5)


def test_it_is_a_codec():
  codec, params, encode, decode = made("kl_no_attention")
  assert codec.log_det is None and codec.shape_of((8, 12, 3)) == (4, 6, 4)
  assert jax.tree.map(jnp.shape, codec.init()) == jax.tree.map(jnp.shape, params)
  leaves, structure = jax.tree.flatten(codec)
  assert jax.tree.unflatten(structure, leaves) == codec
  x, _ = case.kl_inputs("kl")
  assert codec.measure(params, x) is params and codec.show(x) is x
  assert decode(params, encode(params, x)).shape == x.shape
  with pytest.raises(ValueError, match="does not fit an AutoencoderKL of 2 levels"):
    codec.shape_of((7, 12, 3))
  with pytest.raises(ValueError, match="takes pictures of shape"):
    codec.shape_of((8, 12, 1))


def test_standardised_latents():
  """latents_mean and latents_std: (z - mean) * scale / std, one of each a channel."""
  name = "kl_no_attention"
  mean, std = [0.5, -1.0, 0.0, 2.0], [2.0, 1.0, 4.0, 0.5]
  codec = autoencoder_kl.codec_of(case.AUTOENCODERS[name] | dict(latents_mean=mean, latents_std=std))
  _, params, _, _ = made(name)
  x, _ = case.kl_inputs(name)
  want = (RECORDED[f"{name}/mean"] - np.float32(mean)) * 0.18215 / np.float32(std)
  assert relative(jax.jit(codec.encode)(params, x), want) < 1e-5


@pytest.mark.parametrize(
  "change, message",
  [
    (
      dict(up_block_types=["UpDecoderBlock2D", "AttnUpDecoderBlock2D"]),
      "UpDecoderBlock2D as each of its 2 up_",
    ),
    (dict(down_block_types=["DownEncoderBlock2D"]), "each of its 2 down_block_types"),
    (dict(latent_channel=4), "did you mean 'latent_channels'"),
    (dict(latents_mean=[0.0] * 4), "latents_mean and latents_std together"),
    (dict(_class_name="VQModel"), "of the class 'VQModel'"),
  ],
)
def test_configs_that_are_not_known_are_refused(change, message):
  with pytest.raises(UserError, match=message):
    autoencoder_kl.build(case.KL | change)


def test_other_arrays_are_refused():
  with pytest.raises(UserError, match="also have quant_conv.weight, quant_conv.bias, post_quant_conv.w"):
    autoencoder_kl.convert(arrays_of("kl"), case.KL | dict(use_quant_conv=False, use_post_quant_conv=False))
  with pytest.raises(UserError, match=r"conv_out.weight of \[8, 16, 3, 3\] in place of \[6, 16, 3, 3\]"):
    autoencoder_kl.convert(arrays_of("kl"), case.KL | dict(latent_channels=3))


def test_published_size():
  """Numbers of arrays and of elements of sd-vae-ft-mse, with names of attention from before 2023."""
  config = dict(block_out_channels=[128, 256, 512, 512], layers_per_block=2)
  config |= dict(down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4)
  leaves = jax.tree.leaves(jax.eval_shape(autoencoder_kl.codec_of(config).init))
  assert (len(leaves), sum(leaf.size for leaf in leaves)) == (248, 83_653_863)
