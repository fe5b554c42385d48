"""The Inception network of FID and the Inception score, with the 2015 weights' own oddities.

It is Inception v3 (arXiv:1512.00567) as the TensorFlow graph of 2015-12-05 has it: average pools that do not
count padding, a last block (7c) that pools by maximum, 1008 classes, batch norms with an epsilon of 1e-3.
Files of torch-fidelity and of pytorch-fid fit (`pt_inception-2015-12-05-6726825d.pth`); their norms are
folded into the convolutions before them.

What makes it fast leaves the numbers: 1x1 convolutions of one input are one matrix product, and an average
pool before a 1x1 convolution follows it instead, on fewer channels.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

SIDE = 299
"""Pixels of a side of what the network sees."""

CLASSES = 1008
"""Logits of the head."""

SPATIAL = 7
"""Channels of `Mixed_6d`'s first branch that sFID takes, at 17 x 17 places; `mixed_6/conv` in the graph."""

EPSILON = 1e-3

ORIGINAL = "pt_inception-2015-12-05-6726825d.pth of torch-fidelity or pytorch-fid"


class Weights(nn.Module):
  """Kernel [h, w, in, out] and bias [out] of one convolution, its norm folded in."""

  shape: tuple[int, int, int, int]

  @nn.compact
  def __call__(self) -> tuple[jax.Array, jax.Array]:
    kernel = self.param("kernel", nn.initializers.lecun_normal(), self.shape, jnp.float32)
    return kernel, self.param("bias", nn.initializers.zeros, self.shape[-1:], jnp.float32)


class Block(nn.Module):
  """What blocks share: convolutions by name, in the notation of the original."""

  narrow: int = 1

  def channels(self, count: int) -> int:
    """So many channels, divided by `narrow`."""
    return count // self.narrow

  def conv(
    self, x: jax.Array, name: str, channels: int, size: tuple[int, int], stride: int = 1, pad: bool = True
  ) -> jax.Array:
    """relu(conv(x) + bias), padded to the same size unless told otherwise."""
    kernel, bias = Weights((*size, x.shape[-1], self.channels(channels)), name=name)()
    around = [(n // 2, n // 2) if pad else (0, 0) for n in size]
    dims = ("NHWC", "HWIO", "NHWC")
    x = jax.lax.conv_general_dilated(x, kernel, (stride, stride), around, dimension_numbers=dims)
    return self.seen(name, nn.relu(x + bias.reshape(1, 1, 1, -1)))

  def pointwise(self, x: jax.Array, heads: Mapping[str, int], pooled: str = "") -> list[jax.Array]:
    """relu(x W + b) of several 1x1 convolutions at once; that called `pooled` averages over 3x3 before."""
    weights = [Weights((1, 1, x.shape[-1], self.channels(n)), name=name)() for name, n in heads.items()]
    kernel = jnp.concatenate([kernel[0, 0] for kernel, _ in weights], axis=1)
    at = np.cumsum([bias.shape[0] for _, bias in weights])[:-1]
    parts = jnp.split((x.reshape(-1, x.shape[-1]) @ kernel).reshape(*x.shape[:-1], -1), at, axis=-1)
    found = []
    for (name, (_, bias)), part in zip(zip(heads, weights), parts):
      part = mean_pool(part) if name == pooled else part
      found.append(self.seen(name, nn.relu(part + bias.reshape(1, 1, 1, -1))))
    return found

  def seen(self, name: str, x: jax.Array) -> jax.Array:
    """x, kept under `intermediates` where the caller asks for these."""
    self.sow("intermediates", f"{name}_out", x)
    return x


def mean_pool(x: jax.Array) -> jax.Array:
  """Means of 3x3 neighbourhoods [B, H, W, C], of those pixels alone that there are.

  >>> mean_pool(jnp.arange(4.0).reshape(1, 2, 2, 1))[0, :, :, 0].tolist()
  [[1.5, 1.5], [1.5, 1.5]]
  """
  sums, count = x, np.ones(x.shape[1:3])
  for axis in (1, 2):
    pad = [(0, 0)] * 4
    pad[axis] = (1, 1)
    n = x.shape[axis]
    wide = jnp.pad(sums, pad)
    sums = sum(jax.lax.slice_in_dim(wide, i, i + n, axis=axis) for i in range(3))
    wide = np.pad(count, pad[1:3])
    count = sum(np.take(wide, range(i, i + n), axis=axis - 1) for i in range(3))
  return sums / jnp.asarray(count, x.dtype)[None, :, :, None]


def max_pool(x: jax.Array, stride: int = 2, pad: int = 0) -> jax.Array:
  """Maxima of 3x3 neighbourhoods [B, H, W, C]."""
  x = jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)), constant_values=-jnp.inf) if pad else x
  for axis in (1, 2):  # one after the other; three times as fast as `reduce_window` on a CPU
    last = (x.shape[axis] - 3) // stride * stride
    parts = [jax.lax.slice_in_dim(x, i, i + last + 1, stride, axis) for i in range(3)]
    x = jnp.maximum(jnp.maximum(parts[0], parts[1]), parts[2])
  return x


