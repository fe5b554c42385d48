"""Any TFDS data set by its name, read through its random-access files and so without TensorFlow."""

import os
from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from diffusion.config.errors import UserError
from diffusion.data import order, sources
from diffusion.data.dataset import Dataset, describe, size_pair
from diffusion.data.image_files import images
from diffusion.data.image_size import Fitted
from diffusion.data.sources import Augment, Record


def tfds(
  name: str,
  path: str = "",
  *,
  data_dir: str = "",
  download: bool = False,
  train_split: str = "train",
  held_out_split: str = "",
  held_out: float = 0.1,
  x_key: str = "",
  label_key: str = "",
  levels: int = 256,
  image_size: int | Sequence[int] | None = None,
  channels: int | None = None,
  num_classes: int | None = None,
  centered: bool = True,
  dequantization: str = "none",
  random_flip: bool = False,
  augment: Augment | str | None = None,
) -> Dataset:
  """A TFDS data set that was prepared as ArrayRecord, or the same images from files.

  Args:
    name: TFDS's name, such as 'cifar10'.
    path: if given, a folder or zip of image files to read instead, see `images`.
    data_dir: where prepared data sets live; default $TFDS_DATA_DIR or ~/tensorflow_datasets.
    download: fetch and prepare the data set first if it is not there.
    train_split, held_out_split: TFDS's split names ('train[:90%]' too); '' takes 'test' or 'validation', and
      a fixed share of `held_out` where there is neither.
    x_key, label_key: names of the features; '' takes the data set's supervised pair, or the only image and
      label.
    levels: number of pixel values.
    image_size, channels, num_classes, centered, dequantization, random_flip, augment: see `images`.
  Returns:
    `Dataset`. Decoded records are kept in memory if they fit into 1 GiB.
  Raises:
    UserError: for a data set that is not prepared as ArrayRecord (saying how to), an unknown name, split or
      feature.
  """
  options: dict[str, Any] = dict(
    image_size=image_size,
    channels=channels,
    num_classes=num_classes,
    centered=centered,
    dequantization=dequantization,
    random_flip=random_flip,
    augment=augment,
  )
  if path:
    return images(path, held_out=held_out, name=f"{name} from {path}", **options)
  builder = _builder(name, data_dir, download)
  x_key, label_key = _features(builder.info, x_key, label_key)
  label_feature = cast(Any, builder.info.features)[label_key] if label_key else None
  class_names = tuple(
    getattr(label_feature, "names", None) or map(str, range(getattr(label_feature, "num_classes", 0) or 0))
  )
  held_out_split = held_out_split or next(
    (part for part in ("test", "validation") if part in builder.info.splits), ""
  )
  size = size_pair(image_size) if image_size else None
  read = lambda part: _read(builder, part, x_key, label_key, size, channels, levels)
  train = read(train_split)
  if held_out_split:
    parts, split = (train, read(held_out_split)), f"TFDS splits {train_split} and {held_out_split}"
  else:
    kept, rest = order.split(len(train), held_out)
    parts = sources.Subset(train, kept), sources.Subset(train, rest)
    split = f"fixed split of {train_split}: {len(kept)} training and {len(rest)} held-out records"
  cached = [sources.cached(part) if len(part) else part for part in parts]
  return describe(name, *cached, split=split, class_names=class_names, levels=levels, **options)


class Records:
  """TFDS's records as dict(x, label).

  Args:
    data_source: TFDS's random-access source.
    x_key, label_key: feature names; label_key '' for none.
  """

  def __init__(self, data_source: Any, x_key: str, label_key: str = "") -> None:
    self.data_source, self.x_key, self.label_key = data_source, x_key, label_key

  def __len__(self) -> int:
    return len(self.data_source)

  def __getitem__(self, index: int) -> Record:
    record = self.data_source[int(index)]
    return {
      "x": np.asarray(record[self.x_key]),
      "label": int(record[self.label_key]) if self.label_key else -1,
    }


def _builder(name, data_dir, download):
  try:
    import tensorflow_datasets as library
  except ImportError as error:
    raise UserError(
      f"TFDS data sets need the package tensorflow-datasets ({error}): pip install 'jax-diffusion[train]'"
    ) from None
  where = os.path.expanduser(data_dir) if data_dir else None
  try:
    builder = library.builder(name, data_dir=where)
  except Exception as error:  # TFDS has many kinds: unknown name, package missing, bad config
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    raise UserError(
      f"TFDS has no data set {name!r} that can be used here ({reason}): check the name, or read files with "
      "path=..."
    ) from None
  random_access = {"array_record", "parquet"}
  formats = (
    {found.value for found in builder.info.available_file_formats()} if builder.is_prepared() else set()
  )
  if not formats & random_access:
    make = f"tfds.builder({name!r}, data_dir={where!r}, file_format='array_record').download_and_prepare()"
    if formats:
      raise UserError(
        f"{name} in {builder.data_path} is stored as {', '.join(sorted(formats))}, which cannot be read "
        f"without TensorFlow: prepare it into another data_dir by {make}, or read files with path=..."
      )
    if not download:
      raise UserError(
        f"{name} is not prepared in {builder.data_path}: run {make}, or set download=True "
        "(--config.data.download=true), or read files with path=..."
      )
    builder = library.builder(name, data_dir=where, file_format="array_record")
    try:
      builder.download_and_prepare()
    except Exception as error:
      raise UserError(
        f"{name} could not be fetched and prepared ({error}): try again, or read files with path=..."
      ) from error
  return builder


def _features(info, x_key, label_key):
  """The names of the features to use."""
  features = dict(info.features.items())
  pair = (
    info.supervised_keys
    if isinstance(info.supervised_keys, tuple) and len(info.supervised_keys) == 2
    else ("", "")
  )
  images = [key for key, feature in features.items() if type(feature).__name__ == "Image"]
  x_key = x_key or (pair[0] if pair[0] in features else "") or (images[0] if len(images) == 1 else "")
  guess = pair[1] if pair[1] in features else "label"
  label_key = label_key or (guess if hasattr(features.get(guess), "num_classes") else "")
  if x_key not in features or (label_key and label_key not in features):
    raise UserError(
      f"{info.name} has the features {', '.join(features)}: name the ones to use with x_key=... and "
      "label_key=..."
    )
  return x_key, label_key


def _read(builder, part, x_key, label_key, size, channels, levels):
  try:
    source = Records(builder.as_data_source(part), x_key, label_key)
  except Exception as error:  # ValueError, KeyError, AssertionError, depending on the mistake
    raise UserError(
      f"{builder.info.name} has no split {part!r} ({error}): it has {', '.join(builder.info.splits)}"
    ) from None
  if size or channels:
    source = Fitted(source, size, channels, levels)
  return source
