"""Resizing images as the tools of evaluation do, each as one small matrix an axis.

| name | how | used by |
|---|---|---|
| tf1_bilinear | two taps at i * in / out, no antialiasing | ADM, torch-fidelity, EDM, score_sde |
| torch_bilinear | two taps at (i + 1/2) * in / out - 1/2, no antialiasing | pytorch-fid |
| pillow_bicubic | cubic, a = -1/2, widened where the image shrinks (antialiasing) | clean-fid |
| torch_bicubic | the same with sampling points in float32 | EDM2 |
| torch_bicubic_sharp | four taps, cubic with a = -3/4, no antialiasing | positions in DINOv2 |

All are separable: a resize is `rows @ image @ columns.T`. Where the originals round sampling points to
float32, so is it done here; the rest is in float64. What then differs from the originals is what they round
in float32, less than 1e-4 of a grey level (`tests/metrics/test_resizing.py`).
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np


def tf1_bilinear(size: int, out: int) -> np.ndarray:
  """TensorFlow 1's `resize_bilinear` with its defaults, [out, size].

  >>> tf1_bilinear(2, 4).tolist()
  [[1.0, 0.0], [0.5, 0.5], [0.0, 1.0], [0.0, 1.0]]
  """
  return _two_taps(np.arange(out, dtype=np.float32) * np.float32(size / out), size)


def torch_bilinear(size: int, out: int) -> np.ndarray:
  """PyTorch's `interpolate(mode="bilinear", align_corners=False)`, [out, size].

  >>> torch_bilinear(2, 4).tolist()
  [[1.0, 0.0], [0.75, 0.25], [0.25, 0.75], [0.0, 1.0]]
  """
  return _two_taps(np.maximum(_centres(out, size / out), np.float32(0)), size)


def pillow_bicubic(size: int, out: int) -> np.ndarray:
  """Pillow's `BICUBIC`, [out, size].

  >>> pillow_bicubic(4, 2).round(4).tolist()
  [[0.4587, 0.4587, 0.1198, -0.0372], [-0.0372, 0.1198, 0.4587, 0.4587]]
  """
  return _widened(size, out, np.float64)


def torch_bicubic(size: int, out: int) -> np.ndarray:
  """PyTorch's `interpolate(mode="bicubic", antialias=True)`, [out, size]."""
  return _widened(size, out, np.float32)


def torch_bicubic_sharp(size: int, out: int, scale: float | None = None) -> np.ndarray:
  """PyTorch's `interpolate(mode="bicubic", align_corners=False)`, [out, size].

  Args:
    size, out: pixels in and out.
    scale: pixels in for a pixel out, where it is not size / out: 1 / `scale_factor`.
  """
  at = _centres(out, size / out if scale is None else scale)
  whole = np.floor(at)
  share = (at - whole).astype(np.float64)
  found = np.zeros((out, size))
  for tap in range(-1, 3):
    where = np.clip(whole + tap, 0, size - 1).astype(int)
    np.add.at(found, (np.arange(out), where), _cubic(share - tap, -0.75))
  return found


def _centres(out, scale):
  """scale (i + 1/2) - 1/2 with one rounding to float32, as a fused multiplication and addition gives it."""
  return (np.float64(np.float32(scale)) * (np.arange(out) + 0.5) - 0.5).astype(np.float32)


def _widened(size, out, dtype):
  """Cubic taps around (i + 1/2) size / out, as wide as a pixel of the output where it is the larger one."""
  scale = dtype(size) / dtype(out)
  wide = max(scale, dtype(1))
  half, two = dtype(0.5), dtype(2)
  found = np.zeros((out, size))
  for i in range(out):
    centre = scale * (dtype(i) + half)
    low = max(int(centre - two * wide + half), 0)
    high = min(int(centre + two * wide + half), size)
    at = (np.arange(low, high).astype(dtype) - centre + half) / wide
    weights = _cubic(at.astype(np.float64), -0.5)
    found[i, low:high] = weights / weights.sum()
  return found