class MixedA(Block):
  """Blocks 5b to 5d, 35 x 35."""

  pool: int = 32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    heads = {"branch1x1": 64, "branch5x5_1": 48, "branch3x3dbl_1": 64, "branch_pool": self.pool}
    one, five, three, pool = self.pointwise(x, heads, "branch_pool")
    five = self.conv(five, "branch5x5_2", 64, (5, 5))
    three = self.conv(three, "branch3x3dbl_2", 96, (3, 3))
    three = self.conv(three, "branch3x3dbl_3", 96, (3, 3))
    return jnp.concatenate([one, five, three, pool], axis=-1)


class MixedB(Block):
  """Block 6a, from 35 x 35 to 17 x 17."""

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    one = self.conv(x, "branch3x3", 384, (3, 3), stride=2, pad=False)
    (three,) = self.pointwise(x, {"branch3x3dbl_1": 64})
    three = self.conv(three, "branch3x3dbl_2", 96, (3, 3))
    three = self.conv(three, "branch3x3dbl_3", 96, (3, 3), stride=2, pad=False)
    return jnp.concatenate([one, three, max_pool(x)], axis=-1)


class MixedC(Block):
  """Blocks 6b to 6e, 17 x 17."""

  inner: int = 128

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    n = self.inner
    heads = {"branch1x1": 192, "branch7x7_1": n, "branch7x7dbl_1": n, "branch_pool": 192}
    one, seven, double, pool = self.pointwise(x, heads, "branch_pool")
    seven = self.conv(seven, "branch7x7_2", n, (1, 7))
    seven = self.conv(seven, "branch7x7_3", 192, (7, 1))
    for part, channels, size in ((2, n, (7, 1)), (3, n, (1, 7)), (4, n, (7, 1)), (5, 192, (1, 7))):
      double = self.conv(double, f"branch7x7dbl_{part}", channels, size)
    return jnp.concatenate([one, seven, double, pool], axis=-1)


class MixedD(Block):
  """Block 7a, from 17 x 17 to 8 x 8."""

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    three, seven = self.pointwise(x, {"branch3x3_1": 192, "branch7x7x3_1": 192})
    three = self.conv(three, "branch3x3_2", 320, (3, 3), stride=2, pad=False)
    seven = self.conv(seven, "branch7x7x3_2", 192, (1, 7))
    seven = self.conv(seven, "branch7x7x3_3", 192, (7, 1))
    seven = self.conv(seven, "branch7x7x3_4", 192, (3, 3), stride=2, pad=False)
    return jnp.concatenate([three, seven, max_pool(x)], axis=-1)


class MixedE(Block):
  """Blocks 7b and 7c, 8 x 8; `maximum` pools by it, as 7c does."""

  maximum: bool = False

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    heads = {"branch1x1": 320, "branch3x3_1": 384, "branch3x3dbl_1": 448}
    if self.maximum:
      one, three, double = self.pointwise(x, heads)
      (pool,) = self.pointwise(max_pool(x, stride=1, pad=1), {"branch_pool": 192})
    else:
      one, three, double, pool = self.pointwise(x, heads | {"branch_pool": 192}, "branch_pool")
    double = self.conv(double, "branch3x3dbl_2", 384, (3, 3))
    both = lambda x, name: [
      self.conv(x, f"{name}a", 384, (1, 3)),
      self.conv(x, f"{name}b", 384, (3, 1)),
    ]
    parts = [one, *both(three, "branch3x3_2"), *both(double, "branch3x3dbl_3"), pool]
    return jnp.concatenate(parts, axis=-1)


