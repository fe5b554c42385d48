"""Images in folders and zips: class and split are read off the folders' names."""

import io
import os
from collections.abc import Mapping, Sequence

import numpy as np

from diffusion.config.errors import UserError
from diffusion.data import order, sources
from diffusion.data.archives import Folder, Zip, open_archive
from diffusion.data.dataset import Dataset, describe, size_pair
from diffusion.data.image_size import fit
from diffusion.data.named import names as data_names
from diffusion.data.sources import Augment, Record

ENDINGS = (".jpg", ".jpeg", ".png")
TRAIN = ("train", "training")
HELD_OUT = ("test", "testing", "held_out", "val", "valid", "validation")


def images(
  path: str,
  *,
  held_out_path: str = "",
  held_out: float = 0.1,
  image_size: int | Sequence[int] | None = None,
  channels: int | None = None,
  beside: Mapping[str, str] | None = None,
  condition: str | Sequence[str] | None = None,
  pair: str = "",
  num_classes: int | None = None,
  centered: bool = True,
  dequantization: str = "none",
  random_flip: bool = False,
  augment: Augment | str | None = None,
  name: str = "",
) -> Dataset:
  """JPEG and PNG files in a folder or a zip, or in a folder with one zip each for training and test.

  The class of an image is the name of the folder it lies in (`cat/001.png`); images that lie in no folder
  have none. Where the outermost folders are called train and test (or val), or two zips are, that is the
  split; else `held_out_path` is; else a fixed stratified share of `held_out` is kept apart.

  Args:
    path: folder or zip.
    held_out_path: another folder or zip with held-out images.
    held_out: share kept apart where the files name no split.
    image_size: a number or (height, width): all images are cropped at the centre and resized. None: they must
      agree.
    channels: 1 or 3: convert to grey or RGB. None: as the first image is.
    beside: folders or zips of images that belong to these, by the name that `condition` or `pair` gives them:
      `images("faces", beside={"low_resolution": "faces_small"}, condition=("low_resolution",))`. The image
      beside `a/1.png` has the same name there, whatever its ending, and is taken in its own size.
    condition, pair: see `npz`; None for the class.
    num_classes, centered, dequantization, random_flip, augment: see `describe`.
    name: for messages; default the path.
  Returns:
    `Dataset`. Decoded images are kept in memory if they fit into 1 GiB.
  Raises:
    UserError: for a missing path, a folder without images, images of mixed sizes, a damaged file.
  """
  path = os.path.expanduser(path)
  train, apart = _parts(path, os.path.expanduser(held_out_path) if held_out_path else "")
  class_names = sorted({one for one in train[1].values() if one is not None})
  numbers = {class_name: number for number, class_name in enumerate(class_names)}
  if apart is not None:
    unknown = sorted({one for one in apart[1].values() if one is not None} - set(class_names))
    if unknown:
      raise UserError(
        f"the held-out images of {path} have classes that training lacks, such as {unknown[0]!r}: rename or "
        "remove them"
      )
  size = size_pair(image_size) if image_size else None
  channels = channels or fit(_decode(train[0], min(train[1]))).shape[2]
  if channels not in (1, 3):
    raise UserError(f"channels={channels}, but image files are read as 1 (grey) or 3 (RGB) channels")
  told = {other: open_archive(os.path.expanduser(there)) for other, there in (beside or {}).items()}
  unknown = sorted({*data_names(condition), *data_names(pair)} - {*told, "label"})
  if unknown:
    raise UserError(
      f"'{unknown[0]}' is a condition or a pair of {path} and no folder holds it: add "
      f"beside={{'{unknown[0]}': FOLDER}}"
    )
  make = lambda part: ImageFiles(part[0], part[1], numbers, size, channels, told)
  if apart is not None:
    parts, split = (make(train), make(apart)), "the files' own training and test split"
  else:
    whole = make(train)
    kept, rest = order.split(len(whole), held_out, whole.label if class_names else None)
    parts = sources.Subset(whole, kept), sources.Subset(whole, rest)
    split = (
      f"fixed {'stratified ' if class_names else ''}split of one collection: {len(kept)} training and "
      f"{len(rest)} held-out images"
    )
  for part in parts:
    _check_sizes(part)
  return describe(
    name or path,
    *(sources.cached(part) if len(part) else part for part in parts),
    split=split,
    class_names=class_names,
    num_classes=num_classes,
    image_size=image_size,
    channels=channels,
    centered=centered,
    dequantization=dequantization,
    random_flip=random_flip,
    augment=augment,
    condition=condition,
    pair=pair,
  )


