"""Pictures of a run: samples beside data, the way from noise to data, and the loss."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from diffusion import metrics, pictures, solvers
from diffusion.evaluation.samples import draw
from diffusion.training import logging

# Samples that the grid picture chooses from.
MOST_SHOWN = 200
# Rows of the picture of trajectories.
MOST_ROWS = 20


def draw_samples(
  path: str,
  dataset: Any,
  stored: np.ndarray,
  labels: np.ndarray | None,
  train: Mapping[str, np.ndarray],
  held: Mapping[str, np.ndarray],
) -> None:
  """Samples as their kind of data is shown (`pictures.show`), beside their nearest training data or beside
  held-out data.

  Args:
    path: of the PNG.
    dataset: of the run.
    stored, labels: samples [n, ...] in stored values, and their classes or None.
    train, held: records; without held-out ones training data are drawn.
  """
  data = held["x"] if len(held["x"]) else train["x"]
  value_range = dataset.scaling.shown_range(data)
  if len(dataset.shape) == 1:
    pictures.show(path, stored, data, value_range=value_range)
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
  states, levels = some.trajectory, np.arange(len(some.trajectory))
  known = isinstance(solver, solvers.Table)
  if known:
    # Rows in the middle of a step are left out.
    finished = np.flatnonzero(np.append(True, np.any(np.asarray(solver.hook) != 0, axis=-1)))
    times = np.asarray(solver.t, np.float64)[finished]
    states, levels = states[finished], run.denoiser.process.marginal(times).noise_to_signal
  value_range = dataset.scaling.model_range(data)
  pictures.trajectory(
    path,
    np.stack([pictures.as_items(state, value_range[1]) for state in states]),
    levels,
    labels=some.labels,
    class_names=dataset.class_names or None,
    value_range=value_range,
    symbol="σ/α" if known else "step",
  )


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
