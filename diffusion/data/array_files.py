"""Arrays in files: NPZ and IDX (the format of MNIST)."""

import gzip
import os
import re
import zipfile
import zlib
from collections.abc import Sequence

import numpy as np

from diffusion.data import order, sources
from diffusion.data.dataset import Dataset, describe, size_pair
from diffusion.data.image_size import Fitted
from diffusion.data.sources import Augment
from diffusion.errors import UserError

IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
IDX_NAME = re.compile(r"(.+?)[-.]images[-.]idx\d-\w+?(\.gz)?$")


def npz(
  path: str,
  *,
  x_key: str = "x",
  label_key: str = "label",
  held_out: float = 0.1,
  levels: int = 256,
  image_size: int | Sequence[int] | None = None,
  channels: int | None = None,
  num_classes: int | None = None,
  centered: bool = True,
  dequantization: str = "none",
  random_flip: bool = False,
  augment: Augment | str | None = None,
) -> Dataset:
  """Arrays `x` and, if there, `label` of an NPZ file, with a fixed stratified share held out.

  Whole-numbered x [n, H, W] or [n, H, W, C] are images with values 0 .. levels-1; real-valued x [n, ...] are
  standardised by one scalar mean and deviation.

  Args:
    path: the file.
    x_key, label_key: names of the arrays.
    held_out: share held out, unless the file has `<x_key>_held_out` (and `<label_key>_held_out`).
    levels: number of pixel values.
    image_size, channels, num_classes, centered, dequantization, random_flip, augment: see `images`.
  Returns:
    `Dataset`.
  Raises:
    UserError: for a missing or damaged file, a missing array, values out of range.
  """
  path = os.path.expanduser(path)
  if not os.path.isfile(path):
    raise UserError(f"there is no file at {path}: check the path")
  try:
    with np.load(path, allow_pickle=False) as file:
      if not hasattr(file, "files"):
        raise UserError(
          f"{path} is a single array: save it with np.savez(path, {x_key}=..., {label_key}=...)"
        )
      arrays = {key: file[key] for key in file.files if key.startswith((x_key, label_key))}
      names = file.files
  except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
    raise UserError(
      f"{path} cannot be read as NPZ ({error}): it may be truncated, or hold Python objects"
    ) from None
  if x_key not in arrays:
    raise UserError(
      f"{path} has the arrays {', '.join(names)}, but none called {x_key!r}: name it with x_key=..."
    )
  train = arrays[x_key], arrays.get(label_key)
  test = (
    (arrays[x_key + "_held_out"], arrays.get(label_key + "_held_out"))
    if x_key + "_held_out" in arrays
    else None
  )
  options = dict(centered=centered, dequantization=dequantization, random_flip=random_flip, augment=augment)
  return _from_arrays(
    path, train, test, held_out, levels, image_size, channels, num_classes=num_classes, **options
  )


def idx(
  path: str = "",
  *,
  images: str = "",
  labels: str = "",
  held_out: float = 0.1,
  image_size: int | Sequence[int] | None = None,
  channels: int | None = None,
  num_classes: int | None = None,
  centered: bool = True,
  dequantization: str = "none",
  random_flip: bool = False,
  augment: Augment | str | None = None,
) -> Dataset:
  """IDX files as MNIST has them, plain or gzipped.

  Args:
    path: folder with `train-images-idx3-ubyte(.gz)`, `train-labels-idx1-ubyte(.gz)` and the same with `t10k`.
      With only one of the two pairs there, a fixed stratified share of it is held out (9,000 and 1,000 of the
      10,000 of t10k), and results are not comparable with those on the usual split.
    images, labels: or the two files themselves (labels may be missing).
    held_out: share held out where there is one pair only.
    image_size, channels, num_classes, centered, dequantization, random_flip, augment: see `images`.
  Returns:
    `Dataset`.
  Raises:
    UserError: for missing, truncated or mismatched files.
  """
  if images:
    pairs = {"train": (os.path.expanduser(images), os.path.expanduser(labels) if labels else "")}
  else:
    pairs = _idx_pairs(os.path.expanduser(path))
  read = lambda pair: (read_idx(pair[0]), read_idx(pair[1]) if pair[1] else None)
  test = next((pairs[key] for key in ("t10k", "test") if key in pairs and "train" in pairs), None)
  train = pairs.get("train") or next(iter(pairs.values()))
  options = dict(centered=centered, dequantization=dequantization, random_flip=random_flip, augment=augment)
  return _from_arrays(
    path or images,
    read(train),
    test and read(test),
    held_out,
    256,
    image_size,
    channels,
    num_classes=num_classes,
    **options,
  )