class ImageFiles:
  """Source of the images of an archive, with those of the same name in others beside them.

  Args:
    archive: `Folder` or `Zip`.
    classes: dict from file number to class name or None (label -1).
    numbers: dict from class name to label.
    size, channels: see `fit`.
    beside: dict from a name to the archive with the images of that name; UserError where one is missing.
  """

  def __init__(
    self,
    archive: Folder | Zip,
    classes: Mapping[int, str | None],
    numbers: Mapping[str, int],
    size: tuple[int, int] | None,
    channels: int,
    beside: Mapping[str, Folder | Zip] | None = None,
  ) -> None:
    self.archive, self.size, self.channels = archive, size, channels
    self.index = np.array(sorted(classes), dtype=np.int64)
    called = (classes[int(i)] for i in self.index)
    self.label = np.array([-1 if name is None else numbers[name] for name in called], dtype=np.int32)
    self.beside = {name: (other, self._places(name, other)) for name, other in (beside or {}).items()}

  def _places(self, name, other):
    """[n] file numbers, in another archive, of the images called like these."""
    there = {
      os.path.splitext(file)[0]: number
      for number, file in enumerate(other.names)
      if file.lower().endswith(ENDINGS)
    }
    called = [os.path.splitext(self.archive.names[i])[0] for i in self.index]
    missing = [file for file in called if file not in there]
    if missing:
      raise UserError(
        f"{other.path} has no image called {missing[0]} ({len(missing)} of {len(called)} are missing), which "
        f"'{name}' of each image must be: give every image its partner, under the same name"
      )
    return np.array([there[file] for file in called], dtype=np.int64)

  def __len__(self) -> int:
    return len(self.index)

  def __getitem__(self, index: int) -> Record:
    image = _decode(self.archive, int(self.index[index]))
    named = {name: fit(_decode(other, int(places[index]))) for name, (other, places) in self.beside.items()}
    return {"x": fit(image, self.size, self.channels), "label": int(self.label[index])} | named


def _decode(archive, number):
  from PIL import Image

  try:
    image = Image.open(io.BytesIO(archive.read(number)), formats=("JPEG", "PNG"))
    image.load()
    return image
  except OSError as error:
    raise UserError(
      f"{archive.names[number]} in {archive.path} is not a readable image ({error}): mend or remove it"
    ) from None


def _parts(path, held_out_path):
  """((archive, dict from file number to class or None), the same for held-out images or None) of a path."""
  if held_out_path:
    return _whole(open_archive(path)), _whole(open_archive(held_out_path))
  if os.path.isdir(path):
    zips = sorted(name for name in os.listdir(path) if name.lower().endswith(".zip"))
    if len(zips) == 1:
      return _parts(os.path.join(path, zips[0]), "")
    if zips:
      train, test = (
        [name for name in zips if any(word in name.lower() for word in words)] for words in (TRAIN, HELD_OUT)
      )
      if len(train) != 1 or len(test) != 1:
        raise UserError(
          f"{path} has the zips {', '.join(zips)}: name one with path=..., and the held-out one with "
          "held_out_path=..."
        )
      return tuple(_whole(Zip(os.path.join(path, names[0]))) for names in (train, test))
  archive = open_archive(path)
  parents = _parents(archive)
  depth = _shared(parents)
  tops = {
    number: folders[depth].lower() if len(folders) > depth else "" for number, folders in parents.items()
  }
  train = next((name for name in TRAIN if name in tops.values()), None)
  test = next((name for name in HELD_OUT if name in tops.values()), None)
  if not (train and test):
    return (archive, _classes(parents, depth)), None
  # The split's folder is not a class, hence the one level more.
  under = lambda name: {number: folders for number, folders in parents.items() if tops[number] == name}
  return (archive, _classes(under(train), depth + 1)), (archive, _classes(under(test), depth + 1))


def _whole(archive):
  """All images of an archive as one part."""
  parents = _parents(archive)
  return archive, _classes(parents, _shared(parents))


def _parents(archive):
  """dict from the number of each image file to the list of folders it lies in."""
  parents = {
    number: name.split("/")[:-1]
    for number, name in enumerate(archive.names)
    if name.lower().endswith(ENDINGS)
    and not name.startswith("__MACOSX/")
    and not name.split("/")[-1].startswith(".")
  }
  if not parents:
    raise UserError(f"{archive.path} holds no images ({', '.join(ENDINGS)}): check the path")
  return parents


def _shared(parents):
  """How many leading folders all images share: those say nothing about class or split."""
  return len(os.path.commonprefix(list(parents.values())))


def _classes(parents, depth):
  """dict from file number to class: the innermost folder below `depth`, or None."""
  return {number: folders[-1] if len(folders) > depth else None for number, folders in parents.items()}


def _check_sizes(source, count=64):
  """Compare some images spread over the source now, rather than meet another size in the middle of a run."""
  picks = (
    np.unique(np.linspace(0, len(source) - 1, min(count, len(source))).astype(int)) if len(source) else []
  )
  if len(picks):
    sources.stack([source[int(pick)] for pick in picks])
