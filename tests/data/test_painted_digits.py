"""Digits in colour.

The mean of channels is the grey digit whatever the hue, and hues are uniform and the same for ever.
"""

import numpy as np
import pytest

from diffusion import data
from diffusion.config.errors import UserError
from diffusion.data import painted_digits, sources

GREY = np.arange(17, dtype=np.uint8).reshape(17, 1, 1, 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  return str(tmp_path_factory.mktemp("digits"))


def test_the_mean_of_channels_tells_the_level_and_nothing_of_the_hue():
  """1,000 hues of each of the 17 levels: the mean is 127.5 level / 16 to half a value, for rounding is at
  most half a value a channel."""
  hue = np.linspace(0.0, 1.0, 1000, endpoint=False)
  x = painted_digits.paint(GREY[None], hue[:, None] + np.zeros(17))
  assert x.dtype == np.uint8 and x.max() == 255
  np.testing.assert_allclose(
    x.mean(-1), np.broadcast_to(127.5 * GREY[None, ..., 0] / 16, x.shape[:-1]), atol=0.5 + 1e-9
  )
  np.testing.assert_array_equal(painted_digits.grey_levels(x), np.broadcast_to(GREY, (1000, *GREY.shape)))


def test_the_chroma_has_the_length_of_the_grey_and_the_angle_of_the_hue():
  """Each channel is off by at most half a value, so the chroma by at most 1 of the 127.5 of a full stroke; of
  grey it is zero."""
  hue = np.linspace(0.0, 1.0, 50, endpoint=False)
  full = painted_digits.chroma(painted_digits.paint(np.full((50, 1, 1, 1), 16), hue))[:, 0, 0]
  np.testing.assert_allclose(full, 127.5 * np.exp(2j * np.pi * hue), atol=1.0)
  np.testing.assert_allclose(painted_digits.chroma(np.full((1, 1, 3), 200)), 0.0, atol=1e-12)
  # One channel alone is its third of the circle, at two thirds of its length.
  np.testing.assert_allclose(painted_digits.chroma([0.0, 0.0, 3.0]), 2.0 * np.exp(4j * np.pi / 3), atol=1e-12)


def test_every_digit_is_the_grey_one_in_one_hue(folder):
  grey, color = data.digits(folder), data.color_digits(folder)
  assert (
    color.shape == (8, 8, 3)
    and color.num_classes == 10
    and color.scaling.levels == 256
    and color.split == grey.split
  )
  for part, plain in ((color.train, grey.train), (color.held_out, grey.held_out)):
    found, known = data.load(part), data.load(plain)
    np.testing.assert_array_equal(painted_digits.grey_levels(found["x"]), known["x"])
    np.testing.assert_array_equal(found["label"], known["label"])
    z = painted_digits.chroma(found["x"])
    # |sum z| = sum |z| only where all pixels have one angle.
    np.testing.assert_allclose(np.abs(z.sum((1, 2))), np.abs(z).sum((1, 2)), rtol=2e-3)
  for rows in ([3, 0, 7], [5]):
    np.testing.assert_array_equal(
      sources.gather(color.train, rows)["x"], np.stack([color.train[row]["x"] for row in rows])
    )


def test_hues_are_uniform_and_stay(folder):
  """Of 1,438 uniform angles |mean exp(i angle)| squared is exponential with mean 1/1438: below 8 times that
  with 99.97% confidence, held-out ones alike."""
  first, again = data.color_digits(folder), data.color_digits(folder)
  for part, other in ((first.train, again.train), (first.held_out, again.held_out)):
    np.testing.assert_array_equal(part.hue, other.hue)
    assert len(part) * np.abs(np.mean(np.exp(2j * np.pi * part.hue))) ** 2 < 8.0
  assert not np.array_equal(first.train.hue[:359], first.held_out.hue)


def test_a_batch_paints_digits_anew_and_the_same_ones_again(folder):
  color, grey = data.color_digits(folder, dequantization="uniform"), data.digits(folder)
  batch, same = (next(data.stream(color, 128, 3, num_threads=0)) for _ in range(2))
  np.testing.assert_array_equal(batch["x"], same["x"])
  stored, plain = (
    color.scaling.to_data(batch["x"]),
    grey.scaling.to_data(next(data.stream(grey, 128, 3, num_threads=0))["x"]),
  )
  np.testing.assert_array_equal(painted_digits.grey_levels(stored), plain)
  epoch = [next(iterator)["x"] for iterator in [data.stream(color, 1438, 3, num_threads=0)] for _ in range(2)]
  angles = [np.sort(np.angle(painted_digits.chroma(color.scaling.to_data(x)).sum((1, 2)))) for x in epoch]
  assert np.abs(angles[0] - angles[1]).max() > 1e-3


def test_labels_can_be_ignored(folder):
  assert data.color_digits(folder, num_classes=0).num_classes == 0
  with pytest.raises(UserError, match="has 10 classes"):
    data.color_digits(folder, num_classes=7)
