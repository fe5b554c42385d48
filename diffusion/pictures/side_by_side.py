"""Columns of images side by side, each with a title, one row an example.

Class probabilities can stand as bars beside their images.
"""

import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from diffusion.pictures import sheets

UNKNOWN = (0.45, 0.55, 0.75)
"""Colour of pixels that were not measured, where black and white mean something."""


class Column(NamedTuple):
  """title: above it; images: [N, H, W, C] of any size; value_range: data values of black and white."""

  title: str
  images: np.ndarray
  value_range: tuple[float, float] = (0.0, 1.0)


def side_by_side(
  path: str | os.PathLike[str],
  columns: Sequence[Column],
  title: str,
  note: str = "",
  row_names: Sequence[str] | None = None,
  most_rows: int = 12,
) -> None:
  """Columns of images side by side, as a PNG.

  The images of row i belong together. At most `most_rows` rows are shown. The picture is written to `path`.

  Args:
    path: of the PNG.
    columns: sequence of `Column`, all with the same number of images, whose sizes may differ: all are drawn
      equally large.
    title, note: above everything; a long note is wrapped.
    row_names: [N] texts, or None.
    most_rows: the first so many.

  Raises ValueError for shapes that do not fit, UserError where the file cannot be written.
  """
  import textwrap

  columns = [column._replace(images=sheets.as_batch(column.images, column.title)) for column in columns]
  counts = {len(column.images) for column in columns}
  if len(counts) != 1 or (row_names is not None and len(row_names) != min(counts)):
    raise ValueError(
      f"every column needs an image a row and every row a name, got {[len(c.images) for c in columns]} images"
    )
  rows = min(min(counts), most_rows)
  names = [""] * rows if row_names is None else list(map(str, row_names[:rows]))
  size = sheets.cell_size(columns[0].images.shape[1:])
  gap, left = 0.08, 0.3 + 0.115 * max(map(len, names))
  width = max(left + len(columns) * (size[0] + gap) + 0.25, 7.5)
  lines = textwrap.wrap(note, int(width / 0.083))
  heads = [
    textwrap.wrap(column.title, max(int(size[0] / 0.085), 6), break_long_words=False) for column in columns
  ]
  below = 0.72 + 0.24 * len(lines)
  top = below + 0.06 + 0.2 * max(map(len, heads))
  figure, axes = sheets.sheet(width, top + rows * (size[1] + gap) + 0.15, 0.9)
  axes.text(0.3, 0.4, title, fontsize=14, fontweight="bold", color=sheets.INK, va="center")
  for number, line in enumerate(lines):
    axes.text(0.3, 0.76 + 0.24 * number, line, fontsize=9, color="#666666", va="center")
  for k, column in enumerate(columns):
    x = left + k * (size[0] + gap)
    for number, line in enumerate(reversed(heads[k])):
      axes.text(
        x + size[0] / 2,
        top - 0.14 - 0.2 * number,
        line,
        fontsize=8.5,
        ha="center",
        va="center",
        color=sheets.INK,
      )
    for row in range(rows):
      sheets.draw(axes, column.images[row], x, top + row * (size[1] + gap), size, column.value_range)
  for row in range(rows):
    axes.text(
      left - 0.12,
      top + row * (size[1] + gap) + size[1] / 2,
      names[row],
      fontsize=10,
      ha="right",
      va="center",
      color=sheets.INK,
    )
  sheets.write_figure(path, figure)


def unmeasured(images: ArrayLike, hidden: ArrayLike, value_range: tuple[float, float]) -> np.ndarray:
  """Images [N, H, W, C] as colours in [0, 1], with the unmeasured pixels marked.

  The pixels where hidden [H, W, C] is 1 have a colour that no data have.

  >>> unmeasured(np.zeros((1, 1, 2, 1)), np.array([[[0], [1]]]), (0, 16))[0, 0].tolist()
  [[0.0, 0.0, 0.0], [0.45, 0.55, 0.75]]
  """
  low, high = value_range
  levels = np.clip((np.asarray(images, np.float64) - low) / (high - low), 0.0, 1.0)
  levels = np.broadcast_to(levels, (*levels.shape[:-1], 3))
  return np.where(np.asarray(hidden)[None] > 0, np.array(UNKNOWN), levels)


