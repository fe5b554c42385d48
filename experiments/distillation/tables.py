"""How the distances of `students` are shown: one table of text, and one picture."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

WEIGHTS = (0.0, 0.3, 1.0, 4.0)


def table(
  far: Mapping[tuple[str, int], Sequence[float]],
  floor: Sequence[float],
  differences: Mapping[int, Sequence[float]],
) -> str:
  """Markdown: a row for each sampler and number of steps, a column for each weight.

  Args:
    far: (name, steps) -> distances, one a weight.
    floor: the distances of two references.
    differences: steps -> the student's root mean square difference from the teacher's 64 steps from the
      same noise.
  """
  head = ["sampler", "steps", *(f"w = {weight:g}" for weight in WEIGHTS)]
  rows = [[name, str(steps), *(f"{value:.4f}" for value in values)] for (name, steps), values in far.items()]
  rows.append(["two references", "", *(f"{value:.4f}" for value in floor)])
  rows += [
    ["student from teacher of 64 steps, same noise (rms)", str(steps), *(f"{value:.4f}" for value in values)]
    for steps, values in differences.items()
  ]
  line = lambda cells: "| " + " | ".join(cells) + " |"
  return "\n".join([line(head), line(["---"] * len(head)), *map(line, rows)])


def draw(
  path: str,
  far: Mapping[tuple[str, int], Sequence[float]],
  floor: Sequence[float],
  samples: Mapping[tuple[str, int], Any],
  goals: Sequence[Any],
  label: np.ndarray,
) -> None:
  """Distance over steps, one panel a weight, and below it samples of four steps beside those of 64."""
  from matplotlib.figure import Figure

  from diffusion.pictures.sheets import write_figure

  planar = goals[0][0].ndim == 2
  figure = Figure(figsize=(12.0, 9.0) if planar else (12.0, 6.4), layout="constrained")
  upper, lower = figure.subfigures(2, 1, height_ratios=(1.0, 2.1) if planar else (1.0, 1.15))
  panels = upper.subplots(1, len(WEIGHTS), sharey=True)
  for i, (axes, weight) in enumerate(zip(panels, WEIGHTS)):
    for name, mark, colour in (
      ("teacher", "o", "0.45"),
      ("student", "s", "C0"),
      ("student, stochastic", "^", "C1"),
      ("student, stochastic, from the guided SDE", "v", "C2"),
    ):
      steps = [n for which, n in far if which == name]
      axes.plot(
        steps,
        [far[name, n][i] for n in steps],
        marker=mark,
        color=colour,
        label=name.replace(", from", ",\nfrom"),
        markersize=5,
      )
    axes.axhline(
      1.2 * far["teacher", 64][i], color="0.45", linestyle="--", linewidth=0.9, label="1.2 x teacher at 64"
    )
    axes.axhline(floor[i], color="0.75", linestyle=":", linewidth=1.2, label="two references")
    axes.set(xscale="log", yscale="log", xlabel="steps", title=f"w = {weight:g}")
    axes.set_xticks([1, 2, 4, 8, 16, 32, 64], ["1", "2", "4", "8", "16", "32", "64"])
    axes.minorticks_off()
  panels[0].set_ylabel("distance to the exact guided flow")
  panels[0].legend(fontsize=8, loc="upper right")
  rows = (("teacher", 4), ("student", 4), ("teacher", 64))
  (points if planar else images)(lower, rows, samples, goals, label)
  write_figure(path, figure)


def points(
  figure: Any, rows: Any, samples: Mapping[tuple[str, int], Any], goals: Sequence[Any], label: np.ndarray
) -> None:
  """Scatter plots of points in the plane over the reference in grey: a row for each of `rows`, a column a
  weight."""
  axes = figure.subplots(len(rows), len(WEIGHTS), sharex="col", sharey="col")
  shown = np.flatnonzero(np.arange(label.size) % max(label.size // 700, 1) == 0)
  for line, row in zip(axes, rows):
    for i, axis in enumerate(line):
      axis.scatter(*goals[i][0][shown].T, s=3, color="0.85", linewidths=0)
      axis.scatter(*samples[row][i][shown].T, s=3, c=label[shown], cmap="tab10", vmin=0, vmax=9, linewidths=0)
      reach = 1.15 * np.abs(goals[i][0]).max()
      axis.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", xticks=[], yticks=[])
    line[0].set_ylabel(f"{row[0]}, {row[1]} steps", fontsize=9)


def images(
  figure: Any, rows: Any, samples: Mapping[tuple[str, int], Any], goals: Sequence[Any], label: np.ndarray
) -> None:
  """Digits from the same noise, two of each class: a row for each of `rows`, a block for each of two
  weights."""
  del goals
  chosen = np.concatenate([np.flatnonzero(label == c)[:2] for c in np.unique(label)])
  axes = figure.subplots(2 * len(rows), 1)
  for block, i in enumerate((1, 3)):
    for j, row in enumerate(rows):
      axis = axes[block * len(rows) + j]
      strip = np.concatenate(
        [np.pad(image[..., 0], 1, constant_values=-1.0) for image in samples[row][i][chosen]], axis=1
      )
      axis.imshow(strip, cmap="gray_r", vmin=-1.0, vmax=1.0)
      axis.set(xticks=[], yticks=[])
      axis.set_ylabel(
        f"w = {WEIGHTS[i]:g}\n{row[0]}, {row[1]}", fontsize=7, rotation=0, ha="right", va="center"
      )
