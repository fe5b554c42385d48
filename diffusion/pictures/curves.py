"""Loss curves, and point sets in the plane."""

import os
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike

from diffusion.pictures import sheets


def loss_curve(
  path: str | os.PathLike[str],
  steps: ArrayLike,
  losses: ArrayLike,
  heldout: tuple[ArrayLike, ArrayLike] | None = None,
  title: str = "Training loss",
  ylabel: str = "loss",
) -> None:
  """Losses over steps, raw (pale) and smoothed, with held-out losses as points; written to `path` as PNG.

  heldout: (steps, values) or None. The axis is logarithmic where all values are positive and the smoothed
  curve spans more than a factor of 5. Values that are not finite are left out and counted in the title.

  Raises ValueError for lengths that differ or nothing finite to draw, UserError where the file cannot be
  written.
  """
  steps, losses, missing = _finite_pairs(steps, losses, "losses")
  if not len(losses):
    raise ValueError("there is no finite loss to draw")
  smooth = running_mean(losses, max(1, len(losses) // 50))
  figure, axes = axes_of(8.0, 4.6)
  axes.plot(steps, losses, color=sheets.SAMPLE, alpha=0.25, linewidth=0.8, label="training, each step logged")
  axes.plot(steps, smooth, color=sheets.SAMPLE, linewidth=1.8, label="training, running mean")
  shown = smooth
  if heldout is not None:
    at, values, lost = _finite_pairs(*heldout, "held-out losses")
    missing += lost
    axes.plot(at, values, color=sheets.TRAINING, marker="o", markersize=4, linewidth=1.2, label="held-out")
    shown = np.concatenate([smooth, values])
  if losses.min() > 0 and shown.min() > 0 and shown.max() > 5 * shown.min():
    axes.set_yscale("log")
    _plain_ticks(axes.yaxis)
  axes.set_xlabel("step")
  axes.set_ylabel(ylabel)
  axes.set_title(
    title + (f" ({missing} values not finite)" if missing else ""), fontweight="bold", loc="left"
  )
  axes.legend(frameon=False)
  sheets.write_figure(path, figure)


def running_mean(values: ArrayLike, window: int) -> np.ndarray:
  """Centred mean of up to 2 window + 1 values; fewer at the ends, so that no end is bent towards zero.

  >>> running_mean([0.0, 3.0, 6.0, 12.0], 1).tolist()
  [1.5, 3.0, 7.0, 9.0]
  """
  values = np.asarray(values, np.float64)
  sums = np.concatenate([[0.0], np.cumsum(values)])
  index = np.arange(len(values))
  low, high = np.maximum(index - window, 0), np.minimum(index + window + 1, len(values))
  return (sums[high] - sums[low]) / (high - low)


def scatter2d(
  path: str | os.PathLike[str],
  samples: ArrayLike,
  data: ArrayLike,
  title: str = "Samples and data",
  names: tuple[str, str] = ("data", "samples"),
  starts: ArrayLike | None = None,
) -> None:
  """Samples and data in the plane, side by side, as a PNG.

  Data [M, 2] stand left and samples [N, 2] right, on equal axes. The picture is written to `path`.

  What samples started from, `starts` [N, 2], stands left of both where it is given. Limits are those of the
  data, and of the starts, and a margin; how many samples lie outside is said in the title. Raises ValueError
  for shapes that are no point sets, UserError where the file cannot be written.
  """
  samples, data = np.asarray(samples, np.float64), np.asarray(data, np.float64)
  begun = () if starts is None else (np.asarray(starts, np.float64),)
  for points, name in ((samples, "samples"), (data, "data"), *((one, "starts") for one in begun)):
    if points.ndim != 2 or points.shape[1] != 2 or not len(points):
      raise ValueError(f"{name} must be points [N, 2] with N at least 1, and has shape {points.shape}")
  known = np.concatenate([data, *begun])
  low, high = known.min(axis=0), known.max(axis=0)
  middle, reach = 0.5 * (low + high), 0.575 * max(np.max(high - low), 1e-9)
  outside = int((~(np.abs(samples - middle) <= reach).all(axis=1)).sum())
  panels = [
    *((one, "starts", sheets.INK) for one in begun),
    (data, names[0], sheets.TRAINING),
    (samples, names[1], sheets.SAMPLE),
  ]
  figure, *sets = axes_of(4.5 * len(panels), 4.9, len(panels))
  for axes, (points, name, colour) in zip(sets, panels):
    axes.scatter(
      points[:, 0],
      points[:, 1],
      s=float(np.clip(6000 / len(points), 1.0, 12.0)),
      alpha=0.5,
      linewidths=0,
      color=colour,
    )
    axes.set_xlim(middle[0] - reach, middle[0] + reach)
    axes.set_ylim(middle[1] - reach, middle[1] + reach)
    axes.set_aspect("equal")
    axes.set_title(
      f"{len(points):,} {name}"
      + (f", {outside:,} outside the frame" if points is samples and outside else ""),
      fontsize=11,
    )
  figure.suptitle(title, fontweight="bold")
  sheets.write_figure(path, figure)


def axes_of(
  width: float, height: float, columns: int = 1, rows: int = 1, layout: str = "constrained"
) -> tuple[Any, ...]:
  """A Figure and its axes, row by row; sizes in inches, `layout` as matplotlib names it."""
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure

  figure = Figure(figsize=(width, height), dpi=120, layout=cast(Any, layout))  # the stubs lack 'none'
  FigureCanvasAgg(figure)
  sets = [figure.add_subplot(rows, columns, index + 1) for index in range(rows * columns)]
  for axes in sets:
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
  return figure, *sets


def _plain_ticks(axis):
  """Numbers as people write them, at 1, 2 and 5 of each decade."""
  from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

  axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
  axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
  axis.set_minor_formatter(NullFormatter())


def _finite_pairs(steps, values, name):
  steps, values = np.asarray(steps, np.float64), np.asarray(values, np.float64)
  if steps.ndim != 1 or steps.shape != values.shape:
    raise ValueError(f"{name} of shape {values.shape} need as many steps, and those have shape {steps.shape}")
  kept = np.isfinite(values)
  return steps[kept], values[kept], int((~kept).sum())
