"""What a data factory returns: two sources and what the rest of the program must know about them."""

import dataclasses
from collections.abc import Sequence
from typing import cast

import numpy as np

from diffusion.data.scaling import AnyScaling, Categories, Scaling, Standardize
from diffusion.data.sources import Augment, Source, load
from diffusion.errors import UserError
from diffusion.factories import resolve


@dataclasses.dataclass(frozen=True)
class Dataset:
  """A data set, on the host.

  Attributes:
    name: for messages.
    train, held_out: sources of dict(x=stored values, label=int); `held_out` may be empty.
    shape: shape of one x: (H, W, C) or (D,).
    num_classes: number of classes, 0 for a data set without labels.
    class_names: their names, () if there are none.
    scaling: `Scaling`, `Categories` or `Standardize`, between stored and model values.
    split: one sentence saying what is held out.
    random_flip: whether training images are mirrored left to right with probability 1/2.
    augment: None or a function (record, numpy Generator) -> record on stored values.
  """

  name: str
  train: Source
  held_out: Source
  shape: tuple[int, ...]
  num_classes: int
  class_names: tuple[str, ...]
  scaling: AnyScaling
  split: str
  random_flip: bool = False
  augment: Augment | None = None


def describe(
  name: str,
  train: Source,
  held_out: Source,
  *,
  split: str,
  class_names: Sequence[str] = (),
  levels: int = 256,
  num_classes: int | None = None,
  image_size: int | Sequence[int] | None = None,
  channels: int | None = None,
  centered: bool = True,
  dequantization: str = "none",
  random_flip: bool = False,
  augment: Augment | str | None = None,
) -> Dataset:
  """Put a `Dataset` together and check what the config asked for against what the data are.

  Args:
    name, train, held_out, split, class_names: see `Dataset`.
    levels: number of pixel values of whole-numbered data.
    num_classes: None for what is found, 0 to ignore the labels, or the expected number.
    image_size, channels: expected size (a number, or height and width) and channels; None or 0 accepts what
      is found.
    centered, dequantization: see `diffusion.data.scaling`.
    random_flip, augment: see `Dataset`; augment may be a dotted path 'package.module.function'.
  Raises:
    UserError: for an empty data set or where expectation and data differ.
  """
  if not len(train):
    raise UserError(f"{name} has no training records: check its path and its split")
  first = np.asarray(train[0]["x"])
  shape = first.shape
  if image_size and len(shape) == 3 and shape[:2] != size_pair(image_size):
    raise UserError(
      f"{name} has images of {shape[0]}x{shape[1]}, but image_size={image_size}: set image_size to match"
    )
  if channels and len(shape) == 3 and shape[2] != channels:
    raise UserError(f"{name} has {shape[2]} channel(s), but channels={channels}: set channels={shape[2]}")
  if random_flip and len(shape) != 3:
    raise UserError(
      f"random_flip mirrors images, but the records of {name} have shape {shape}: set random_flip=False"
    )
  found = len(class_names)
  if num_classes and num_classes != found:
    raise UserError(
      f"{name} has {found} classes, but num_classes={num_classes}: set num_classes={found}, or 0 for no "
      "labels"
    )
  if np.issubdtype(first.dtype, np.integer):
    try:
      scaling = (
        Categories(levels) if dequantization == "categories" else Scaling(levels, centered, dequantization)
      )
    except ValueError as error:
      raise UserError(str(error)) from None
  else:
    scaling = standardize_source(train)
  return Dataset(
    name=name,
    train=train,
    held_out=held_out,
    shape=shape,
    num_classes=0 if num_classes == 0 else found,
    class_names=() if num_classes == 0 else tuple(class_names),
    scaling=scaling,
    split=split,
    random_flip=bool(random_flip),
    augment=resolve(augment, "config.data.augment")
    if isinstance(augment, str) and augment
    else augment or None,
  )


def standardize_source(source: Source) -> Standardize:
  """`Standardize` by the scalar mean and deviation of a source in memory."""
  x = np.asarray(load(source)["x"], dtype=np.float64)
  return Standardize(float(x.mean()), float(x.std()) or 1.0)


def size_pair(image_size: int | Sequence[int]) -> tuple[int, int]:
  """(height, width) from a number or a pair."""
  sides = cast(Sequence[int], (image_size,) * 2 if np.ndim(image_size) == 0 else image_size)
  return cast(tuple[int, int], tuple(int(n) for n in sides))
