"""Where the images of an evaluation come from: files and shards; those of a run are in `run_images`.

Each is a `metrics.streaming.Images`: grey levels [n, H, W, 3] in uint8 by index. Model values become grey
levels by the rounding of the protocol; grey pictures get three equal channels.
"""

import dataclasses
import io
import os
import re
import zipfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from diffusion.config.errors import UserError
from diffusion.data import shards
from diffusion.data.archives import open_archive
from diffusion.data.image_files import ENDINGS
from diffusion.data.image_size import fit
from diffusion.metrics.extractors.files import digest
from diffusion.metrics.protocols import Rounding
from diffusion.metrics.streaming import Images

GREY = ("arr_0", "images", "stored", "x")
"""Names that an .npz may have for images, in the order in which they are taken."""

WIDE = 1.5
"""Model values lie within -1 and 1 but for what a sampler overshoots."""


@dataclasses.dataclass(frozen=True)
class Source:
  """Images by a function of (first index, number).

  Attributes:
    count: how many.
    said: what and where.
    take: (first, number) -> [n, H, W, C], uint8, or model values in float32.
    rounding: from model values to grey levels.
    drawn: whether they are made anew at every reading, at a cost.
  """

  count: int
  said: Mapping[str, Any]
  take: Callable[[int, int], np.ndarray]
  rounding: Rounding
  drawn: bool = False

  def read(self, first: int, count: int) -> np.ndarray:
    """Grey levels [count, H, W, 3] of images `first` to `first + count - 1`."""
    return grey(self.take(first, count), self.rounding)


def grey(x: np.ndarray, rounding: Rounding) -> np.ndarray:
  """Grey levels [n, H, W, 3], uint8, of uint8 or of model values [n, H, W, 1 or 3].

  >>> from diffusion.metrics.protocols import NEAREST
  >>> grey(np.full((1, 1, 1, 1), 0.5, np.float32), NEAREST).tolist()
  [[[[191, 191, 191]]]]
  """
  x = x if x.dtype == np.uint8 else rounding(x)
  return np.repeat(x, 3, axis=3) if x.shape[3] == 1 else x


def of_path(path: str, rounding: Rounding, num: int | None = None, levels: int = 256) -> Source:
  """The images of an .npz, an .npy, a folder or zip of pictures, or a folder of `--shards`.

  Args:
    path: of the file or folder.
    rounding: from model values to grey levels.
    num: how many images; None for all.
    levels: grey levels of the data of the run that wrote `stored` values.

  Raises:
    UserError: for anything else, and for fewer than `num` images.
  """
  path = os.path.expanduser(path)
  if not os.path.exists(path):
    raise UserError(
      f"there is no {path}: give an .npz, a folder or zip of PNG or JPEG files, or a folder of --shards"
    )
  if os.path.isdir(path) and os.path.exists(os.path.join(path, shards.MANIFEST)):
    found = _of_shards(path, rounding, levels)
  elif os.path.isdir(path) or path.lower().endswith(".zip"):
    found = _of_pictures(path, rounding)
  else:
    found = _of_arrays(path, rounding, levels)
  if not found.count:
    raise UserError(f"{path} holds no images: name a folder that does")
  if num is None or num == found.count:
    return found
  if num > found.count:
    raise UserError(f"--num={num}, and {path} holds {found.count} images: ask for no more")
  return dataclasses.replace(found, count=num)


def _of_arrays(path, rounding, levels):
  try:
    arrays = _arrays(path)
  except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
    raise UserError(
      f"{path} cannot be read as arrays ({' '.join(str(error).split())[:100]}): give an .npz"
    ) from None
  name = next(iter(arrays))
  if name == "stored" and levels == 256 and _belongs(arrays.get("x"), arrays["stored"]):
    name = "x"  # before anything was rounded
  x = pixels(arrays[name], levels) if name == "stored" else arrays[name]
  if (
    x.ndim != 4
    or x.shape[3] not in (1, 3)
    or x.dtype.kind not in "uf"
    or (x.dtype.kind == "u" and x.itemsize > 1)
  ):
    raise UserError(
      f"{name} in {path} is {x.dtype} {list(x.shape)}: images are uint8, or model values in -1 to 1, of "
      "[N, H, W, 1 or 3]"
    )
  if x.dtype.kind == "f" and len(x) and not np.abs(x[:1000]).max() <= WIDE:
    raise UserError(
      f"{name} in {path} has values up to {np.abs(x[:1000]).max():.3g}: model values lie within -1 and 1, "
      "and grey levels are uint8"
    )
  said = {"images": path, "array": name, "sha256": digest(path), "levels": levels}
  return Source(len(x), said, lambda first, count: np.asarray(x[first : first + count]), rounding)


def _arrays(path):
  """Arrays by name that may be images; those that are not compressed stay in the file."""
  with open(path, "rb") as file:
    if file.read(4) != b"PK\x03\x04":
      return {"arr_0": np.load(path, mmap_mode="r", allow_pickle=False)}
  with zipfile.ZipFile(path) as archive:
    members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
    found = {}
    for name in GREY:
      if name not in members:
        continue
      if members[name].compress_type != zipfile.ZIP_STORED:
        with np.load(path, allow_pickle=False) as file:
          found[name] = file[name]
        continue
      with archive.open(members[name]) as part:  # the local header says where the bytes begin
        version = np.lib.format.read_magic(part)
        head = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, fortran, dtype = head[version](part)
        if dtype.hasobject:
          raise ValueError(f"{name} holds objects")
        size = members[name].file_size - part.tell()
      with open(path, "rb") as file:
        file.seek(members[name].header_offset + 26)
        lengths = int.from_bytes(file.read(2), "little") + int.from_bytes(file.read(2), "little")
      begin = members[name].header_offset + 30 + lengths + members[name].file_size - size
      order = "F" if fortran else "C"
      found[name] = np.memmap(path, dtype, "r", begin, shape, order)
  if not found:
    other = ", ".join(list(members)[:4])
    raise UserError(f"{path} has {other}, and no images under {', '.join(GREY)}: rename the array")
  return found


