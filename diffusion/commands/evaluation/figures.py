"""Pictures of a run: samples beside data, the way from noise to data, and the loss."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from diffusion import metrics, pictures, solvers
from diffusion.commands.evaluation.samples import draw, starts
from diffusion.run import logging

# Samples that the grid picture chooses from.
MOST_SHOWN = 200
# Rows of the picture of trajectories.
MOST_ROWS = 20
# What the noise level of a process is called above a picture, by what lies at t_max; else times are shown.
LEVEL = {"normal": "σ/α", "mask": "1-α"}
# Red, green and blue of a masked pixel.
MASK_COLOUR = (0.55, 0.72, 0.95)


def draw_samples(
  path: str,
  parts: Any,
  stored: np.ndarray,
  labels: np.ndarray | None,
  train: Mapping[str, np.ndarray],
  held: Mapping[str, np.ndarray],
) -> None:
  """Draws samples beside training data or held-out data, as a PNG.

  Samples are shown as their kind of data is (`pictures.show`), beside their nearest training data or beside
  held-out data. In the plane what they started from is shown too.

  Args:
    path: of the PNG.
    parts: of the run.
    stored, labels: samples [n, ...] in stored values, and their classes or None.
    train, held: records; without held-out ones training data are drawn.
  """
  dataset, data = parts.dataset, held["x"] if len(held["x"]) else train["x"]
  value_range = dataset.scaling.shown_range(data)
  if len(dataset.shape) == 1:
    pictures.show(path, stored, data, value_range=value_range, starts=starts(parts, len(stored)))
    return
  few = stored[:MOST_SHOWN]
  near, beside = metrics.near_zero(few, train["x"])
  nearest = metrics.nearest_neighbours(near, beside)
  pictures.show(
    path,
    few,
    data,
    value_range=value_range,
    neighbours=np.asarray(train["x"])[nearest.indices],
    distances=nearest.distances,
    labels=None if labels is None else labels[:MOST_SHOWN],
    class_names=dataset.class_names or None,
  )


def draw_trajectory(path: str, run: Any, denoiser: Any, solver: Any, data: np.ndarray) -> None:
  """States of the solver from noise to data, a row a class or a sample; images, signals and volumes.

  Args:
    path: of the PNG.
    run, denoiser, solver: of `open_run` and `make_sampler`; a solver that sizes its own steps has no states.
    data: [M, ...] stored values, which say what is black and white where the data have no levels.
  """
  dataset = run.parts.dataset
  number = min(len(dataset.classes), MOST_ROWS) or 8
  some, _ = draw(run, denoiser, solver, number, number, trajectory=True)
  process, states, times = run.denoiser.process, some.trajectory, solver.times
  if run.parts.codec is not None:
    data_values = run.decode(states.reshape(-1, *states.shape[2:]))
    shown = np.asarray(run.parts.codec.show(data_values))
    states = shown.reshape(*states.shape[:2], *shown.shape[1:])
  if isinstance(solver, solvers.Table):
    # Rows in the middle of a step are left out.
    finished = np.flatnonzero(np.append(True, np.any(np.asarray(solver.hook) != 0, axis=-1)))
    states, times = states[finished], np.asarray(solver.t)[finished]
  known = times is not None and np.shape(times) == (len(states),)
  symbol, levels = "step", np.arange(len(states))
  if known:
    symbol, levels = LEVEL.get(process.ends[1], "t"), np.asarray(times, np.float64)
    levels = levels if symbol == "t" else process.level(levels)
  value_range = dataset.scaling.model_range(data)
  if process.ends[1] == "mask":
    states = _masks_shown(states, process.mask, value_range)
  pictures.trajectory(
    path,
    np.stack([pictures.as_items(state, value_range[1]) for state in states]),
    levels,
    labels=some.labels,
    class_names=dataset.class_names or None,
    value_range=value_range,
    symbol=symbol,
  )


def _masks_shown(states, mask, value_range):
  """States [K, N, ...] with their masks made visible.

  Masks have a colour of their own where the states are grey images, else they are halfway between black and
  white.
  """
  low, high = value_range
  states, masked = np.asarray(states, np.float64), np.asarray(states) == mask
  if states.ndim != 5 or states.shape[-1] != 1:
    return np.where(masked, 0.5 * (low + high), states)
  return np.where(masked, low + (high - low) * np.asarray(MASK_COLOUR), states)


def draw_loss(workdir: str, step: int, held_out_loss: float | None = None) -> None:
  """loss.png in the workdir, from the run's log; nothing without a log.

  Args:
    workdir: of the run.
    step, held_out_loss: a point of the curve beside training, if there is one.
  """
  log = logging.read(os.path.join(workdir, "log.jsonl"))
  if log:
    held_out = None if held_out_loss is None else ([step], [held_out_loss])
    pictures.loss_curve(
      os.path.join(workdir, "loss.png"), [row["step"] for row in log], [row["loss"] for row in log], held_out
    )