class Inception(Block):
  """Images [B, 299, 299, 3], about -1 to 1 -> dict of features in float32.

  'pool' [B, 2048] for FID, KID, precision and recall; 'spatial' [B, 2023] for sFID, rows then columns then
  channels; 'logits' [B, 1008] without the head's bias, for the Inception score.

  Attributes:
    narrow: what all numbers of channels are divided by (for tests): 1, 2, 4, 8 or 16.
  """

  @nn.compact
  def __call__(self, x: jax.Array) -> dict[str, jax.Array]:
    narrow = self.narrow
    x = self.conv(x, "Conv2d_1a_3x3", 32, (3, 3), stride=2, pad=False)
    x = self.conv(x, "Conv2d_2a_3x3", 32, (3, 3), pad=False)
    x = max_pool(self.conv(x, "Conv2d_2b_3x3", 64, (3, 3)))
    (x,) = self.pointwise(x, {"Conv2d_3b_1x1": 80})
    x = max_pool(self.conv(x, "Conv2d_4a_3x3", 192, (3, 3), pad=False))
    for name, pool in (("Mixed_5b", 32), ("Mixed_5c", 64), ("Mixed_5d", 64)):
      x = self.seen(name, MixedA(narrow, pool, name=name)(x))
    x = self.seen("Mixed_6a", MixedB(narrow, name="Mixed_6a")(x))
    spatial = x
    for name, inner in (("Mixed_6b", 128), ("Mixed_6c", 160), ("Mixed_6d", 160), ("Mixed_6e", 192)):
      x = self.seen(name, MixedC(narrow, inner, name=name)(x))
      spatial = x[..., :SPATIAL] if name == "Mixed_6d" else spatial  # its first branch comes first
    x = self.seen("Mixed_7a", MixedD(narrow, name="Mixed_7a")(x))
    x = self.seen("Mixed_7b", MixedE(narrow, name="Mixed_7b")(x))
    x = self.seen("Mixed_7c", MixedE(narrow, True, name="Mixed_7c")(x))
    pool = x.mean(axis=(1, 2))
    head = self.param("head", nn.initializers.lecun_normal(), (pool.shape[-1], CLASSES), jnp.float32)
    return {"pool": pool, "spatial": spatial.reshape(len(x), -1), "logits": pool @ head}


def parameters(arrays: Mapping[str, Any], narrow: int = 1) -> dict[str, Any]:
  """The parameters of `Inception` from the arrays of a file, by their names in torch-fidelity.

  Auxiliary heads and counters of batches are passed over.

  Raises ValueError where an array is missing or has another shape.
  """
  shapes = jax.eval_shape(
    Inception(narrow).init, jax.random.key(0), jax.ShapeDtypeStruct((1, SIDE, SIDE, 3), jnp.float32)
  )["params"]
  missing: list[str] = []

  def take(name: str, shape: Sequence[int]) -> np.ndarray:
    array = np.asarray(arrays[name], np.float64) if name in arrays else np.zeros(0)
    if array.shape != tuple(shape):
      missing.append(f"{name} {list(shape)}")
      return np.ones(shape)
    return array

  def one(path: str, shape: Sequence[int]) -> dict[str, np.ndarray]:
    height, width, inputs, outputs = shape
    kernel = take(f"{path}.conv.weight", (outputs, inputs, height, width))
    norm = [
      take(f"{path}.bn.{part}", (outputs,)) for part in ("weight", "bias", "running_mean", "running_var")
    ]
    scale = norm[0] / np.sqrt(norm[3] + EPSILON)
    return {
      "kernel": (kernel.transpose(2, 3, 1, 0) * scale).astype(np.float32),
      "bias": (norm[1] - norm[2] * scale).astype(np.float32),
    }

  def walk(tree: Mapping[str, Any], path: str) -> dict[str, Any]:
    if "kernel" in tree:
      return one(path, tree["kernel"].shape)
    inner = {name: part for name, part in tree.items() if name != "head"}
    return {name: walk(part, f"{path}.{name}".lstrip(".")) for name, part in inner.items()}

  found = walk(shapes, "")
  features, classes = shapes["head"].shape
  found["head"] = take("fc.weight", (classes, features)).T.astype(np.float32)
  if missing:
    more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
    raise ValueError(
      "these are not the weights of the Inception network of FID, for they lack "
      f"{', '.join(missing[:3])}{more}: "
      f"give {ORIGINAL}"
    )
  return found
