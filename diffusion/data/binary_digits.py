"""The 8x8 handwritten digits in black and white, for models of bits."""

import numpy as np

from diffusion.data import sources, uci_digits
from diffusion.data.dataset import Dataset, describe
from diffusion.data.sources import Record, Source


class Binary:
  """A source whose images are 1 where the other's are `threshold` or more, else 0."""

  def __init__(self, source: Source, threshold: float) -> None:
    self.source, self.threshold = source, threshold

  def __len__(self) -> int:
    return len(self.source)

  def __getitem__(self, index: int) -> Record:
    record = self.source[index]
    return {**record, "x": (np.asarray(record["x"]) >= self.threshold).astype(np.uint8)}

  def gather(self, indices: np.ndarray) -> Record:
    """Records as stacked arrays."""
    found = sources.gather(self.source, indices)
    return {**found, "x": (found["x"] >= self.threshold).astype(np.uint8)}


def binary_digits(data_dir: str = "", *, threshold: float = 8, num_classes: int | None = None) -> Dataset:
  """The UCI handwritten digits with two values, categories 0 and 1.

  They are those of `data.digits`, with the grey levels 0 to 16 cut in two.

  Args:
    data_dir: see `data.digits`.
    threshold: grey levels from this one on are 1.
    num_classes: None for the ten digits, 0 to ignore the labels.
  Returns:
    `Dataset` with `Categories(2)`.
  Raises:
    UserError: see `data.digits`.
  """
  grey = uci_digits.digits(data_dir)
  return describe(
    "binary_digits",
    Binary(grey.train, threshold),
    Binary(grey.held_out, threshold),
    split=grey.split,
    class_names=grey.class_names,
    levels=2,
    num_classes=num_classes,
    dequantization="categories",
  )
