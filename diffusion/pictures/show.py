"""How a sample becomes a picture, for every shape of data.

[N, 1]           histograms
[N, 2]           points in the plane
[N, D]           coordinates in pairs
[N, L, C]        lines, one a channel
[N, H, W, C]     images; one grey tile a channel unless C is 1 or 3
[N, D, H, W, C]  slices side by side
"""

from typing import Any

import numpy as np

from diffusion.pictures.curves import scatter2d
from diffusion.pictures.grids import image_grid, sample_grid
from diffusion.pictures.vectors import histogram, pairs

MOST_TILES = 16


def as_items(x: np.ndarray, white: float = 1.0) -> np.ndarray:
  """Batches of any shape as images [N, H, W, 1 or 3] or signals [N, L, C], which sheets of cells take.

  Images of other channels become a mosaic of grey tiles, one a channel, volumes one of slices, evenly spaced
  along the first axis; at most 16 of either are shown.

  Args:
    x: [N, L, C], [N, H, W, C] or [N, D, H, W, C].
    white: the value of the lines between tiles.

  Raises:
    ValueError: another number of axes.

  >>> as_items(np.zeros((5, 4, 3, 4))).shape, as_items(np.zeros((5, 6, 4, 4, 1))).shape
  ((5, 9, 7, 1), (5, 9, 14, 1))
  """
  x = np.asarray(x)
  if x.ndim == 3 or (x.ndim == 4 and x.shape[-1] in (1, 3)):
    return x
  if x.ndim == 5:
    chosen = np.unique(np.linspace(0, x.shape[1] - 1, min(x.shape[1], MOST_TILES)).round().astype(int))
    slices = [as_items(x[:, place], white) for place in chosen]
    return _mosaic(slices, white)
  if x.ndim == 4:
    return _mosaic([x[..., channel : channel + 1] for channel in range(min(x.shape[-1], MOST_TILES))], white)
  raise ValueError(
    f"there is no picture of data of shape {list(x.shape[1:])}: vectors, signals [L, C], images [H, W, C] "
    "and volumes [D, H, W, C] are shown"
  )


def show(
  path: Any,
  samples: np.ndarray,
  data: np.ndarray,
  *,
  value_range: tuple[float, float],
  neighbours: np.ndarray | None = None,
  distances: np.ndarray | None = None,
  labels: np.ndarray | None = None,
  class_names: Any = None,
) -> None:
  """Samples [N, ...] as a picture, beside data where their kind is drawn so; written to `path` as PNG.

  Args:
    path: of the file.
    samples: stored values of any shape.
    data: [M, ...] of the same shape: drawn beside vectors.
    value_range: data values of black and white.
    neighbours, distances: the training datum nearest to each sample, and how far it is; drawn beside images,
      signals and volumes.
    labels, class_names: see `sample_grid`.

  Raises:
    ValueError: a shape of which there is no picture; UserError where the file cannot be written.
  """
  samples = np.asarray(samples)
  if samples.ndim == 2:
    draw = {1: histogram, 2: scatter2d}.get(samples.shape[1], pairs)
    draw(path, samples, data)
    return
  sample_grid(
    path,
    as_items(samples, value_range[1]),
    labels,
    neighbours=None if neighbours is None else as_items(neighbours, value_range[1]),
    class_names=class_names,
    value_range=value_range,
    distances=distances,
  )


def plain_sheet(
  path: Any, samples: np.ndarray, data: np.ndarray, *, value_range: tuple[float, float]
) -> None:
  """As `show`, but of images, signals and volumes nothing more than a grid of cells."""
  if np.ndim(samples) == 2:
    show(path, samples, data, value_range=value_range)
  else:
    image_grid(as_items(samples, value_range[1]), path, value_range=value_range)


def _mosaic(tiles, white):
  """Tiles [N, h, w, C], all alike, as square as they go, with one line of `white` between them."""
  if len(tiles) == 1:
    return tiles[0]
  count, height, width, channels = tiles[0].shape
  columns = int(np.ceil(np.sqrt(len(tiles))))
  rows = -(-len(tiles) // columns)
  shape = (count, rows * (height + 1) - 1, columns * (width + 1) - 1, channels)
  sheet = np.full(shape, white, np.result_type(tiles[0].dtype, np.float32))
  for place, tile in enumerate(tiles):
    top, left = place // columns * (height + 1), place % columns * (width + 1)
    sheet[:, top : top + height, left : left + width] = tile
  return sheet
