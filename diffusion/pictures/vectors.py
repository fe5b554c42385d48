"""Vectors of one and of many dimensions: histograms, and scatters of coordinates in pairs."""

from typing import Any

import numpy as np

from diffusion.pictures import curves, sheets

MOST_COORDINATES = 3
MOST_POINTS = 4000


def histogram(path: Any, samples: np.ndarray, data: np.ndarray) -> None:
  """Densities of numbers, samples [N, 1] over data [M, 1], as histograms; written to `path` as PNG.

  Limits are those of the data and a margin; how many samples lie outside is said in the title. Raises
  ValueError for other shapes, UserError where the file cannot be written.
  """
  samples, data = _points(samples, "samples", 1)[:, 0], _points(data, "data", 1)[:, 0]
  low, high = _limits(data)
  outside = int(((samples < low) | (samples > high)).sum())
  figure, axes = curves.axes_of(7.0, 4.4)
  edges = np.linspace(low, high, _bins(data) + 1)
  for values, name, colour in ((data, "data", sheets.TRAINING), (samples, "samples", sheets.SAMPLE)):
    heights = np.histogram(values, edges)[0] / (len(values) * (edges[1] - edges[0]))
    axes.stairs(heights, edges, color=colour, linewidth=1.6, label=f"{len(values):,} {name}")
  axes.set_ylabel("density")
  axes.set_xlim(low, high)
  axes.set_title(
    "Samples and data" + (f" ({outside:,} samples outside the frame)" if outside else ""),
    fontweight="bold",
    loc="left",
  )
  axes.legend(frameon=False)
  sheets.write_figure(path, figure)


def pairs(path: Any, samples: np.ndarray, data: np.ndarray, most: int = MOST_COORDINATES) -> None:
  """Scatter plots of the first coordinates in pairs, as a PNG.

  Samples [N, D] are below the diagonal and data [M, D] above it, with the histograms of both on it. The
  picture is written to `path`.

  At most `most` coordinates are shown. Limits are those of the data. Raises ValueError for other shapes,
  UserError where the file cannot be written.
  """
  samples, data = _points(samples, "samples"), _points(data, "data")
  if samples.shape[1] != data.shape[1]:
    raise ValueError(f"samples {samples.shape} and data {data.shape} must have as many coordinates")
  size, dimension = min(samples.shape[1], most), samples.shape[1]
  figure, *panels = curves.axes_of(2.3 * size + 0.4, 2.3 * size + 0.8, size, size, layout="none")
  figure.subplots_adjust(0.09, 0.07, 0.98, 0.9, 0.25, 0.25)
  limits = [_limits(data[:, i]) for i in range(size)]
  for row in range(size):
    for column in range(size):
      axes = panels[row * size + column]
      if row == column:
        edges = np.linspace(*limits[row], _bins(data) + 1)
        for values, colour in ((data, sheets.TRAINING), (samples, sheets.SAMPLE)):
          heights = np.histogram(values[:, row], edges)[0] / len(values)
          axes.stairs(heights, edges, color=colour, linewidth=1.4)
        axes.set_yticks([])
        axes.set_title(f"coordinate {row}", fontsize=9)
      else:
        points, colour = (samples, sheets.SAMPLE) if row > column else (data, sheets.TRAINING)
        points = points[:MOST_POINTS]
        axes.scatter(
          points[:, column],
          points[:, row],
          s=float(np.clip(3000 / len(points), 0.8, 10.0)),
          alpha=0.5,
          linewidths=0,
          color=colour,
        )
        axes.set_ylim(*limits[row])
      axes.set_xlim(*limits[column])
      axes.tick_params(labelsize=7)
  shown = f", the first {size} of {dimension} coordinates" if dimension > size else ""
  figure.suptitle(f"Samples (blue, below) and data (orange, above){shown}", fontsize=11, fontweight="bold")
  sheets.write_figure(path, figure)


def _points(points, name, dimension=None):
  points = np.asarray(points, np.float64)
  if points.ndim != 2 or not len(points) or dimension not in (None, points.shape[1]):
    raise ValueError(
      f"{name} must be points [N, {dimension or 'D'}] with N at least 1, and has shape {points.shape}"
    )
  return points


def _bins(data):
  """Bins of a histogram: as many as a few data fill, 60 at the most."""
  return int(np.clip(2 * np.sqrt(len(data)), 8, 60))


def _limits(values):
  """Ends of finite values with a margin, never equal."""
  low, high = float(values.min()), float(values.max())
  reach = 0.575 * max(high - low, 1e-9 * max(abs(low), abs(high)), 1e-9)
  return 0.5 * (low + high) - reach, 0.5 * (low + high) + reach
