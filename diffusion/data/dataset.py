"""What a data factory returns: two sources and what the rest of the program must know about them."""

import dataclasses
import typing
from collections.abc import Mapping, Sequence

import numpy as np

from diffusion.config.errors import UserError
from diffusion.config.factories import resolve
from diffusion.data.named import (
  ArraySpec,
  NamedArray,
  condition as condition_of,
  encode,
  names,
  other_half,
  standardize,
)
from diffusion.data.scaling import AnyScaling, Categories, Scaling, Standardize
from diffusion.data.sources import Augment, Source, load


@dataclasses.dataclass(frozen=True)
class Dataset:
  """A data set, on the host.

  A batch of B examples holds `x` [B, *shape]; in `cond` the `label` [B] int32 where there are classes, and
  each of `conditions` by its name ([B, h, w, C] float32 of pixels, [B, ...] int32 of other whole numbers,
  [B, ...] float32 of real ones); and `x1` [B, ...], the other half of a pair. `batch_shapes` says it by name.

  Attributes:
    name: for messages.
    train, held_out: sources of dict(x=stored values, label=int) and further arrays by name; `held_out` may be
      empty.
    shape: shape of one x, channels last: (D,), (L, C), (H, W, C) or (D, H, W, C).
    num_classes: number of classes, 0 for a data set without labels.
    class_names: their names, () if there are none.
    scaling: `Scaling`, `Categories`, `Text` or `Standardize`, between stored and model values.
    split: one sentence saying what is held out.
    random_flip: whether training images are mirrored left to right with probability 1/2, all arrays [H, W, C]
      of a record alike.
    augment: None or a function (record, numpy Generator) -> record on stored values.
    conditions: `NamedArray`s that the network is told besides the label.
    pair: the `NamedArray` that is the other half of a pair, or None.
    present: the classes that training records have, () for all of them: labels may begin at one or leave
      numbers out.
    notes: sentences on what was found in the data and may not be what was meant.
    digest: SHA-256 of all that models are trained and measured on, where it is known: results of equal
      digests are comparable.
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
  conditions: tuple[NamedArray, ...] = ()
  pair: NamedArray | None = None
  present: tuple[int, ...] = ()
  notes: tuple[str, ...] = ()
  digest: str = ""

  @property
  def batch_shapes(self) -> dict[str, typing.Any]:
    """`ArraySpec`s, shape of one example and type, by name as in a batch."""
    found: dict[str, typing.Any] = {"x": ArraySpec(tuple(self.shape), self.scaling.dtype)}
    cond = {"label": ArraySpec((), np.dtype(np.int32))} if self.num_classes else {}
    cond |= {one.name: one.spec for one in self.conditions}
    if self.pair is not None:
      found["x1"] = self.pair.spec
    return found | ({"cond": cond} if cond else {})

  @property
  def conditional(self) -> bool:
    """Whether the network is told anything."""
    return bool(self.num_classes or self.conditions)

  @property
  def classes(self) -> tuple[int, ...]:
    """The classes that training records have, () without labels: those that samples are drawn of."""
    return tuple(self.present) or tuple(range(self.num_classes))

  @property
  def said(self) -> str:
    """What is held out, the digest, and the notes."""
    return "; ".join([self.split, *([f"SHA-256 {self.digest}"] if self.digest else []), *self.notes])

  def encode(
    self, records: Mapping[str, np.ndarray], noise: np.ndarray | None = None
  ) -> dict[str, typing.Any]:
    """Stacked records [n, ...] as a batch; see `named.encode`."""
    return encode(
      records,
      self.scaling,
      num_classes=self.num_classes,
      conditions=self.conditions,
      pair=self.pair,
      noise=noise,
    )


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
  condition: str | Sequence[str] | None = None,
  pair: str = "",
  present: Sequence[int] = (),
  notes: Sequence[str] = (),
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
    condition: names of what the network is told, 'label' and any other array of the records; None for the
      label where there is one. Names in one text are parted by commas.
    pair: name of the array that is the other half of a pair, '' for none.
    present, notes: see `Dataset`.
  Raises:
    UserError: for an empty data set or where expectation and data differ.
  """
  if not len(train):
    raise UserError(f"{name} has no training records: check its path and its split")
  first = np.asarray(train[0]["x"])
  if isinstance(augment, str):
    augment = typing.cast(Augment, resolve(augment, "config.data.augment")) if augment else None
  told = names(condition)
  if condition is not None and "label" not in told:
    num_classes = 0
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
  if "label" in told and (num_classes == 0 or not found):
    raise UserError(
      f"condition names 'label', but {name} has no classes"
      + (": leave out num_classes=0" if found else ": leave it out, or give the records labels")
    )
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
  try:
    conditions = tuple(condition_of(one, train, levels, centered) for one in told if one != "label")
  except ValueError as error:
    raise UserError(str(error)) from None
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
    augment=augment,
    conditions=conditions,
    pair=other_half(pair, train, scaling) if pair else None,
    present=() if num_classes == 0 else tuple(int(one) for one in present),
    notes=tuple(notes),
  )


def standardize_source(source: Source) -> Standardize:
  """`Standardize` by the scalar mean and deviation of a source in memory."""
  return standardize(load(source)["x"])


def size_pair(image_size: int | Sequence[int]) -> tuple[int, int]:
  """(height, width) from a number or a pair."""
  height, width = np.broadcast_to(image_size, 2)
  return int(height), int(width)
