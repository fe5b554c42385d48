"""The gallery.

The page is the one that its script writes, and what it measures of hues is right where these are known.
"""

import importlib.util
import pathlib

import numpy as np
import pytest

from diffusion.data.painted_digits import paint

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture(scope="module")
def gallery():
  spec = importlib.util.spec_from_file_location("gallery", ROOT / "docs" / "gallery.py")
  script = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(script)
  return script


def test_the_page_is_what_the_script_writes_but_for_what_commands_said(gallery):
  """Every section in order: heading, command, picture and sentence; every picture is there."""
  page = (ROOT / "docs" / "gallery.md").read_text()
  assert page.startswith(gallery.HEAD)
  place = len(gallery.HEAD)
  pictures = [*gallery.pictures("runs/digits", "runs/digits_color", "runs/mnist"), *gallery.CLAIMED]
  for picture in pictures:
    line = (
      picture.made
      if picture.flags is None
      else f"python sample.py {picture.flags} --out=docs/gallery/{picture.name}"
    )
    place = page.index(gallery.section(picture, line, "").rstrip("\n"), place)
    assert (ROOT / "docs" / "gallery" / f"{picture.name}.png").is_file()
  assert page.count("\n## ") == len(pictures)


def test_hues_of_exact_draws_are_uniform_and_one_an_image(gallery):
  """64 uniform hues for each of 50 images: circular variance 1 - sqrt(pi / 64) / 2 to 0.024 (the resultant's
  deviation 0.058 / sqrt(50), three times)."""
  rng = np.random.default_rng(0)
  grey = rng.integers(0, 17, size=(50, 1, 8, 8, 1)) * np.ones((1, 64, 1, 1, 1), int)
  spread, hit, one, strong = gallery.hues(paint(grey, rng.random((50, 64))))
  assert abs(spread - (1.0 - np.sqrt(np.pi / 64) / 2)) < 0.025
  # Bins hit by 64 of 24 alike: 1 - (23/24)^64 = 0.934, and 0.044 the deviation of an image's share, 0.0063
  # that of the mean: three times.
  assert abs(hit - (1.0 - (23 / 24) ** 64)) < 0.019
  assert one > 0.999 and abs(strong - 1.0) < 2e-3


def test_hues_tell_what_is_wrong(gallery):
  """One hue for all draws has no variance; two opposite halves of an image have none; half painted and half
  grey is half saturated."""
  grey = np.full((3, 64, 8, 8, 1), 16)
  spread, hit, _, _ = gallery.hues(paint(grey, np.full((3, 64), 0.3)))
  assert spread < 1e-9 and hit == 1 / 24
  x = np.array(paint(grey, np.full((3, 64), 0.3)), np.float64)
  x[..., :4, :, :] = paint(grey, np.full((3, 64), 0.8))[..., :4, :, :]
  assert gallery.hues(x)[2] < 5e-3  # each channel is rounded
  x[..., :4, :, :] = 127.5
  assert abs(gallery.hues(x)[3] - 0.5) < 5e-3
