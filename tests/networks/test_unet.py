"""The U-Net: its parts against explicit computations, every option, and the sizes it takes."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import signal

from diffusion.networks import UNet
from diffusion.networks.layers import GroupNorm
from diffusion.networks.resblocks import Resample, ResidualBlock
from diffusion.networks.style import Style

STYLE = Style(
  rank=2,
  block="biggan",
  fir_kernel=(1, 3, 3, 1),
  resample_with_conv=True,
  skip_rescale=True,
  init_scale=0.0,
  num_heads=1,
  dropout=0.0,
  deterministic=True,
  dtype=jnp.float32,
  param_dtype=jnp.float32,
  remat=False,
)
QUICKLY = {"xla_backend_optimization_level": 0}  # compiling is what takes the time here
small = functools.partial(UNet, width=8, channel_multipliers=(1, 2), num_res_blocks=1)


def shaped(net, *shape):
  return jax.eval_shape(net.init_with_output, jax.random.key(0), jnp.zeros((2, *shape)), jnp.zeros(2))


def test_group_norm_matches_numpy():
  x = np.random.default_rng(0).normal(2.0, 3.0, size=(2, 3, 5, 12)).astype(np.float32)
  scale, bias = np.arange(12.0, dtype=np.float32), np.linspace(-1, 1, 12, dtype=np.float32)
  groups = x.astype(np.float64).reshape(2, 15, 3, 4)
  mean, var = groups.mean(axis=(1, 3), keepdims=True), groups.var(axis=(1, 3), keepdims=True)
  want = ((groups - mean) / np.sqrt(var + 1e-6)).reshape(x.shape) * scale + bias
  got = GroupNorm().apply(
    {"params": {"scale": jnp.asarray(scale), "bias": jnp.asarray(bias)}}, jnp.asarray(x)
  )
  np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("direction", ["up", "down"])
def test_filter_and_convolution_share_one_zero_border(direction):
  """One channel: StyleGAN2's joint form is a single convolution of the zero-padded image with both
  kernels."""
  rng = np.random.default_rng(0)
  x, weight = rng.normal(size=(6, 8)), rng.normal(size=(3, 3))
  taps = np.array([1, 3, 3, 1]) / 8
  both = signal.convolve2d(weight[::-1, ::-1], np.outer(taps, taps), mode="full")  # networks correlate
  if direction == "up":
    stuffed = np.zeros((12, 16))
    stuffed[::2, ::2] = x
    want = 4 * signal.convolve2d(stuffed, both, mode="full")[2:14, 2:18]
  else:
    want = signal.convolve2d(x, both, mode="full")[3:9:2, 3:11:2]
  params = {"conv": {"kernel": jnp.asarray(weight[:, :, None, None], jnp.float32), "bias": jnp.zeros(1)}}
  got = Resample(direction, 1, True, STYLE).apply(
    {"params": params}, jnp.asarray(x[None, :, :, None], jnp.float32)
  )
  np.testing.assert_allclose(got[0, :, :, 0], want, atol=1e-5)


@pytest.mark.parametrize(
  "block, fir", [("ddpm", True), ("biggan", False)]
)  # the other two are the published ones
@pytest.mark.parametrize(
  "progressive, progressive_input, combine",
  [
    ("none", "none", "sum"),
    ("output_skip", "input_skip", "sum"),
    ("residual", "residual", "sum"),
    ("none", "input_skip", "cat"),
    ("output_skip", "residual", "cat"),
    ("residual", "none", "sum"),
  ],
)
def test_every_combination_of_options_fits_together(block, fir, progressive, progressive_input, combine):
  net = small(
    block=block, fir=fir, progressive=progressive, progressive_input=progressive_input, combine=combine
  )
  assert shaped(net, 4, 6, 3)[0].shape == (2, 4, 6, 3)


@pytest.mark.parametrize("shape", [(8, 1), (10, 7), (8, 8, 1), (4, 10, 5), (2, 2, 4)])
def test_sizes_and_channels(shape):
  assert shaped(small(), *shape)[0].shape == (2, *shape)


def test_remat_and_dropout_within_a_block():
  """The gradient is that of the stored block, with the same dropout mask in both passes."""
  rng = np.random.default_rng(0)
  x, embedding = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((2, 4, 4, 8), (2, 6)))
  gradients = []
  for remat in (False, True):
    style = dataclasses.replace(STYLE, remat=remat, dropout=0.5, deterministic=False, init_scale=1.0)
    block = style.stored(ResidualBlock)(8, style)
    if not gradients:
      shapes = jax.eval_shape(
        block.init, dict(params=jax.random.key(0), dropout=jax.random.key(1)), x, embedding
      )
      params = jax.tree.map(lambda leaf: jnp.asarray(0.3 * rng.normal(size=leaf.shape), leaf.dtype), shapes)
    loss = lambda p, seed: jnp.sum(
      jnp.square(block.apply(p, x, embedding, rngs={"dropout": jax.random.key(seed)}))
    )
    gradients.append(jax.jit(jax.grad(loss), compiler_options=QUICKLY))
  plain, again, other = gradients[0](params, 3), gradients[1](params, 3), gradients[1](params, 4)
  largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(plain))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * largest), again, plain)
  kernel = lambda tree: tree["params"]["conv_1"]["kernel"]
  assert np.abs(kernel(other) - kernel(plain)).max() > 0.01 * largest


@pytest.mark.slow
def test_remat_wraps_every_block_of_the_network():
  count = {}
  for remat in (False, True):
    net = small(remat=remat, attention_resolutions=(4,))
    params = shaped(net, 4, 4, 1)[1]
    program = jax.make_jaxpr(net.apply)(params, jnp.zeros((2, 4, 4, 1)), jnp.zeros(2))
    count[remat] = sum(equation.primitive.name in ("remat2", "checkpoint") for equation in program.eqns)
  # 2 going down, 4 going up, 2 in the middle, 1 to halve, 1 to double; attention on 1 block down, 1 level up,
  # the middle
  assert count == {False: 0, True: 10 + 3}


def test_uncentered_data_are_centered_at_the_input():
  rng = np.random.default_rng(0)
  x, t = jnp.asarray(rng.uniform(size=(2, 4, 4, 1)), jnp.float32), jnp.array([0.0, 9.0])
  params = jax.tree.map(
    lambda leaf: jnp.asarray(0.3 * rng.normal(size=leaf.shape), leaf.dtype), shaped(small(), 4, 4, 1)[1]
  )
  raw, mapped = (
    jax.jit(small(centered=centered).apply, compiler_options=QUICKLY)(params, inputs, t)
    for centered, inputs in ((False, x), (True, 2.0 * x - 1.0))
  )
  np.testing.assert_allclose(raw, mapped, rtol=1e-4, atol=1e-5)
  assert np.abs(raw).max() > 0.1


def test_attention_stands_on_the_named_resolutions():
  params = shaped(small(attention_resolutions=(8,)), 4, 8, 1)[1]["params"]
  assert "attention_0_0" in params["encoder"] and "attention_0" in params["decoder"]
  assert "attention_1_0" not in params["encoder"] and "middle_attention" in params


@pytest.mark.parametrize(
  "changes, shape, message",
  [
    (
      dict(channel_multipliers=(1, 1, 1)),
      (30, 32, 3),
      "size 30 x 32 does not fit a U-Net of 3 levels: every side must be divisible by 4.\n"
      "The nearest sizes that fit are 28 x 32 and 32 x 32",
    ),
    (dict(), (7, 1), "The nearest sizes that fit are 6 and 8"),
    (
      dict(attention_resolutions=(16,)),
      (8, 12, 1),
      r"no level of resolution \[16\].*longest sides \[12, 6\]",
    ),
    (dict(block="resnet"), (8, 1), "block must be one of ddpm, biggan; got 'resnet'"),
    (dict(progressive_input="skip"), (8, 1), "progressive_input must be one of none, input_skip, residual"),
    (dict(embedding="sine"), (8, 1), "embedding must be one of positional, fourier"),
    (dict(num_heads=3), (8, 1), "num_heads=3 does not divide the 16 channels"),
    (dict(num_res_blocks=0), (8, 1), "at least one residual block"),
    (dict(), (2, 4, 4, 3), "UNet takes x with 3 or 4 axes"),
  ],
)
def test_what_does_not_fit_is_named(changes, shape, message):
  with pytest.raises(ValueError, match=message):
    shaped(small(**changes), *shape)
