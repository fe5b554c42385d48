"""Digits in black and white: the grey ones cut in two, whole numbers for the model."""

import numpy as np
import pytest

from diffusion import data
from diffusion.config.errors import UserError
from diffusion.data import sources


def test_pixels_are_ones_where_the_grey_ones_are_dark(folder):
  grey, binary = data.digits(folder), data.binary_digits(folder, threshold=5)
  assert (
    binary.shape == (8, 8, 1)
    and binary.num_classes == 10
    and binary.scaling.levels == 2
    and binary.scaling.dtype == np.int32
  )
  assert (len(binary.train), len(binary.held_out)) == (len(grey.train), len(grey.held_out))
  for rows in ([3, 0, 7], [5]):
    found, plain = sources.gather(binary.train, rows), sources.gather(grey.train, rows)
    np.testing.assert_array_equal(found["x"], plain["x"] >= 5)
    np.testing.assert_array_equal(found["label"], plain["label"])
  np.testing.assert_array_equal(binary.held_out[4]["x"], grey.held_out[4]["x"] >= 5)


def test_labels_can_be_ignored(folder):
  assert data.binary_digits(folder, num_classes=0).num_classes == 0
  with pytest.raises(UserError, match="has 10 classes"):
    data.binary_digits(folder, num_classes=7)
