"""Grey images in black and white: draws with the grey as a probability, once for each image."""

import numpy as np
import pytest

from diffusion import data
from diffusion.config.errors import UserError


def test_pixels_are_ones_as_often_as_they_are_dark():
  levels, count = np.array([0, 3, 8, 16]), 4000
  x = np.broadcast_to(levels[None, :, None, None], (count, 4, 1, 1)).astype(np.uint8)
  grey = data.describe("greys", data.Arrays(x), data.Arrays(x[:50]), split="none", levels=17)
  found = data.black_and_white(grey, seed=3)
  drawn = found.train.gather(np.arange(count))["x"]
  share, expected = drawn.mean(axis=0)[:, 0, 0], levels / 16
  assert set(np.unique(drawn)) == {0, 1} and share[0] == 0 and share[3] == 1
  # five standard errors
  assert (np.abs(share - expected) <= 5 * np.sqrt(expected * (1 - expected) / count)).all()
  np.testing.assert_array_equal(found.train.gather([7, 2])["x"], drawn[[7, 2]])
  np.testing.assert_array_equal(found.train[7]["x"], drawn[7])
  assert (found.held_out.gather(np.arange(50))["x"] != drawn[:50]).any()
  assert next(data.stream(found, 4, 0, num_threads=0))["x"].dtype == np.int32
  cut = data.black_and_white(grey, threshold=8).train[0]["x"]
  assert cut.ravel().tolist() == [0, 0, 1, 1]


def test_what_has_no_levels_is_refused():
  real = data.describe("real", data.Arrays(np.zeros((4, 2, 2, 1), np.float32)), [], split="none")
  with pytest.raises(UserError, match="whole-numbered levels"):
    data.black_and_white(real)
