"""What the published networks promise as the library's own do, for all of them at once."""

import functools

import diffusers_networks as case
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import stable_diffusion_cases as texts

from diffusion.weights.architectures import (
  autoencoder_kl,
  consistency_models,
  dit_files,
  noisy_classifier,
  unet2d,
  unet2d_condition,
)


def _unet(name):
  return lambda **changes: unet2d.build(case.UNETS[name], **changes), case.unet_inputs(name)


def _dit(name, kind):
  config = {**case.DIT_DIFFUSERS, **case.DIT_ORIGINAL}[name] | {"_class_name": kind}
  x, t, label = case.dit_inputs(name)
  return lambda **changes: dit_files.build(config, **changes), (x, t, {"label": label})


def _condition():
  config = texts.SD2 | dict(block_out_channels=[8], mid_block_type=None, attention_head_dim=2)
  config |= dict(down_block_types=["CrossAttnDownBlock2D"], up_block_types=["CrossAttnUpBlock2D"])
  return lambda **changes: unet2d_condition.build(config, **changes), texts.unet_inputs("sd2")


SMALL = (4, 32, (1, 2), 1, (2,))  # side, width, multipliers, blocks, attention
KARRAS = consistency_models.KarrasUNetModel(
  *SMALL, num_head_channels=16, use_scale_shift_norm=False, resblock_updown=False
)
CLASSIFIER = noisy_classifier.EncoderUNetModel(*SMALL, num_head_channels=16, out_channels=5)
IMAGES = (np.ones((2, 4, 4, 3), np.float32), np.array([0.5, 2.0], np.float32))
NCSNPP = case.NCSNPP | dict(
  block_out_channels=[32, 32],
  down_block_types=["AttnSkipDownBlock2D", "SkipDownBlock2D"],
  up_block_types=["SkipUpBlock2D", "AttnSkipUpBlock2D"],
)
MADE = {
  "ncsnpp": (lambda **changes: unet2d.build(NCSNPP, **changes), case.unet_inputs("ncsnpp")),
  "scale_shift": _unet("scale_shift"),
  "identity": _unet("identity"),
  "kl": (lambda **changes: autoencoder_kl.build(case.KL, **changes), case.kl_inputs("kl")[:1]),
  "condition": _condition(),
  "dit": _dit("dit", "DiT"),
  "sit": _dit("sit", "SiT"),
  "consistency": (lambda **changes: consistency_models.build(KARRAS, **changes), IMAGES),
  "classifier": (lambda **changes: noisy_classifier.build(CLASSIFIER, **changes), IMAGES),
}
EVERY = pytest.mark.parametrize("name", MADE)


@functools.cache
def shapes(name):
  build, inputs = MADE[name]
  return jax.eval_shape(build().init, jax.random.key(0), *inputs)


@EVERY
def test_parameters_are_float32_whatever_the_options(name):
  build, inputs = MADE[name]
  other = jax.eval_shape(build(remat=True, dtype="bfloat16").init, jax.random.key(0), *inputs)
  assert other == shapes(name)
  assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(shapes(name)))


@EVERY
def test_bfloat16_keeps_softmax_and_exponentials_in_float32(name):
  build, inputs = MADE[name]
  program = jax.make_jaxpr(build(dtype="bfloat16").apply)(shapes(name), *inputs)
  lines = [
    line
    for line in str(program).splitlines()
    if any(f"= {op}" in line for op in ("exp ", "sin ", "cos ", "rsqrt ", "log "))
  ]
  assert lines and not any("bf16[" in line.split("=")[0] for line in lines)
  assert all(leaf.dtype == jnp.float32 for leaf in program.out_avals)


@EVERY
def test_float64_is_float64_to_the_end(name, x64):
  build, inputs = MADE[name]
  wide = lambda leaf: (
    jax.ShapeDtypeStruct(leaf.shape, "float64")
    if leaf.dtype == np.float32
    else jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
  )
  program = jax.make_jaxpr(build(dtype="float64", param_dtype="float64").apply)(
    *jax.tree.map(wide, (shapes(name), *inputs))
  )
  assert program.out_avals[0].dtype == jnp.float64 and "f32[" not in str(program)


@EVERY
def test_equal_configs_make_equal_modules(name):
  """So that a program is compiled once."""
  build, _ = MADE[name]
  assert build() == build() and hash(build()) == hash(build())


@pytest.mark.parametrize("name", ["identity", "dit"])
def test_one_row_is_a_batch(name):
  build, (x, t, *cond) = MADE[name]
  rng = np.random.default_rng(2)
  draw = lambda leaf: (rng.normal(size=leaf.shape) / np.sqrt(np.prod(leaf.shape[:-1]) + 1)).astype(np.float32)
  variables = jax.tree.map(draw, shapes(name))
  apply = build().apply
  one = lambda x, t, *cond: apply(variables, x[None], t[None], *jax.tree.map(lambda a: a[None], cond))[0]
  want = jax.jit(apply)(variables, x, t, *cond)
  found = jax.jit(jax.vmap(one))(x, t, *cond)
  np.testing.assert_allclose(found, want, rtol=0, atol=2e-5 * np.abs(want).max())
