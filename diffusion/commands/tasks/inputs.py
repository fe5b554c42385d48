"""The images and the mask that a task is given: files, or the first held-out images of the run's data."""

import os
import zipfile
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from diffusion.config.errors import UserError
from diffusion.data.dataset import Dataset
from diffusion.data.image_size import fit

PICTURES = (".png", ".jpg", ".jpeg")


class Inputs(NamedTuple):
  """The images that a task works on.

  stored: [N, H, W, C] in the data's values; label: [N] classes, -1 where unknown; index: [N]; source: in
  words.
  """

  stored: np.ndarray
  label: np.ndarray
  index: np.ndarray
  source: str


def read(
  files: Sequence[str] | None,
  dataset: Dataset,
  first: int,
  num: int | None,
  smaller: Sequence[int] | None = None,
) -> Inputs:
  """The images of files, or of the held-out data without any.

  Args:
    files: paths of PNG, JPEG and NPZ files, or None.
    dataset: of the run.
    first, num: which of them: `num` from number `first` on. All of the files' where num is None.
    smaller: a shape [h, w, c] besides the data's own that the images may have: that of a measurement.

  Raises:
    UserError: a missing or damaged file, images of another shape or of several, values outside of the data's.
  """
  if not files:
    if not len(dataset.held_out):
      raise UserError("this run's data have no held-out images to take: name some with --input")
    last = min(first + (num or 8), len(dataset.held_out))
    if first >= last:
      raise UserError(
        f"--first={first}, but there are {len(dataset.held_out)} held-out images: choose a smaller one"
      )
    records = [dataset.held_out[i] for i in range(first, last)]
    stored, label = (
      np.stack([record["x"] for record in records]),
      np.array([record["label"] for record in records], np.int32),
    )
    return Inputs(
      stored, label, np.arange(first, last), f"held-out images {first} to {last - 1} of the run's data"
    )
  shapes = [tuple(dataset.shape)] + ([tuple(smaller)] if smaller else [])
  parts = [_of_file(path, dataset, shapes) for path in files]
  if len({part[0].shape[1:] for part in parts}) > 1:
    raise UserError(
      f"{files[0]} and another file have images of different sizes: give images of {_written(shapes[0])} or "
      f"of {_written(shapes[-1])}, not both"
    )
  stored, label = (np.concatenate([part[k] for part in parts]) for k in (0, 1))
  chosen = slice(first, None if num is None else first + num)
  index = np.arange(len(stored))[chosen]
  if not len(index):
    raise UserError(f"--first={first}, but --input has {len(stored)} images: choose a smaller one")
  return Inputs(
    stored[chosen],
    label[chosen],
    index,
    f"{len(index)} images of {files[0]}" + (" and others" if len(files) > 1 else ""),
  )


def _of_file(path, dataset, shapes):
  """(images [n, H, W, C] in the data's values, labels [n]) of one file."""
  if not os.path.isfile(path):
    raise UserError(f"there is no file {path}: check --input")
  if path.lower().endswith(PICTURES):
    x, label = _picture(path, dataset, shapes), None
  elif path.lower().endswith(".npz"):
    arrays = arrays_of(path)
    key = next((key for key in ("stored", "x") if key in arrays), None)
    if key is None:
      raise UserError(
        f"{path} has the arrays {', '.join(arrays)}, but none called stored or x: save the images under one "
        "of these names"
      )
    x, label = arrays[key], arrays.get("label")
    if x.dtype.kind not in "iuf":
      raise UserError(
        f"{path} has images of the type {x.dtype}: save them as whole or real numbers in the data's values"
      )
    if x.ndim == 3:  # one image, or grey ones without the axis of channels
      x = x[None] if x.shape in shapes else x[..., None]
    if not x.size:
      raise UserError(f"{path} has images of shape {list(x.shape)}, so there are none: give at least one")
  else:
    raise UserError(f"{path} is neither PNG, JPEG nor NPZ: --input takes these")
  if x.ndim != 4 or x.shape[1:] not in shapes:
    what = _written(x.shape[1:]) if x.ndim == 4 else f"shape {list(x.shape)}"
    raise UserError(
      f"{path} has images of {what}, and this model's are "
      f"{' or, as a measurement, '.join(map(_written, shapes))}: resize or crop them first"
    )
  if not np.all(np.isfinite(x)):
    raise UserError(f"{path} holds values that are no finite numbers: mend or remove those images")
  levels = dataset.scaling.levels
  if levels is not None and (x.min() < 0 or x.max() > levels - 1):
    raise UserError(
      f"{path} has values from {x.min():g} to {x.max():g}, and the data's go from 0 to {levels - 1}: give "
      "stored values, not those of the model"
    )
  return x, _labels(path, np.full(len(x), -1) if label is None else label, len(x), dataset.num_classes)


