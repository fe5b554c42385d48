"""Resampling against explicit convolution in NumPy and SciPy."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import signal

from diffusion.networks import resampling

KERNELS = [(1, 3, 3, 1), (1, 2, 1), (1, 1), (1, 4, 6, 4, 1), (1, 2, 3, 5)]


def image(*shape):
  return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def full_size_filter(x, kernel):
  """Convolution of one [H, W] image with the normalised separable kernel, all overlaps kept."""
  taps = np.array(kernel, np.float64) / np.sum(kernel)
  return signal.convolve2d(x, np.outer(taps, taps), mode="full")


@pytest.mark.parametrize("kernel", KERNELS)
def test_filtered_doubling_is_zero_insertion_then_convolution(kernel):
  x = image(1, 4, 6, 1)
  stuffed = np.zeros((8, 12))
  stuffed[::2, ::2] = x[0, :, :, 0]
  p = (
    len(kernel) - 2
  )  # StyleGAN2's padding: (p + 1) // 2 + 1 before, so the full convolution is cut from L - 1 - that
  start = len(kernel) - 1 - ((p + 1) // 2 + 1)
  full = np.pad(full_size_filter(stuffed, kernel), 4)[4:, 4:] * 4
  want = (
    full[start : start + 8, start : start + 12] if start >= 0 else np.pad(full, ((-start, 0),) * 2)[:8, :12]
  )
  np.testing.assert_allclose(resampling.upsample(jnp.asarray(x), kernel)[0, :, :, 0], want, atol=1e-5)


@pytest.mark.parametrize("kernel", KERNELS)
def test_filtered_halving_is_convolution_then_every_second(kernel):
  x = image(1, 6, 8, 1)
  start = len(kernel) - 1 - (len(kernel) - 1) // 2
  want = full_size_filter(x[0, :, :, 0], kernel)[start:, start:][:6:2, :8:2]
  np.testing.assert_allclose(resampling.downsample(jnp.asarray(x), kernel)[0, :, :, 0], want, atol=1e-5)


@pytest.mark.parametrize("kernel", [None, (1, 3, 3, 1)])
def test_constants_stay_constant_inside(kernel):
  x = jnp.full((1, 8, 12, 2), 3.0)
  for y in (resampling.upsample(x, kernel), resampling.downsample(x, kernel)):
    np.testing.assert_allclose(y[:, 1:-1, 1:-1], 3.0, rtol=1e-6)


def test_halving_is_the_transpose_of_doubling():
  x, y = image(1, 6, 4, 1), image(1, 12, 8, 1)
  for kernel in (None, (1, 3, 3, 1)):  # <U x, y> = 4 <x, D y>: doubling keeps values, halving averages
    left = np.sum(np.asarray(resampling.upsample(jnp.asarray(x), kernel)) * y)
    right = 4 * np.sum(x * np.asarray(resampling.downsample(jnp.asarray(y), kernel)))
    np.testing.assert_allclose(left, right, rtol=1e-4)


def test_plain_forms_repeat_and_average():
  x = image(2, 4, 6, 3)
  np.testing.assert_array_equal(resampling.upsample(jnp.asarray(x)), x.repeat(2, axis=1).repeat(2, axis=2))
  np.testing.assert_allclose(
    resampling.downsample(jnp.asarray(x)), x.reshape(2, 2, 2, 3, 2, 3).mean(axis=(2, 4)), rtol=1e-5, atol=1e-6
  )


@pytest.mark.parametrize("change", [resampling.upsample, resampling.downsample])
def test_one_axis_is_a_row_of_two(change):
  x = image(2, 6, 3)
  line = change(jnp.asarray(x), (1, 3, 3, 1))
  plane = change(jnp.broadcast_to(jnp.asarray(x)[:, None], (2, 12, 6, 3)), (1, 3, 3, 1))
  np.testing.assert_allclose(plane[:, plane.shape[1] // 2], line, atol=1e-5)


def test_margins_extend_the_filtered_image():
  x = jnp.asarray(image(1, 4, 4, 2))
  wide = resampling.upsample(x, (1, 3, 3, 1), margin=1)
  assert wide.shape == (1, 10, 10, 2)
  np.testing.assert_allclose(wide[:, 1:-1, 1:-1], resampling.upsample(x, (1, 3, 3, 1)), atol=1e-6)
  assert np.abs(wide[:, 0]).max() > 0  # the filter reaches past the border


def test_bfloat16_stays_bfloat16():
  x = jnp.ones((1, 4, 4, 1), jnp.bfloat16)
  assert (
    resampling.upsample(x, (1, 3, 3, 1)).dtype == resampling.downsample(x, (1, 3, 3, 1)).dtype == jnp.bfloat16
  )


def test_bad_filters_are_refused():
  with pytest.raises(ValueError, match="at least 2 taps"):
    resampling.upsample(jnp.ones((1, 4, 1)), (1,))
  with pytest.raises(ValueError, match="needs a filter"):
    resampling.upsample(jnp.ones((1, 4, 1)), None, margin=1)
