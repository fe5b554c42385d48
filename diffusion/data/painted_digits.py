"""The 8x8 handwritten digits in colour.

Each in one random hue on black, a hue of which the grey picture tells nothing.
"""

import numpy as np
from numpy.typing import ArrayLike

from diffusion.data import random_streams, sources, uci_digits
from diffusion.data.dataset import Dataset, describe
from diffusion.data.sources import Record, Source

LEVELS = 256
_THIRDS = np.arange(3) / 3.0
_STEP = (LEVELS - 1) / 2.0 / 16.0  # of the mean of channels, for one of the 16 grey levels


def paint(grey: ArrayLike, hue: ArrayLike) -> np.ndarray:
  """Grey levels painted in a fully saturated hue.

  Channel c is g (1 + cos 2 pi (hue - c/3)) with g the level on 0 to 127.5, rounded. The three cosines add
  up to zero, so the mean of channels is g whatever the hue is, to half a value by rounding.

  Args:
    grey: [..., H, W, 1] levels 0 to 16; hue: [...] in turns, 0 red, 1/3 green, 2/3 blue.
  Returns:
    uint8 [..., H, W, 3].

  >>> paint(np.array([[[16]]]), np.array(0.0)).tolist(), paint(np.array([[[16]]]), np.array(0.5)).tolist()
  ([[[255, 64, 64]]], [[[0, 191, 191]]])
  """
  share = 1.0 + np.cos(2.0 * np.pi * (np.asarray(hue, np.float64)[..., None, None, None] - _THIRDS))
  return np.round(_STEP * np.asarray(grey, np.float64) * share).astype(np.uint8)


def grey_levels(x: ArrayLike) -> np.ndarray:
  """The grey levels 0 to 16 of painted digits: [..., H, W, 1] of [..., H, W, 3].

  They are exact: rounding is far less than a level.

  >>> grey_levels(paint(np.array([[[5]]]), np.array(0.1))).tolist()
  [[[5]]]
  """
  return np.round(np.mean(np.asarray(x), axis=-1, keepdims=True, dtype=np.float64) / _STEP).astype(np.uint8)


def chroma(x: ArrayLike) -> np.ndarray:
  """The chroma of colours as a complex number: [..., H, W].

  It is 2/3 sum_c x_c exp(2 pi i c / 3): of g painted in a hue it is g exp(2 pi i hue), of grey it is zero.

  Args:
    x: [..., H, W, 3] in the data's values.

  >>> abs(chroma(np.array([[[255, 0, 0], [7, 7, 7]]]))).round(6).tolist()
  [[170.0, 0.0]]
  """
  return np.asarray(x, np.float64) @ np.exp(2j * np.pi * _THIRDS) * (2.0 / 3.0)


class Painted:
  """A source whose images are the other's grey levels, each in a hue of its own.

  Args:
    source: of images [H, W, 1] with values 0 to 16.
    hue: [len(source)] in turns.
  """

  def __init__(self, source: Source, hue: ArrayLike) -> None:
    self.source, self.hue = source, np.asarray(hue)

  def __len__(self) -> int:
    return len(self.source)

  def __getitem__(self, index: int) -> Record:
    record = self.source[index]
    return {**record, "x": paint(record["x"], self.hue[index])}

  def gather(self, indices: np.ndarray) -> Record:
    """Records as stacked arrays."""
    found = sources.gather(self.source, indices)
    return {**found, "x": paint(found["x"], self.hue[indices])}


def repaint(record: Record, rng: np.random.Generator) -> Record:
  """A painted digit in another random hue: the augmentation of `color_digits`."""
  return {**record, "x": paint(grey_levels(record["x"]), np.array(rng.random()))}


def color_digits(
  data_dir: str = "", *, num_classes: int | None = None, centered: bool = True, dequantization: str = "none"
) -> Dataset:
  """The UCI handwritten digits in colour, 8x8x3 with values 0 to 255.

  They are those of `data.digits`, painted by `paint` in hues uniform on the circle. Hue is independent of
  digit and label, so given a grey picture it is still uniform: what a colourisation should give back. A
  stored image has one hue for ever; in training each digit takes a new one every time it is drawn.

  Args:
    data_dir: see `data.digits`.
    num_classes, centered, dequantization: see `describe`.
  Returns:
    `Dataset` with the split and the labels of `data.digits`.
  Raises:
    UserError: see `data.digits` and `describe`.
  """
  grey = uci_digits.digits(data_dir)
  counts = len(grey.train), len(grey.held_out)
  train, held_out = (
    random_streams.uniform(0, "hue", first, count) for first, count in zip((0, counts[0]), counts)
  )
  return describe(
    "color_digits",
    Painted(grey.train, train),
    Painted(grey.held_out, held_out),
    split=grey.split,
    class_names=grey.class_names,
    levels=LEVELS,
    num_classes=num_classes,
    centered=centered,
    dequantization=dequantization,
    augment=repaint,
  )
