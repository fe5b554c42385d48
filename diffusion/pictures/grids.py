"""Sheets of samples.

A plain grid, samples beside their nearest training data, and the way from noise to data.
"""

import os
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from diffusion.pictures import sheets


def image_grid(
  images: ArrayLike,
  path: str | os.PathLike[str] | None = None,
  columns: int | None = None,
  value_range: tuple[float, float] = (-1.0, 1.0),
  scale: int | None = None,
  gap: int = 2,
) -> np.ndarray:
  """A plain grid of images or signals, row by row: uint8 pixels [h, w, 3].

  Images are [N, H, W, C] (1 or 3 channels), signals [N, L, C]. The pixels are returned.

  path: where to write it as PNG (not at all where None). columns: as square a sheet as possible by default.
  value_range: data values of black and white. scale: whole-number magnification, by default such that the
  longer side of an image has at least 64 pixels.

  Raises ValueError for shapes that are no images, UserError where the file cannot be written.

  >>> image_grid(np.zeros((3, 2, 4, 1)), columns=2, scale=1, gap=1).shape
  (7, 11, 3)
  """
  images = sheets.as_batch(images, "images")
  columns = columns or default_columns(images)
  if columns < 1 or gap < 0 or (scale is not None and scale < 1):
    raise ValueError(f"columns {columns} and scale {scale} must be at least 1, and gap {gap} at least 0")
  columns = min(columns, len(images))
  if images.ndim == 3:
    pixels = _signal_pixels(images, columns, value_range)
  else:
    times = scale or -(-64 // max(images.shape[1:3]))
    enlarged = sheets.to_bytes(images, value_range).repeat(times, axis=1).repeat(times, axis=2)
    pixels = _mosaic(enlarged, columns, gap)
  if path is not None:
    from PIL import Image

    sheets.write(path, lambda temporary: Image.fromarray(pixels).save(temporary, format="PNG"))
  return pixels


def default_columns(images: np.ndarray) -> int:
  """The number of columns that makes a sheet of these items nearly square."""
  width, height = sheets.cell_size(images.shape[1:])
  return max(1, int(np.ceil(np.sqrt(len(images) * height / width) - 1e-9)))


def _mosaic(tiles, columns, gap):
  count, height, width, _ = tiles.shape
  rows = -(-count // columns)
  sheet = np.full((gap + rows * (height + gap), gap + columns * (width + gap), 3), 255, np.uint8)
  for index, tile in enumerate(tiles):
    top, left = gap + index // columns * (height + gap), gap + index % columns * (width + gap)
    sheet[top : top + height, left : left + width] = tile
  return sheet


def _signal_pixels(signals, columns, value_range):
  width, height = sheets.cell_size(signals.shape[1:])
  rows = -(-len(signals) // columns)
  figure, axes = sheets.sheet(0.05 + columns * (width + 0.05), 0.05 + rows * (height + 0.05), 1.6)
  limits = sheets.shown_range(value_range, [signals])
  for index, signal in enumerate(signals):
    sheets.draw(
      axes,
      signal,
      0.05 + index % columns * (width + 0.05),
      0.05 + index // columns * (height + 0.05),
      (width, height),
      limits,
    )
  figure.canvas.draw()
  pixels = figure.canvas.buffer_rgba()  # pyright: ignore[reportAttributeAccessIssue]  # a sheet's canvas is Agg's
  return np.asarray(pixels)[..., :3].copy()


def sample_grid(
  path: str | os.PathLike[str],
  samples: ArrayLike,
  labels: ArrayLike | None = None,
  neighbours: ArrayLike | None = None,
  class_names: Sequence[str] | Mapping[int, str] | None = None,
  per_class: int = 5,
  value_range: tuple[float, float] = (-1.0, 1.0),
  title: str | None = None,
  most_rows: int = 20,
  distances: Sequence[float] | np.ndarray | None = None,
) -> None:
  """Samples in rows by class, each beside its nearest training datum, as a PNG with a legend.

  samples [N, H, W, C] or [N, L, C]; labels [N] integers, or None for one block without classes; neighbours
  like samples: the training datum nearest to each (see `diffusion.metrics.nearest_neighbours`), or None.
  class_names: a sequence or mapping by label. The first per_class samples of each class are shown, and the
  first most_rows classes. Under each pair stands the Euclidean distance of the two, or `distances` [N].

  Raises ValueError for shapes that do not fit, UserError where the file cannot be written.
  """
  samples = sheets.as_batch(samples, "samples")
  if neighbours is not None:
    neighbours = sheets.as_batch(neighbours, "neighbours")
    if neighbours.shape != samples.shape:
      raise ValueError(
        f"neighbours {neighbours.shape} must have the shape of samples {samples.shape}: one training datum "
        "for each sample"
      )
  rows = _rows_by_class(samples, labels, class_names, per_class)[:most_rows]
  size = sheets.cell_size(samples.shape[1:])
  limits = sheets.shown_range(value_range, [samples] if neighbours is None else [samples, neighbours])
  columns = max(len(indices) for _, indices in rows)
  inner, outer = 0.04, (0.16 if neighbours is None else 0.34)
  group = size[0] if neighbours is None else 2 * size[0] + inner
  line = size[1] + (0.16 if neighbours is None else 0.36)
  names = [name for name, _ in rows]
  left = 0.5 + 0.15 * max(len(name) for name in names)
  width = max(left + columns * group + (columns - 1) * outer + 0.3, 5.0 if neighbours is None else 10.0)
  top = 1.3 if neighbours is not None else 0.9
  figure, axes = sheets.sheet(width, top + len(rows) * line + 0.15, 0.72)
  if title is None:
    kind = "images" if samples.ndim == 4 else "data"
    title = "Samples of the model" if neighbours is None else f"Samples beside their nearest training {kind}"
  axes.text(0.3, 0.42, title, fontsize=15, fontweight="bold", color=sheets.INK, va="center")
  if neighbours is not None:
    _legend(axes, 0.4, 0.92)
  for row, (name, indices) in enumerate(rows):
    y = top + row * line
    axes.text(left - 0.18, y + size[1] / 2, name, fontsize=13, ha="right", va="center", color=sheets.INK)
    for column, index in enumerate(indices):
      x = left + column * (group + outer)
      if neighbours is None:
        sheets.draw(axes, samples[index], x, y, size, limits)
        continue
      sheets.draw(axes, samples[index], x, y, size, limits, frame=sheets.SAMPLE)
      sheets.draw(axes, neighbours[index], x + size[0] + inner, y, size, limits, frame=sheets.TRAINING)
      distance = np.linalg.norm(samples[index] - neighbours[index]) if distances is None else distances[index]
      axes.text(
        x + group / 2,
        y + size[1] + 0.15,
        f"d = {distance:.2f}",
        fontsize=7.5,
        ha="center",
        va="center",
        color="#666666",
      )
  sheets.write_figure(path, figure)


def _legend(axes, x, y):
  entries = (
    (sheets.SAMPLE, "left: sample drawn by the model"),
    (sheets.TRAINING, "right: the training datum nearest to it (d: Euclidean distance)"),
  )
  for colour, text in entries:
    axes.plot(
      [x], [y], marker="s", markersize=9, markerfacecolor="none", markeredgecolor=colour, markeredgewidth=2
    )
    axes.text(x + 0.2, y, text, fontsize=9.5, va="center", color=sheets.INK)
    x += 0.55 + 0.093 * len(text)


def _rows_by_class(samples, labels, class_names, per_class):
  if labels is None:
    columns = per_class
    return [
      ("", list(range(start, min(start + columns, len(samples)))))
      for start in range(0, len(samples), columns)
    ]
  labels = np.asarray(labels)
  if labels.shape != (len(samples),):
    raise ValueError(
      f"there are {len(samples)} samples and labels of shape {labels.shape}: give one label for each, or None"
    )
  rows = []
  for label in np.unique(labels).tolist():
    rows.append((_class_name(label, class_names), np.flatnonzero(labels == label)[:per_class].tolist()))
  return rows


def trajectory(
  path: str | os.PathLike[str],
  states: ArrayLike,
  noise_levels: ArrayLike,
  labels: ArrayLike | None = None,
  class_names: Sequence[str] | Mapping[int, str] | None = None,
  value_range: tuple[float, float] = (-1.0, 1.0),
  symbol: str = "σ",
  title: str = "From noise to data",
  most: int = 12,
) -> None:
  """States of a sampler from noise to data, as a PNG.

  There is one row per sample and one column per noise level. The picture is written to `path`.

  states [K, N, H, W, C] or [K, N, L, C]; noise_levels [K], the numbers above the columns, named by `symbol`
  (use symbol="t" for times); labels [N] name the rows. At most `most` columns are shown, the first and the
  last among them, closer together where the picture changes faster. Columns whose values leave value_range
  far behind are shown with reduced contrast, and their heading says by which factor.

  Raises ValueError for shapes that do not fit, UserError where the file cannot be written.
  """
  states, noise_levels = np.asarray(states, np.float64), np.asarray(noise_levels, np.float64)
  if states.ndim not in (4, 5) or noise_levels.shape != (len(states),) or not len(states):
    raise ValueError(
      f"states {states.shape} must be [K, N, H, W, C] or [K, N, L, C], with noise_levels [K], and those have "
      f"shape {noise_levels.shape}"
    )
  chosen = _key_states(states, value_range, most)
  states, noise_levels = states[chosen], noise_levels[chosen]
  sheets.as_batch(states[0], "states[k]")
  value_range = sheets.shown_range(value_range, [states[-1]])
  names = _row_names(states.shape[1], labels, class_names)
  size = sheets.cell_size(states.shape[2:])
  gap, left, top = 0.1, 0.45 + 0.12 * max(map(len, names)), 1.65
  width = max(left + len(states) * (size[0] + gap) + 0.25, 8.5)
  figure, axes = sheets.sheet(width, top + states.shape[1] * (size[1] + gap) + 0.15, 0.85)
  axes.text(0.3, 0.4, title, fontsize=15, fontweight="bold", color=sheets.INK, va="center")
  factors = [_contrast(column, value_range) for column in states]
  note = f"each row is one sample; {symbol} above each column; "
  note += (
    "“contrast ÷ n”: values divided by n to fit the scale" if max(factors) > 1 else "all columns on one scale"
  )
  axes.text(0.3, 0.82, note, fontsize=9.5, color="#666666", va="center")
  middle = 0.5 * (value_range[0] + value_range[1])
  for k, (column, factor) in enumerate(zip(states, factors)):
    x = left + k * (size[0] + gap)
    axes.text(
      x + size[0] / 2,
      top - 0.38,
      f"{symbol} = {_short(noise_levels[k])}",
      fontsize=9.5,
      ha="center",
      va="center",
      color=sheets.INK,
    )
    if factor > 1:
      axes.text(
        x + size[0] / 2,
        top - 0.15,
        f"contrast ÷ {_short(factor)}",
        fontsize=7,
        ha="center",
        va="center",
        color="#666666",
      )
    for row, item in enumerate(column):
      y = top + row * (size[1] + gap)
      sheets.draw(axes, middle + (item - middle) / factor, x, y, size, value_range)
      if k == 0:
        axes.text(
          left - 0.15, y + size[1] / 2, names[row], fontsize=12, ha="right", va="center", color=sheets.INK
        )
  sheets.write_figure(path, figure)


def _key_states(states, value_range, most):
  """Indices of the states to show, at most `most`.

  They are spaced half by index and half by how much of the visible change lies between them.
  """
  count = len(states)
  if count <= most or count < 2:
    return np.arange(count)
  middle = 0.5 * (value_range[0] + value_range[1])
  visible = np.stack([(state - middle) / _contrast(state, value_range) for state in states]).reshape(
    count, -1
  )
  change = np.cumsum(np.linalg.norm(np.nan_to_num(np.diff(visible, axis=0)), axis=1)) + 1e-12 * np.arange(
    1, count
  )
  progress = np.linspace(0, 1, count) + np.concatenate([[0.0], change / change[-1]])
  return np.unique(np.abs(progress[:, None] - np.linspace(0, progress[-1], most)).argmin(axis=0))


def _contrast(column, value_range):
  """The factor by which the contrast of a column is reduced, 1 for none.

  1 where nearly all values lie in value_range (and half as much again), else the factor that brings them
  there.
  """
  middle, half = 0.5 * (value_range[0] + value_range[1]), 0.5 * (value_range[1] - value_range[0])
  finite = column[np.isfinite(column)]
  reach = np.quantile(np.abs(finite - middle), 0.98) / half if finite.size else 1.0
  return 1.0 if reach <= 1.5 else float(reach)


def _row_names(count, labels, class_names):
  if labels is None:
    return [f"#{index}" for index in range(count)]
  if len(labels) != count:
    raise ValueError(
      f"there are {count} rows of states and {len(labels)} labels: give one label for each row, or None"
    )
  return [_class_name(label, class_names) for label in np.asarray(labels).tolist()]


def _class_name(label, class_names):
  if label == -1:
    return "no class"
  return f"class {label}" if class_names is None else str(class_names[label])


def _short(number):
  if number == 0:
    return "0"
  return f"{number:.0f}" if abs(number) >= 10 else f"{number:.2g}"
