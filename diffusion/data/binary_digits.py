"""The 8x8 handwritten digits in black and white, for models of bits."""

from diffusion.data import uci_digits
from diffusion.data.black_and_white import Cut
from diffusion.data.dataset import Dataset, describe


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
    Cut(grey.train, threshold),
    Cut(grey.held_out, threshold),
    split=grey.split,
    class_names=grey.class_names,
    levels=2,
    num_classes=num_classes,
    dequantization="categories",
  )