def _labels(path, label, count, num_classes):
  """int32 [n]; UserError for what is no class."""
  if label.shape != (count,):
    raise UserError(
      f"{path} has {count} images and labels of shape {list(label.shape)}: give one whole number an image"
    )
  wrong = (
    label
    if label.dtype.kind not in "iuf"
    else label[(label != np.round(label)) | (label < -1) | (label >= (num_classes or 2**31))]
  )
  if wrong.size:
    raise UserError(
      f"{path} has the label {wrong[0]}: give whole "
      f"numbers{f' from 0 to {num_classes - 1}' if num_classes else ''}, or -1 where the class is not known"
    )
  return label.astype(np.int32)


def _picture(path, dataset, shapes):
  """One picture file in the data's values, [1, H, W, C].

  The file's values are 0 to 255. Grey stays grey only where a measurement may be.
  """
  levels = dataset.scaling.levels
  if levels is None:
    raise UserError(
      f"{path}: this model's data are real numbers, which a picture's 256 levels do not hold: give an NPZ "
      "file"
    )
  channels = {shape[2] for shape in shapes}
  image = _open(path)
  pixels = fit(
    image, None, 1 if channels == {1} or (image.shape[2] == 1 and 1 in channels) else max(channels)
  )
  return np.round(pixels[None].astype(np.float64) * (levels - 1) / 255).astype(
    np.uint8 if levels <= 256 else np.uint16
  )


def _open(path):
  """A picture file on a black ground, uint8 [H, W, 1 or 3].

  What is transparent has a colour in the file too, which nobody sees.
  """
  from PIL import Image

  try:
    image = Image.open(path, formats=("JPEG", "PNG"))
    image.load()
  except OSError as error:
    raise UserError(f"{path} is not a readable image ({error}): mend or remove it") from None
  opacity = np.asarray(image.convert("RGBA"))[..., 3:] / 255.0
  return np.round(fit(image) * opacity).astype(np.uint8)


def arrays_of(path: str) -> dict[str, np.ndarray]:
  """Name -> array of an NPZ file; UserError for one that is damaged."""
  try:
    with np.load(path, allow_pickle=False) as file:
      return {name: file[name] for name in file.files}
  except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile) as error:
    raise UserError(
      f"{path} cannot be read as NPZ ({error}): it may be truncated, or hold Python objects"
    ) from None


def mask(where: str, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
  """[H, W, C] of 0 and 1, 1 where pixels are made anew.

  Args:
    where: 'half' (the right one), 'box' (the middle), 'random:0.5' (that share of the pixels, from the seed),
      or a file.
    shape: (H, W, C) of the images.
    seed: of the random one.

  Raises:
    UserError: another name, a missing file, a mask of another size or with other values, one that hides
      nothing or all.

  >>> mask("half", (2, 4, 1))[..., 0].tolist()
  [[0, 0, 1, 1], [0, 0, 1, 1]]
  >>> int(mask("box", (8, 8, 3))[..., 1].sum())
  16
  """
  height, width, channels = shape
  found = np.zeros((height, width), np.int32)
  name, _, share = where.partition(":")
  if where == "half":
    found[:, width // 2 :] = 1
  elif where == "box":
    found[height // 4 : height - height // 4, width // 4 : width - width // 4] = 1
  elif name == "random":
    try:
      part = float(share)
    except ValueError:
      part = -1.0
    if not 0 < part < 1:
      raise UserError(
        f"--mask={where}: give the share of pixels that are made anew between 0 and 1, such as random:0.5"
      )
    found.ravel()[np.random.default_rng(seed).permutation(found.size)[: max(1, round(part * found.size))]] = 1
  elif os.path.isfile(where):
    found = _mask_file(where, (height, width))
  else:
    raise UserError(
      f"--mask={where} is neither half, box, random:SHARE nor a file: choose one, or check the path"
    )
  if not 0 < found.sum() < found.size:
    raise UserError(
      f"--mask={where} hides {'nothing' if not found.any() else 'everything'}: mark the pixels to be made "
      "anew, and those alone"
    )
  return np.broadcast_to(found[..., None], (height, width, channels)).copy()


def _mask_file(path, size):
  if path.lower().endswith(".npz"):
    arrays = arrays_of(path)
    if "mask" not in arrays:
      raise UserError(
        f"{path} has the arrays {', '.join(arrays)}, but none called mask: save it under this name"
      )
    found = arrays["mask"]
    if found.ndim == 3 and found.size:
      if np.any(found != found[..., :1]):
        raise UserError(
          f"the mask {path} differs from channel to channel, and a pixel is made anew in all of them or in "
          "none: save one [H, W]"
        )
      found = found[..., 0]
  else:
    found = (fit(_open(path), None, 1)[..., 0] >= 128).astype(np.int32)
  if found.shape != size:
    raise UserError(
      f"the mask {path} has the size {'x'.join(map(str, found.shape))} and this model's images "
      f"{size[0]}x{size[1]}: give one of that size"
    )
  if not np.all((found == 0) | (found == 1)):
    raise UserError(
      f"the mask {path} has other values than 0 and 1: 1 where pixels are made anew, 0 where they stay"
    )
  return found.astype(np.int32)


def _written(shape):
  return "x".join(map(str, shape))
