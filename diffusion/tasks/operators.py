"""The measurements that come with the library.

Inpainting, super-resolution, blur, colourisation, compressed sensing, phase retrieval.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from diffusion.processes.base import Number
from diffusion.tasks.measurement import Measurement, measurement


def inpainting(mask: ArrayLike, noise: Number = 0.0) -> Measurement:
  """The entries where the mask is 1; the others are measured as 0.

  Args:
    mask: [*event] of zeros and ones, 1 where x is known.
    noise: standard deviation.

  Raises:
    ValueError: a mask with other values.

  >>> inpainting(np.array([1, 0, 1]))(jnp.array([[5.0, 6.0, 7.0]])).tolist()
  [[5.0, 0.0, 7.0]]
  """
  mask = np.asarray(mask)
  if not np.all((mask == 0) | (mask == 1)):
    raise ValueError("a mask is 1 where the data are known and 0 elsewhere; this one has other values")
  return measurement(
    _masked,
    mask.shape,
    params=jnp.asarray(mask, jnp.float32),
    noise=noise,
    linear=True,
    gram=1.0,
    name="inpainting",
  )


def super_resolution(event: Sequence[int], factor: int, noise: Number = 0.0) -> Measurement:
  """Means of factor x factor blocks of pixels.

  Args:
    event: (H, W, C) of x, with H and W divisible by the factor.
    factor: size of a block.
    noise: standard deviation.

  Raises:
    ValueError: an image that does not divide.

  >>> super_resolution((2, 2, 1), 2)(jnp.arange(4.0).reshape(1, 2, 2, 1)).tolist()
  [[[[1.5]]]]
  """
  _check_image(event, "super_resolution")
  if factor < 1 or event[0] % factor or event[1] % factor:
    raise ValueError(
      f"super_resolution: an image of {event[0]}x{event[1]} has no whole blocks of {factor}: choose a factor "
      "that divides both"
    )
  pooled = functools.partial(_pooled, factor=int(factor))
  return measurement(pooled, event, noise=noise, linear=True, gram=1.0 / factor**2, name="super_resolution")


def blur(event: Sequence[int], width: float, noise: Number = 0.0) -> Measurement:
  """A Gaussian blur around the borders (circular), of standard deviation `width` pixels.

  >>> constant = blur((4, 4, 1), 1.0)(jnp.ones((1, 4, 4, 1)))
  >>> bool(jnp.allclose(constant, 1.0, atol=1e-5))
  True
  """
  _check_image(event, "blur")
  if not width > 0:
    raise ValueError(f"blur: the width is a standard deviation in pixels, above 0, got {width}")
  kernels = []
  for size in event[:2]:
    distance = np.minimum(np.arange(size), size - np.arange(size))
    kernel = np.exp(-0.5 * (distance / width) ** 2)
    kernels.append(
      jnp.asarray(np.stack([np.roll(kernel / kernel.sum(), i) for i in range(size)]), jnp.float32)
    )
  return measurement(_blurred, event, params=tuple(kernels), noise=noise, linear=True, name="blur")


def colorization(event: Sequence[int], noise: Number = 0.0) -> Measurement:
  """The mean of the channels: what a grey picture tells of a coloured one.

  >>> colorization((1, 1, 3))(jnp.array([[[[0.0, 1.0, 2.0]]]])).tolist()
  [[[[1.0]]]]
  """
  _check_image(event, "colorization")
  return measurement(_grey, event, noise=noise, linear=True, gram=1.0 / event[-1], name="colorization")


def compressed_sensing(event: Sequence[int], num: int, key: jax.Array, noise: Number = 0.0) -> Measurement:
  """`num` random projections with orthonormal rows.

  Args:
    event: shape of one x, of D entries.
    num: of measurements, at most D.
    key: typed key of the projections.
    noise: standard deviation.

  Raises:
    ValueError: more measurements than entries.

  >>> compressed_sensing((4, 4, 1), 5, jax.random.key(0)).measured
  (5,)
  """
  size = int(np.prod(event))
  if not 1 <= num <= size:
    raise ValueError(
      f"compressed_sensing: of {size} entries there are 1 to {size} independent projections, got num={num}"
    )
  matrix = jnp.linalg.qr(jax.random.normal(key, (size, num), jnp.float32))[0].T
  return measurement(
    projected, event, params=matrix, noise=noise, linear=True, gram=1.0, name="compressed_sensing"
  )


def linear(matrix: ArrayLike, event: Sequence[int] | None = None, noise: Number = 0.0) -> Measurement:
  """Any matrix [M, D] on the entries of x.

  >>> linear([[1.0, 1.0]])(jnp.array([[2.0, 3.0]])).tolist()
  [[5.0]]
  """
  matrix = np.asarray(matrix, np.float32)
  event = (matrix.shape[-1],) if event is None else tuple(event)
  if matrix.ndim != 2 or matrix.shape[1] != int(np.prod(event)):
    raise ValueError(
      f"a matrix for data of shape {list(event)} is [M, {int(np.prod(event))}], got {list(matrix.shape)}"
    )
  return measurement(projected, event, params=jnp.asarray(matrix), noise=noise, linear=True, name="linear")


def phase_retrieval(event: Sequence[int], oversampling: int = 2, noise: Number = 0.0) -> Measurement:
  """Phase retrieval: magnitudes of the Fourier transform of the image.

  The image is in a frame `oversampling` times its size, and the magnitudes are divided by the image's side.
  The measurement is not linear.

  >>> phase_retrieval((4, 4, 1)).measured
  (8, 8, 1)
  """
  _check_image(event, "phase_retrieval")
  magnitudes = functools.partial(_magnitudes, factor=int(oversampling))
  return measurement(magnitudes, event, noise=noise, name="phase_retrieval")


def _check_image(event, who):
  if len(event) != 3:
    raise ValueError(f"{who} measures images of shape (H, W, C), got {list(event)}")


def _masked(mask, x):
  return mask.astype(x.dtype)[None] * x


def _pooled(params, x, *, factor):
  del params
  rows, height, width, channels = x.shape
  return x.reshape(rows, height // factor, factor, width // factor, factor, channels).mean((2, 4))


def _blurred(kernels, x):
  down, across = (kernel.astype(x.dtype) for kernel in kernels)
  return jnp.einsum("ij,bjkc,lk->bilc", down, x, across)


def _grey(params, x):
  del params
  return x.mean(-1, keepdims=True)


def projected(matrix: jax.Array, x: jax.Array) -> jax.Array:
  """matrix [M, D] times the entries of each x: [B, M]."""
  return x.reshape(x.shape[0], -1) @ matrix.astype(x.dtype).T


def _magnitudes(params, x, *, factor):
  del params
  size = (factor * x.shape[1], factor * x.shape[2])
  spectrum = jnp.fft.fft2(x, s=size, axes=(1, 2))
  # The root of a sum of squares has no slope at zero: a rounding error inside keeps the gradient finite.
  power = (jnp.square(spectrum.real) + jnp.square(spectrum.imag)) / (x.shape[1] * x.shape[2])
  return jnp.sqrt(power + jnp.finfo(x.dtype).eps)