def _belongs(x, stored):
  """Whether x, float, are the model values in -1 to 1 that `stored`, uint8, is rounded from."""
  if x is None or x.shape != stored.shape or x.dtype.kind != "f" or x.ndim != 4 or stored.dtype != np.uint8:
    return False
  some = np.clip(x[:100].astype(np.float64), -1, 1)
  return bool(np.abs(127.5 * (some + 1) - stored[:100]).max(initial=0) <= 1.0)


def _of_pictures(path, rounding):
  archive = open_archive(path)
  chosen = [i for i, name in enumerate(archive.names) if name.lower().endswith(ENDINGS)]
  if not chosen:
    raise UserError(f"{path} has no PNG or JPEG file: name a folder that has, or an .npz")
  pool = ThreadPoolExecutor(max(1, min(8, os.cpu_count() or 1)))

  def one(index):
    from PIL import Image

    try:
      with Image.open(io.BytesIO(archive.read(index))) as image:
        return fit(image, channels=3)
    except OSError as error:
      raise UserError(
        f"{archive.names[index]} in {path} cannot be read ({error}): delete it or fetch it again"
      ) from None

  first_shape = one(chosen[0]).shape

  def take(first, count):
    images = list(pool.map(one, chosen[first : first + count]))
    for index, image in zip(chosen[first : first + count], images):
      if image.shape != first_shape:
        raise UserError(
          f"{archive.names[index]} in {path} has {image.shape[1]} x {image.shape[0]} pixels and the first "
          "picture "
          f"{first_shape[1]} x {first_shape[0]}: images of an evaluation have one size"
        )
    return np.stack(images)

  said = {"images": path, "first": archive.names[chosen[0]], "last": archive.names[chosen[-1]]}
  return Source(len(chosen), said, take, rounding)


def _of_shards(path, rounding, levels):
  """Shards that are all there, one after another, read one at a time."""
  names = sorted(
    filter(None, map(shards.NAME.fullmatch, os.listdir(path))), key=lambda match: int(match.group(1))
  )
  starts, ends = ([int(match.group(part)) for match in names] for part in (1, 2))
  for (end, start), match in zip(zip(ends, starts[1:]), names[1:]):
    if start != end + 1:
      raise UserError(
        f"{path} lacks samples {end + 1} to {start - 1}, before {match.string}: run --shards to its end"
      )
  if not names:
    raise UserError(f"{path} has no shards: run --shards first")
  kept: dict[str, np.ndarray] = {}
  base = starts[0]

  def load(number):
    name = names[number].string
    if name not in kept:
      kept.clear()
      try:
        with np.load(os.path.join(path, name)) as file:
          kept[name] = pixels(file["stored"], levels)
      except (OSError, ValueError, KeyError, EOFError) as error:
        raise UserError(
          f"{name} in {path} cannot be read ({error}): delete it and run --shards again"
        ) from None
      x = kept[name]
      if x.ndim != 4 or x.shape[3] not in (1, 3) or x.dtype != np.uint8:
        raise UserError(
          f"{name} in {path} holds {x.dtype} {list(x.shape)}, and images are uint8 [n, H, W, 1 or 3]"
        )
    return kept[name]

  def take(first, count):
    parts = []
    for number in range(len(names)):
      low, high = max(first, starts[number] - base), min(first + count, ends[number] - base + 1)
      if low < high:
        parts.append(load(number)[low + base - starts[number] : high + base - starts[number]])
    return np.concatenate(parts)

  with open(os.path.join(path, shards.MANIFEST)) as file:
    manifest = re.sub(r"\s+", " ", file.read())
  load(0)
  return Source(ends[-1] - base + 1, {"images": path, "manifest": manifest, "levels": levels}, take, rounding)


def pixels(stored: np.ndarray, levels: int) -> np.ndarray:
  """Stored pixels 0 .. levels-1 as grey levels 0 .. 255.

  >>> pixels(np.array([0, 8, 16]), 17).tolist()
  [0, 128, 255]
  """
  stored = np.asarray(stored)
  return stored if levels == 256 else np.floor(stored * (255 / (levels - 1)) + 0.5).astype(np.uint8)


class Remembered:
  """Images that are made once and kept on the disk until `forget`, for more than one reader."""

  def __init__(self, images: Images, folder: str) -> None:
    self.images, self.folder = images, folder

  @property
  def count(self) -> int:
    """How many there are."""
    return self.images.count

  @property
  def said(self) -> Mapping[str, Any]:
    """What and where they are."""
    return self.images.said

  def read(self, first: int, count: int) -> np.ndarray:
    """Grey levels of images `first` to `first + count - 1`."""
    path = os.path.join(self.folder, f"{first:09d}-{count}.npy")
    if os.path.exists(path):
      return np.load(path)
    os.makedirs(self.folder, exist_ok=True)
    found = self.images.read(first, count)
    with open(path + ".tmp", "wb") as file:
      np.save(file, found)
    os.replace(path + ".tmp", path)
    return found

  def forget(self) -> None:
    """Removes them from the disk."""
    import shutil

    shutil.rmtree(self.folder, ignore_errors=True)
