"""Doubling and halving of the spatial axes: plain, or through a FIR filter against aliasing.

Works on [B, L, C], [B, H, W, C] and beyond, one axis at a time. The filtered forms are those of
StyleGAN2 (arXiv 1912.04958), which Score SDE (arXiv 2011.13456, section 4.3) uses: outside the image is zero.
A filter of four taps is a few shifted additions, which the compiler fuses; no convolution is called.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp


def upsample(x: jax.Array, kernel: Sequence[float] | None = None, margin: int = 0) -> jax.Array:
  """Doubles every spatial axis: [B, N, ..., C] -> [B, 2 N + 2 margin, ..., C].

  Args:
    x: channels last.
    kernel: taps of a separable filter applied after inserting zeros, scaled so that a constant keeps its
      value; None repeats each value twice.
    margin: extra filtered values kept on each side, for a convolution without padding that follows.

  >>> upsample(jnp.array([[[1.0], [2.0]]]))[0, :, 0].tolist()
  [1.0, 1.0, 2.0, 2.0]
  """
  if kernel is None:
    if margin:
      raise ValueError("A margin needs a filter: repeating has nothing beyond the border.")
    return functools.reduce(lambda h, axis: jnp.repeat(h, 2, axis=axis), _spatial(x), x)
  taps = _correlation_taps(kernel, gain=2.0)
  before, after = (len(taps) - 1) // 2 + 1 + margin, (len(taps) - 2) // 2 + margin
  return functools.reduce(lambda h, axis: _insert_and_filter(h, taps, axis, before, after), _spatial(x), x)


def downsample(x: jax.Array, kernel: Sequence[float] | None = None) -> jax.Array:
  """Halves every spatial axis: [B, N, ..., C] -> [B, N / 2, ..., C], averaging pairs or filtering.

  >>> downsample(jnp.array([[[1.0], [3.0]]]))[0, :, 0].tolist()
  [2.0]
  """
  if kernel is None:
    taps, before, after = [0.5, 0.5], 0, 0
  else:
    taps = _correlation_taps(kernel, gain=1.0)
    before, after = (len(taps) - 1) // 2, (len(taps) - 2) // 2
  return functools.reduce(lambda h, axis: _filter(h, taps, axis, before, after, stride=2), _spatial(x), x)


def blur_before_strided(x: jax.Array, kernel: Sequence[float]) -> jax.Array:
  """Filters at full size with the padding that a 3-wide convolution of stride 2 without padding needs.

  [B, N, ..., C] -> [B, N + 1, ..., C]; the convolution then gives N / 2.
  """
  taps = _correlation_taps(kernel, gain=1.0)
  before, after = (len(taps) + 1) // 2, len(taps) // 2
  return functools.reduce(lambda h, axis: _filter(h, taps, axis, before, after, stride=1), _spatial(x), x)


def _spatial(x):
  return range(1, x.ndim - 1)


def _correlation_taps(kernel, gain):
  if len(kernel) < 2:
    raise ValueError(f"A resampling filter needs at least 2 taps, got {tuple(kernel)}.")
  total = float(sum(kernel))
  return [gain * float(k) / total for k in reversed(kernel)]


def _pad(x, axis, before, after):
  widths = [(0, 0)] * x.ndim
  widths[axis] = (before, after)
  return jnp.pad(x, widths)


def _filter(x, taps, axis, before, after, stride):
  """y[n] = sum_j taps[j] x[stride n + j - before]."""
  x = _pad(x, axis, before, after)
  count = (x.shape[axis] - len(taps)) // stride + 1
  terms = [
    tap * jax.lax.slice_in_dim(x, j, j + (count - 1) * stride + 1, stride, axis) for j, tap in enumerate(taps)
  ]
  return functools.reduce(jnp.add, terms)


def _insert_and_filter(x, taps, axis, before, after):
  """The filter of `_filter` with stride 1 on x with a zero after each value.

  Even and odd outputs are computed apart, so no zero is touched.
  """
  size = x.shape[axis]
  half = (2 * size + before + after - (len(taps) - 1)) // 2
  phases = [
    [((r + j - before) // 2, tap) for j, tap in enumerate(taps) if (r + j - before) % 2 == 0] for r in (0, 1)
  ]
  shifts = [shift for phase in phases for shift, _ in phase]
  low, high = max(0, -min(shifts)), max(0, max(shifts) + half - size)
  x = _pad(x, axis, low, high)
  even, odd = (
    functools.reduce(
      jnp.add,
      [tap * jax.lax.slice_in_dim(x, low + shift, low + shift + half, axis=axis) for shift, tap in phase],
    )
    for phase in phases
  )
  shape = x.shape[:axis] + (2 * half,) + x.shape[axis + 1 :]
  return jnp.stack([even, odd], axis=axis + 1).reshape(shape)
