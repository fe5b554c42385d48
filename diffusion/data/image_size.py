"""One image to one size and channel count: centre crop to the shape's proportions, then resize."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
  from PIL import Image
from diffusion.data.sources import Record, Source

GREY = ("L", "1", "I", "I;16", "LA")
"""Pillow's modes of grey PNG and JPEG files; those with an I have 16 bits."""


def fit(
  image: "np.ndarray | Image.Image", size: tuple[int, int] | None = None, channels: int | None = None
) -> np.ndarray:
  """Crop, resize and convert one image.

  Args:
    image: uint8 array [H, W, C] or a Pillow image.
    size: (height, width), or None to leave the size.
    channels: 1 (grey) or 3 (RGB), or None: grey stays grey, everything else becomes RGB (transparency is
      dropped).
  Returns:
    uint8 array [height, width, channels].

  >>> fit(np.zeros((6, 9, 1), np.uint8), size=(4, 4), channels=3).shape
  (4, 4, 3)
  """
  from PIL import Image

  if isinstance(image, np.ndarray):
    if (size is None or image.shape[:2] == size) and channels in (None, image.shape[2]):
      return image
    image = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
  mode = {1: "L", 3: "RGB"}[channels or (1 if image.mode in GREY else 3)]
  if image.mode.startswith("I"):  # Pillow's own conversion cuts 16 bits at 255
    image = Image.fromarray(np.round(np.asarray(image) / 257.0).astype(np.uint8))
  if image.mode != mode:
    image = image.convert(mode)
  if size is not None and (image.height, image.width) != size:
    height, width = size
    scale = min(image.height / height, image.width / width)  # the largest box of the wanted proportions
    box_width, box_height = width * scale, height * scale
    left, top = (image.width - box_width) / 2, (image.height - box_height) / 2
    box = (left, top, left + box_width, top + box_height)
    image = image.resize((width, height), Image.Resampling.LANCZOS, box=box)
  array = np.asarray(image, dtype=np.uint8)
  return array[..., None] if array.ndim == 2 else array


class Fitted:
  """A source of images with `levels` pixel values, all fitted to one size."""

  def __init__(
    self, source: Source, size: tuple[int, int] | None, channels: int | None, levels: int = 256
  ) -> None:
    self.source, self.size, self.channels, self.levels = source, size, channels, levels

  def __len__(self) -> int:
    return len(self.source)

  def __getitem__(self, index: int) -> Record:
    record = self.source[index]
    x = fit(record["x"], self.size, self.channels)
    # Resizing overshoots at edges; Pillow clips at 255 only.
    return record | {"x": np.minimum(x, self.levels - 1).astype(np.uint8) if self.levels < 256 else x}
