"""Pictures.

They are written whole, hold what they were given at the right place, and refuse what they cannot show.
"""

import os
import sys

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from diffusion import metrics, pictures
from diffusion.config.errors import UserError
from diffusion.pictures import curves, grids, sheets


@pytest.fixture(scope="module")
def digits():
  images, labels = load_digits(return_X_y=True)
  return (images / 8.0 - 1.0).reshape(-1, 8, 8, 1), labels


def opened(path):
  with Image.open(path) as image:
    image.load()
    return np.asarray(image.convert("RGB")).astype(int)


def panels(pixels, colour):
  """Number of separate frames of one colour: connected components of the pixels close to it."""
  from scipy import ndimage

  target = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
  close = np.abs(pixels - target).sum(axis=-1) < 30
  components, count = ndimage.label(close, structure=np.ones((3, 3)))
  sizes = ndimage.sum(close, components, range(1, count + 1))
  return int(np.sum(sizes > 100))


def test_image_grid_places_every_pixel(tmp_path):
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, size=(5, 3, 4, 3))
  pixels = pictures.image_grid(images, tmp_path / "grid.png", columns=2, value_range=(0, 255), scale=2, gap=1)
  np.testing.assert_array_equal(opened(tmp_path / "grid.png"), pixels)
  assert pixels.shape == (1 + 3 * 7, 1 + 2 * 9, 3)
  for index, image in enumerate(images):
    top, left = 1 + index // 2 * 7, 1 + index % 2 * 9
    np.testing.assert_array_equal(pixels[top : top + 6 : 2, left : left + 8 : 2], image)
  assert (pixels[15:, 10:] == 255).all()  # the sixth place is empty


def test_values_outside_the_range_are_cut_and_nan_stands_out():
  pixels = sheets.to_bytes(np.array([-9.0, -1.0, 0.0, 1.0, 9.0, np.nan]).reshape(1, 6, 1), (-1.0, 1.0))[0]
  np.testing.assert_array_equal(pixels[:, 0], [0, 0, 128, 255, 255, 255])
  np.testing.assert_array_equal(pixels[5], [255, 0, 255])


def test_sample_grid_shows_every_pair_once(tmp_path, digits):
  images, labels = digits
  samples, train = images[:300], images[300:]
  nearest = train[metrics.nearest_neighbours(samples, train).indices]
  pictures.sample_grid(tmp_path / "samples.png", samples, labels[:300], nearest, per_class=4)
  pixels = opened(tmp_path / "samples.png")
  # 10 classes x 4 pairs, and the two squares of the legend.
  assert panels(pixels, sheets.SAMPLE) == 41
  assert panels(pixels, sheets.TRAINING) == 41
  assert (
    (pixels[:, 0] == 255).all()
    and (pixels[:, -1] == 255).all()
    and (pixels[0] == 255).all()
    and (pixels[-1] == 255).all()
  )


@pytest.mark.parametrize("shape", [(6, 10, 3), (12, 5, 1), (40, 2)])
def test_other_shapes_and_class_names(tmp_path, shape):
  items = np.random.default_rng(1).uniform(-1, 1, size=(12, *shape))
  names = {0: "aeroplane", 1: "automobile", 2: "very long name of a class"}
  pictures.sample_grid(tmp_path / "pairs.png", items, np.arange(12) % 3, items[::-1], names)
  pixels = opened(tmp_path / "pairs.png")
  assert panels(pixels, sheets.TRAINING) == 13
  assert (pixels[:, :3] == 255).all()  # the longest name is not cut
  pictures.sample_grid(tmp_path / "plain.png", items)
  assert opened(tmp_path / "plain.png").std() > 5
  assert pictures.image_grid(items).std() > 5
  pictures.trajectory(
    tmp_path / "way.png", np.stack([50 * items[:3], items[:3]]), [50.0, 0.0], labels=[0, 1, -1]
  )
  assert opened(tmp_path / "way.png").std() > 5