def read_idx(path: str) -> np.ndarray:
  """The array in an IDX file (yann.lecun.com's format: type, number of dimensions, big-endian sizes, then the
  values)."""
  try:
    with (gzip.open if path.endswith(".gz") else open)(path, "rb") as file:
      content = file.read()
  except FileNotFoundError:
    raise UserError(f"there is no file at {path}: check the path") from None
  except (OSError, EOFError, zlib.error) as error:
    raise UserError(
      f"{path} cannot be unpacked ({error}): it is damaged or truncated, fetch it again"
    ) from None
  if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in IDX_TYPES:
    raise UserError(f"{path} is not an IDX file: it must begin with two zero bytes and a known type")
  dtype, dimensions = np.dtype(IDX_TYPES[content[2]]), content[3]
  start = 4 + 4 * dimensions
  shape = tuple(np.frombuffer(content[4:start], ">u4").astype(int)) if len(content) >= start else None
  if shape is None or len(content) - start != int(np.prod(shape)) * dtype.itemsize:
    raise UserError(
      f"{path} announces an array of shape {shape} but holds another number of bytes: it is truncated, fetch "
      "it again"
    )
  return np.frombuffer(content, dtype, offset=start).reshape(shape).astype(dtype.newbyteorder("="))


def _idx_pairs(path: str) -> dict[str, tuple[str, str]]:
  """dict from 'train', 't10k', ... to (images file, labels file or '')."""
  if not os.path.isdir(path):
    raise UserError(
      f"there is no folder at {path or 'path=(empty)'}: give the folder of the IDX files, or images=... and "
      "labels=..."
    )
  pairs = {}
  for name in sorted(os.listdir(path), reverse=True):  # an unpacked file is preferred to its .gz
    match = IDX_NAME.match(name)
    if match:
      prefix = match.group(1)
      label_files = sorted(
        other for other in os.listdir(path) if re.match(re.escape(prefix) + r"[-.]labels[-.]idx1", other)
      )
      pairs[prefix] = os.path.join(path, name), os.path.join(path, label_files[0]) if label_files else ""
  if not pairs:
    raise UserError(f"{path} holds no IDX files (such as train-images-idx3-ubyte.gz): check the path")
  return pairs


def _from_arrays(name, train, test, held_out, levels, image_size, channels, **options):
  """`Dataset` of arrays (x, label) and, perhaps, held-out ones."""
  train = sources.Arrays(_values(name, train[0], levels), _labels(name, train[1]))
  labelled = bool((train.label >= 0).all()) and len(train) > 0
  count = int(train.label.max()) + 1 if labelled else 0
  if test is None:
    kept, rest = order.split(len(train), held_out, train.label if labelled else None)
    parts = [sources.Arrays(**train.gather(indices)) for indices in (kept, rest)]
    split = (
      f"fixed {'stratified ' if labelled else ''}split of one collection: {len(kept)} training and "
      f"{len(rest)} held-out records"
    )
  else:
    parts = [train, sources.Arrays(_values(name, test[0], levels), _labels(name, test[1]))]
    split = "the files' own training and test split"
    if parts[1].label.max(initial=-1) >= count and labelled:
      raise UserError(
        f"the held-out part of {name} has label {parts[1].label.max()}, but training only goes up to "
        f"{count - 1}"
      )
  size = size_pair(image_size) if image_size else None
  shape = train.x.shape[1:]
  images = len(shape) == 3 and train.x.dtype == np.uint8 and shape[2] in (1, 3, 4)
  if images and (size not in (None, shape[:2]) or channels not in (None, 0, shape[2])):
    parts = [sources.cached(Fitted(part, size, channels, levels)) if len(part) else part for part in parts]
  class_names = tuple(map(str, range(count)))
  return describe(
    name,
    *parts,
    split=split,
    class_names=class_names,
    levels=levels,
    image_size=image_size,
    channels=channels,
    **options,
  )


def _values(name, x, levels):
  """Stored values as uint8 (uint16 above 256 levels) images [n, H, W, C] or float32 [n, ...]."""
  if x.dtype.kind == "f":
    if not np.isfinite(x).all():
      raise UserError(f"{name} has values that are not finite: remove those records")
    return x.astype(np.float32)
  if x.dtype.kind not in "iub":
    raise UserError(f"{name} has values of type {x.dtype}: save whole numbers or real numbers")
  if x.size and not 0 <= int(x.min()) <= int(x.max()) < levels:
    raise UserError(
      f"{name} has values from {x.min()} to {x.max()}, but levels={levels} allows 0 to {levels - 1}: set "
      "levels"
    )
  x = x.astype(np.uint8 if levels <= 256 else np.uint16)
  return x[..., None] if x.ndim == 3 else x


def _labels(name, labels):
  if labels is None:
    return None
  if labels.dtype.kind not in "iu" or labels.ndim != 1 or (labels.size and labels.min() < 0):
    raise UserError(
      f"the labels of {name} have type {labels.dtype} and shape {labels.shape}: they must be whole numbers "
      ">= 0, one a record"
    )
  return labels
