"""A sheet of equal cells on one set of axes, and how a picture is written.

Each cell holds an image or, for 1-D signals, a line plot. A picture is written whole or not at all.
"""

import os
import pathlib
import tempfile
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from diffusion.config.errors import UserError

if TYPE_CHECKING:
  from matplotlib.axes import Axes
  from matplotlib.figure import Figure

SAMPLE, TRAINING, INK = "#1f5fa8", "#d9822b", "#333333"


def as_batch(items: ArrayLike, name: str) -> np.ndarray:
  """Items [N, H, W, C] (C = 1 or 3) or [N, L, C] as float64; raises ValueError for other shapes."""
  items = np.asarray(items)
  if items.ndim not in (3, 4) or not len(items):
    raise ValueError(
      f"{name} must be images [N, H, W, C] or signals [N, L, C] with N at least 1, and has shape "
      f"{items.shape}"
    )
  if items.ndim == 4 and items.shape[-1] not in (1, 3):
    raise ValueError(
      f"{name} has {items.shape[-1]} channels: a picture shows 1 (grey) or 3 (RGB); choose channels first"
    )
  return items.astype(np.float64)


def to_bytes(images: np.ndarray, value_range: tuple[float, float]) -> np.ndarray:
  """Images in data units as bytes, uint8 [..., 3].

  value_range maps to 0..255, what lies outside is cut, NaN is magenta.
  """
  low, high = value_range
  if not high > low:
    raise ValueError(
      f"value_range is {value_range}: give (low, high) with low < high, the data values of black and white"
    )
  images = np.broadcast_to(images, (*images.shape[:-1], 3)) if images.shape[-1] == 1 else images
  broken = ~np.isfinite(images).all(axis=-1)
  levels = np.clip((np.where(np.isfinite(images), images, 0.0) - low) / (high - low), 0.0, 1.0)
  pixels = np.round(255.0 * levels).astype(np.uint8)
  pixels[broken] = (255, 0, 255)
  return pixels


def cell_size(shape: tuple[int, ...]) -> tuple[float, float]:
  """Width and height of a cell for items of `shape`, the longer side being 1 (signals: 1.6 x 1)."""
  if len(shape) == 2:
    return 1.0, 0.625
  height, width = shape[:2]
  longest = max(height, width)
  # Very long images would leave a stripe of a few points: a cell is at least a quarter as wide as it is long.
  return max(width / longest, 0.25), max(height / longest, 0.25)


def sheet(width: float, height: float, inches_per_unit: float) -> "tuple[Figure, Axes]":
  """A Figure of width x height units with one invisible set of axes over all of it; y grows downwards."""
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure

  figure = Figure(figsize=(width * inches_per_unit, height * inches_per_unit), dpi=120)
  FigureCanvasAgg(figure)
  axes = figure.add_axes((0, 0, 1, 1))
  axes.set_xlim(0, width)
  axes.set_ylim(height, 0)
  axes.set_axis_off()
  return figure, axes


def draw(
  axes: "Axes",
  item: np.ndarray,
  x: float,
  y: float,
  size: tuple[float, float],
  value_range: tuple[float, float],
  frame: str | None = None,
) -> None:
  """Draws one image [H, W, C] or signal [L, C] with its upper left corner at (x, y)."""
  from matplotlib.patches import Rectangle

  width, height = size
  if item.ndim == 3:
    pixels = to_bytes(item, value_range)
    axes.imshow(
      pixels, extent=(x, x + width, y + height, y), interpolation="nearest", aspect="auto", zorder=1
    )
  else:
    low, high = value_range
    axes.add_patch(Rectangle((x, y), width, height, facecolor="#f6f6f6", edgecolor="none", zorder=0))
    places = x + width * (np.arange(len(item)) + 0.5) / len(item)
    levels = np.clip((item - low) / (high - low), 0.0, 1.0)
    for channel in range(item.shape[-1]):
      axes.plot(
        places,
        y + height * (0.95 - 0.9 * levels[:, channel]),
        color=f"C{channel % 10}",
        linewidth=1.0,
        zorder=1,
      )
  if frame is not None:
    axes.add_patch(Rectangle((x, y), width, height, fill=False, edgecolor=frame, linewidth=1.6, zorder=2))


def shown_range(value_range: tuple[float, float], items: Sequence[np.ndarray]) -> tuple[float, float]:
  """value_range for images; for signals widened to what they hold, so that no line is cut."""
  if items[0].ndim == 4:
    return value_range
  values = np.concatenate([np.ravel(batch)[np.isfinite(np.ravel(batch))] for batch in items])
  if not values.size:
    return value_range
  return min(value_range[0], float(values.min())), max(value_range[1], float(values.max()))


def write(path: str | os.PathLike[str], save: Callable[[str], Any]) -> None:
  """Writes a picture to `path`, whole or not at all.

  It calls save(temporary path), then moves the file to `path` in one step, so that no reader ever sees half
  a picture.

  Raises UserError where the directory is missing or the file cannot be written; a picture that was there
  before then stays.

  >>> write("/no/such/folder/a.png", lambda temporary: None)
  Traceback (most recent call last):
  ...
  diffusion.config.errors.UserError: cannot write /no/such/folder/a.png: the directory /no/such/folder does
  not exist; create it or name another path
  """
  path = pathlib.Path(path)
  if not path.parent.is_dir():
    raise UserError(
      f"cannot write {path}: the directory {path.parent} does not exist; create it or name another path"
    )
  try:
    handle, temporary = tempfile.mkstemp(
      dir=path.parent, prefix=f".{path.stem}.", suffix=path.suffix or ".png"
    )
    os.close(handle)
    try:
      save(temporary)
      os.chmod(temporary, 0o644)  # mkstemp's files are private, pictures are not
      os.replace(temporary, path)
    except BaseException:
      os.unlink(temporary)
      raise
  except OSError as error:
    raise UserError(
      f"cannot write {path}: {error.strerror or error}; free some space or name another path"
    ) from error


def write_figure(path: str | os.PathLike[str], figure: "Figure") -> None:
  """Writes a matplotlib Figure as PNG."""
  write(path, lambda temporary: figure.savefig(temporary, format="png", facecolor="white"))