def heat(values: ArrayLike, most: float | None = None) -> np.ndarray:
  """A heat map of numbers of 0 or more: [N, H, W, C] as colours [N, H, W, 3].

  Their mean over channels is shown from black (0) over red to white (`most`, by default the largest).

  >>> heat(np.zeros((1, 1, 1, 1)))[0, 0, 0].round(1).tolist()
  [0.0, 0.0, 0.0]
  """
  from matplotlib import colormaps

  levels: np.ndarray = np.asarray(values, np.float64).mean(axis=-1)
  most = float(levels.max()) if most is None else most
  return np.asarray(colormaps["inferno"](np.clip(levels / max(most, 1e-12), 0.0, 1.0)))[..., :3].round(4)


def class_bars(
  path: str | os.PathLike[str],
  images: ArrayLike,
  probabilities: ArrayLike,
  class_names: Sequence[str],
  truth: Sequence[int] | np.ndarray | None = None,
  value_range: tuple[float, float] = (0.0, 1.0),
  title: str = "Which class",
  note: str = "",
  most_rows: int = 12,
  columns: int = 2,
) -> None:
  """Each image with the probabilities of its classes as bars, as a PNG.

  The true class, where known, is in another colour. The picture is written to `path`.

  Args:
    images: [N, H, W, C]; probabilities: [N, classes]; class_names: their names; truth: [N] classes, -1 for
      unknown, or None.
    most_rows, columns: at most most_rows x columns images are shown.

  Raises ValueError for shapes that do not fit, UserError where the file cannot be written.
  """
  from matplotlib.patches import Rectangle

  images, probabilities = sheets.as_batch(images, "images"), np.asarray(probabilities, np.float64)
  count, classes = probabilities.shape
  if len(images) != count or len(class_names) != classes:
    raise ValueError(
      f"{len(images)} images, probabilities {probabilities.shape} and {len(class_names)} class names do not "
      "fit each other"
    )
  shown = min(count, most_rows * columns)
  columns = min(columns, shown)
  size, bar = sheets.cell_size(images.shape[1:]), 0.28
  group, line, top = size[0] + 0.2 + classes * bar + 0.5, size[1] + 0.35, 1.25
  rows = -(-shown // columns)
  figure, axes = sheets.sheet(max(0.3 + columns * group, 7.5), top + rows * line + 0.1, 0.9)
  axes.text(0.3, 0.4, title, fontsize=14, fontweight="bold", color=sheets.INK, va="center")
  axes.text(0.3, 0.8, note, fontsize=9, color="#666666", va="center")
  for i in range(shown):
    x, y = 0.3 + i % columns * group, top + i // columns * line
    sheets.draw(axes, images[i], x, y, size, value_range)
    for c in range(classes):
      left, height = x + size[0] + 0.2 + c * bar, (size[1] - 0.02) * probabilities[i, c]
      true = truth is not None and int(truth[i]) == c
      axes.add_patch(Rectangle((left, y), 0.8 * bar, size[1], facecolor="#f0f0f0", edgecolor="none"))
      axes.add_patch(
        Rectangle(
          (left, y + size[1] - height),
          0.8 * bar,
          height,
          facecolor=sheets.TRAINING if true else sheets.SAMPLE,
          edgecolor="none",
        )
      )
      axes.text(
        left + 0.4 * bar,
        y + size[1] + 0.13,
        str(class_names[c])[:4],
        fontsize=7.5,
        ha="center",
        va="center",
        color=sheets.TRAINING if true else sheets.INK,
        fontweight="bold" if true else "normal",
      )
  sheets.write_figure(path, figure)