def test_trajectory_keeps_ends_and_looks_closer_where_much_happens(tmp_path, digits):
  images, labels = digits
  sigma = np.concatenate([np.geomspace(80.0, 0.01, 39), [0.0]])
  noise = np.random.default_rng(2).normal(size=(4, 8, 8, 1))
  states = np.stack([images[:4] + level * noise for level in sigma])
  chosen = grids._key_states(states, (-1.0, 1.0), 10)
  assert chosen[0] == 0 and chosen[-1] == 39 and 5 < len(chosen) <= 10
  busy = (sigma > 0.1) & (sigma < 5.0)
  assert busy[chosen].mean() > busy.mean()
  pictures.trajectory(tmp_path / "trajectory.png", states, sigma, labels[:4])
  # The noisy end is shown at reduced contrast, hence neither all black nor all white.
  assert grids._contrast(states[0], (-1.0, 1.0)) > 50 and grids._contrast(states[-1], (-1.0, 1.0)) == 1.0
  assert opened(tmp_path / "trajectory.png").std() > 20


def test_loss_curve_scatter_and_repeated_writing(tmp_path):
  path = tmp_path / "loss.png"
  steps = np.arange(500)
  losses = np.exp(-steps / 50.0) + 0.01
  losses[7] = np.nan
  pictures.loss_curve(path, steps, losses, heldout=([100, 400], [0.3, 0.02]))
  first = opened(path)
  pictures.loss_curve(path, [0], [-1.0])
  assert first.shape == opened(path).shape and (first != opened(path)).any()
  points = np.random.default_rng(3).normal(size=(400, 2))
  pictures.scatter2d(tmp_path / "points.png", 9.0 * points, points)
  assert opened(tmp_path / "points.png").std() > 5
  assert sorted(os.listdir(tmp_path)) == ["loss.png", "points.png"]  # no temporary file is left


def test_running_mean_keeps_lines():
  line = 3.0 + 0.5 * np.arange(50)
  np.testing.assert_allclose(curves.running_mean(line, 4)[4:-4], line[4:-4])
  np.testing.assert_allclose(curves.running_mean(np.ones(5), 100), 1.0)


def test_drawing_leaves_pyplot_alone(tmp_path):
  before = "matplotlib.pyplot" in sys.modules
  pictures.loss_curve(tmp_path / "loss.png", [0, 1], [2.0, 1.0])
  assert ("matplotlib.pyplot" in sys.modules) == before


def test_errors(tmp_path):
  image = np.zeros((2, 4, 4, 1))
  for draw in (
    lambda path: pictures.image_grid(image, path),
    lambda path: pictures.sample_grid(path, image),
    lambda path: pictures.trajectory(path, image[None], [0.0]),
    lambda path: pictures.loss_curve(path, [0], [1.0]),
    lambda path: pictures.scatter2d(path, np.zeros((3, 2)), np.ones((3, 2))),
  ):
    with pytest.raises(UserError, match="the directory .*missing does not exist"):
      draw(tmp_path / "missing" / "picture.png")
  with pytest.raises(UserError, match="No space left"):
    pictures.sheets.write(tmp_path / "full.png", full_disk)
  assert os.listdir(tmp_path) == []
  with pytest.raises(ValueError, match="4 channels"):
    pictures.image_grid(np.zeros((2, 4, 4, 4)))
  with pytest.raises(ValueError, match="one training datum for each"):
    pictures.sample_grid(tmp_path / "a.png", image, neighbours=image[:1])
  with pytest.raises(ValueError, match="one label for each"):
    pictures.sample_grid(tmp_path / "a.png", image, labels=[1])
  with pytest.raises(ValueError, match="noise_levels"):
    pictures.trajectory(tmp_path / "a.png", image[None], [0.0, 1.0])
  with pytest.raises(ValueError, match="no finite loss"):
    pictures.loss_curve(tmp_path / "a.png", [0], [np.nan])
  with pytest.raises(ValueError, match="low < high"):
    pictures.image_grid(image, value_range=(1.0, 1.0))


def full_disk(path):
  raise OSError(28, "No space left on device", path)