def _two_taps(at, size):
  """Linear interpolation at points `at` (float32) between pixels; the last pixel goes on."""
  low = at.astype(np.int64)
  share = (at - low.astype(np.float32)).astype(np.float64)
  found = np.zeros((len(at), size))
  rows = np.arange(len(at))
  np.add.at(found, (rows, np.minimum(low, size - 1)), 1 - share)
  np.add.at(found, (rows, np.minimum(low + 1, size - 1)), share)
  return found


def _cubic(x, a):
  """Keys' cubic kernel with parameter a (IEEE ASSP 29, 1981)."""
  x = np.abs(x)
  near = ((a + 2) * x - (a + 3)) * x * x + 1
  far = (((x - 5) * x + 8) * x - 4) * a
  return np.where(x < 1, near, np.where(x < 2, far, 0.0))


KINDS: dict[str, Callable[[int, int], np.ndarray]] = {
  "tf1_bilinear": tf1_bilinear,
  "torch_bilinear": torch_bilinear,
  "pillow_bicubic": pillow_bicubic,
  "torch_bicubic": torch_bicubic,
  "torch_bicubic_sharp": torch_bicubic_sharp,
}
"""The resizes by name: each gives the matrix [out, size] of an axis."""


NARROW = 64
"""Pixels of a row up to which a resize on the device is fastest with one matrix for columns and channels."""


@functools.lru_cache(maxsize=64)
def matrix(kind: str, size: int, out: int) -> np.ndarray:
  """The matrix [out, size] of a resize by name, in float64; it is shared, so it cannot be written to.

  Raises ValueError for a name that is not known and for a size below one.
  """
  if kind not in KINDS:
    raise ValueError(f"the resize {kind!r} is not known: choose one of {', '.join(KINDS)}")
  if size < 1 or out < 1:
    raise ValueError(f"an axis of {size} pixels cannot become one of {out}: both must be at least 1")
  found = KINDS[kind](size, out)
  found.setflags(write=False)
  return found


def resize_exact(images: np.ndarray, kind: str, side: int) -> np.ndarray:
  """Images [N, H, W, C] at [N, side, side, C], in float64 on the host.

  >>> resize_exact(np.array([0.0, 3.0]).reshape(1, 1, 2, 1), "torch_bilinear", 2)[0, 0, :, 0].tolist()
  [0.0, 3.0]
  """
  height, width = images.shape[1:3]
  rows, columns = matrix(kind, height, side), matrix(kind, width, side)
  return np.einsum("ih,nhwc,jw->nijc", rows, images.astype(np.float64), columns, optimize=True)


def resize(images: jax.Array, kind: str, side: int) -> jax.Array:
  """Images [N, H, W, C] at [N, side, side, C], in float32 on the device.

  >>> resize(jnp.arange(4, dtype=jnp.uint8).reshape(1, 1, 4, 1), "tf1_bilinear", 2)[0, 0, :, 0].tolist()
  [0.0, 2.0]
  """
  count, height, width, channels = images.shape
  rows = jnp.asarray(matrix(kind, height, side), jnp.float32)
  columns = jnp.asarray(matrix(kind, width, side), jnp.float32)
  product = functools.partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)
  x = images.astype(jnp.float32)
  if width <= NARROW:
    # One matrix for columns and channels together: more products, and nothing is moved in memory.
    tall = product("ih,nhx->nix", rows, x.reshape(count, height, width * channels))
    both = jnp.asarray(np.kron(matrix(kind, width, side), np.eye(channels)), jnp.float32)
    return product("nix,yx->niy", tall, both).reshape(count, side, side, channels)
  wide = product("nhwc,jw->nhjc", x, columns)
  found = product("ih,nhx->nix", rows, wide.reshape(count, height, side * channels))
  return found.reshape(count, side, side, channels)
