"""Arrays in files: NPZ and IDX (the format of MNIST)."""

import gzip
import os
import re
import zipfile
import zlib
from collections.abc import Sequence

import numpy as np

from diffusion.config.errors import UserError
from diffusion.data import named, order, sources
from diffusion.data.dataset import Dataset, describe, size_pair
from diffusion.data.image_size import Fitted
from diffusion.data.sources import Augment

IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
IDX_NAME = re.compile(r"(.+?)[-.]images[-.]idx\d-\w+?(\.gz)?$")


def npz(
  path: str,
  *,
  x_key: str = "x",
  label_key: str = "label",
  condition: str | Sequence[str] | None = None,
  pair: str = "",
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

  Whole-numbered x [n, H, W] or [n, H, W, C] are images with values 0 .. levels-1 (booleans have two
  levels); real-valued x [n, ...] are standardised by one scalar mean and deviation, and x [n] are vectors of
  one number. Further arrays, one entry a record, are what the network is told or the other half of a pair,
  as `condition` and `pair` say:
  `data.npz(path, condition=("label", "low_resolution"), pair="target")`.

  Args:
    path: the file.
    x_key, label_key: names of the arrays.
    condition: 'label' and names of other arrays that the network is told, in `batch["cond"]` by name; None
      for the label where there is one.
    pair: name of the array that is the other half of a pair, `batch["x1"]`.
    held_out: share held out, unless the file has `<x_key>_held_out` (and the same of every other array).
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
  others = tuple(name for name in (*named.names(condition), pair) if name and name != "label")
  wanted = (x_key, label_key, *others)
  try:
    loaded = np.load(path, allow_pickle=False)
    if isinstance(loaded, np.ndarray):
      raise UserError(f"{path} is a single array: save it with np.savez(path, {x_key}=..., {label_key}=...)")
    with loaded as file:
      found = file.files
      arrays = {key: file[key] for key in found if key.removesuffix("_held_out") in wanted}
  except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
    raise UserError(
      f"{path} cannot be read as NPZ ({error}): it may be truncated, or hold Python objects"
    ) from None
  apart = x_key + "_held_out" in arrays
  for name in (x_key, *others):
    if name not in arrays:
      how = "name it with x_key=..." if name == x_key else "name another in condition=... or pair=..."
      raise UserError(f"{path} has the arrays {', '.join(found)}, but none called {name!r}: {how}")
    if apart and name + "_held_out" not in arrays:
      raise UserError(f"{path} has {x_key}_held_out but no {name}_held_out: save both or neither")
  parts = [
    (
      arrays[x_key + ending],
      arrays.get(label_key + ending),
      {name: arrays[name + ending] for name in others},
    )
    for ending in (("", "_held_out") if apart else ("",))
  ]
  return _from_arrays(
    path,
    parts[0],
    parts[1] if apart else None,
    held_out,
    levels,
    image_size,
    channels,
    num_classes=num_classes,
    centered=centered,
    dequantization=dequantization,
    random_flip=random_flip,
    augment=augment,
    condition=condition,
    pair=pair,
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
  read = lambda pair: (read_idx(pair[0]), read_idx(pair[1]) if pair[1] else None, {})
  apart = next((pairs[key] for key in ("t10k", "test") if key in pairs and "train" in pairs), None)
  train = pairs.get("train") or next(iter(pairs.values()))
  options = dict(centered=centered, dequantization=dequantization, random_flip=random_flip, augment=augment)
  return _from_arrays(
    path or images,
    read(train),
    apart and read(apart),
    held_out,
    256,
    image_size,
    channels,
    num_classes=num_classes,
    **options,
  )


def read_idx(path: str) -> np.ndarray:
  """The array in an IDX file.

  The format is yann.lecun.com's: type, number of dimensions, big-endian sizes, then the values.
  """
  try:
    with open(path, "rb") as file:
      content = file.read()
    content = gzip.decompress(content) if path.endswith(".gz") else content
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


def _from_arrays(name, train, apart, held_out, levels, image_size, channels, **options):
  """`Dataset` of arrays (x, label, dict of others) and, perhaps, held-out ones."""
  levels = 2 if train[0].dtype.kind == "b" else levels
  notes = _notes(train[0], levels)
  if apart is not None and train[0].dtype.kind == "f":  # both alike
    stored = named.narrowed(train[0]).dtype
    train, apart = ((part[0].astype(stored), *part[1:]) for part in (train, apart))
  train = _arrays(name, train, levels)
  labelled = bool((train.label >= 0).all()) and len(train) > 0
  count = int(train.label.max()) + 1 if labelled else 0
  present = np.unique(train.label) if labelled else np.zeros(0, int)
  if len(present) < count:
    notes.append(
      f"labels are {len(present)} of the {count} numbers from 0 to {count - 1} ({_some(present)}): no sample "
      "is drawn of the others"
    )
  if apart is None:
    kept, rest = order.split(len(train), held_out, train.label if labelled else None)
    parts = [sources.Arrays(**train.gather(indices)) for indices in (kept, rest)]
    split = (
      f"fixed {'stratified ' if labelled else ''}split of one collection: {len(kept)} training and "
      f"{len(rest)} held-out records"
    )
  else:
    parts = [train, _arrays(name, apart, levels)]
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
    present=present.tolist() if len(present) < count else (),
    notes=notes,
    **options,
  )


def _arrays(name, part, levels):
  """`Arrays` of (x, label, dict of others) in the types that are kept in memory."""
  x, label, others = part
  for other, array in others.items():
    if array.dtype.kind == "f" and not np.isfinite(array).all():
      raise UserError(f"{name} has values of '{other}' that are not finite: remove those records")
    if array.dtype.kind == "u" and array.ndim == 4 and array.size and int(array.max()) >= levels:
      raise UserError(
        f"{name} has values of '{other}' up to {array.max()}, but levels={levels} allows 0 to {levels - 1}: "
        "set levels"
      )
  others = {
    other: named.narrowed(array) if array.dtype.kind == "f" else array for other, array in others.items()
  }
  return sources.Arrays(_values(name, x, levels), _labels(name, label), **others)


def _notes(x, levels):
  """Sentences on what an array holds and may not be what was meant."""
  notes, shape = [], x.shape[1:]
  if x.dtype.kind == "b":
    notes.append("x holds booleans, taken as two levels")
  elif x.dtype.kind in "iu" and levels > 2 and x.size and int(x.min()) == 0 and int(x.max()) == 1:
    notes.append(
      f"x holds 0 and 1 alone, which are the two darkest of levels={levels}: set levels=2 if they are black "
      "and white"
    )
  if len(shape) == 3 and shape[0] in (1, 3) and shape[2] > 4:
    notes.append(
      f"x of shape {list(shape)} is taken as {shape[2]} channels of {shape[0]}x{shape[1]}: channels come last"
    )
  if x.dtype.kind == "f" and len(shape) == 1 and len(x) > 1:
    deviations = x.std(axis=0, dtype=np.float64)
    deviations = deviations[deviations > 0]
    if deviations.size and deviations.max() > 100 * deviations.min():
      notes.append(
        f"the coordinates of x have deviations from {deviations.min():.3g} to {deviations.max():.3g} and one "
        "scale is used for all: divide each by its own if their units differ"
      )
  return notes


def _some(numbers, most=8):
  shown = ", ".join(str(number) for number in numbers[:most])
  return shown + (f", ... {numbers[-1]}" if len(numbers) > most else "")


def _values(name, x, levels):
  """Stored values as whole-number images or as real numbers.

  Images are uint8 (uint16 above 256 levels) [n, H, W, C], real numbers are [n, ...] (see `named.narrowed`).
  """
  if x.dtype.kind == "f":
    if not np.isfinite(x).all():
      raise UserError(f"{name} has values that are not finite: remove those records")
    return named.narrowed(x[:, None] if x.ndim == 1 else x)
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
