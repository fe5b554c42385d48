"""Samples of a run, and what they are worth beside training and held-out data."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from diffusion import metrics, sampling
from diffusion.data import classes_in_turn, conditions_of_records, load, stored_starts
from diffusion.run.parts import sampler_config

# Real records that the metrics are measured against, at the most; drawn where there are more.
MOST_REAL = 10000


def real_data(dataset: Any, seed: int = 0, most: int = MOST_REAL) -> tuple[dict, dict, dict]:
  """(training records, held-out records, how many of how many) that samples are measured against.

  At most `most` of each, drawn by the seed where there are more, for sources are often sorted by class; a set
  that is taken whole keeps its order.
  """
  train = load(dataset.train, most, seed)
  held = (
    load(dataset.held_out, most, seed)
    if len(dataset.held_out)
    else {name: array[:0] for name, array in train.items()}
  )
  counts = {
    "training": subset_of(len(train["x"]), len(dataset.train), seed),
    "held_out": subset_of(len(held["x"]), len(dataset.held_out), seed),
  }
  return train, held, counts


def subset_of(records: int, whole: int, seed: int) -> dict[str, int]:
  """How a subset is written down in metrics.json.

  >>> subset_of(10, 1000, 0)
  {'of': 1000, 'records': 10, 'seed': 0}
  """
  return {"of": whole, "records": records, "seed": seed}


def draw(
  run: Any,
  denoiser: Any,
  solver: Any,
  num: int,
  batch: int,
  seed: int = 0,
  progress: Callable[[int], Any] | None = None,
  trajectory: bool = False,
) -> tuple[Any, float]:
  """Samples of a run, and how long they took: (`sampling.Samples`, seconds).

  Classes come in turn, or samples are told whatever the records say that they are told by. Where the
  process runs between two data sets, samples start from records.

  Args:
    run: of `open_run`.
    denoiser, solver: of `make_sampler`.
    num, batch, seed, progress, trajectory: as for `sampling.generate`; the batch is rounded up to a multiple
      of the devices that share it.
  """
  dataset = run.parts.dataset
  devices = run.mesh.shape["data"]
  told = conditions_of_records(dataset)
  begun = time.perf_counter()
  samples = sampling.generate(
    denoiser,
    solver,
    run.parts.shape,
    num,
    seed=seed,
    labels=None if told else classes_in_turn(dataset),
    cond=told,
    starts=sampler_config.starts(run.parts),
    batch=-(-batch // devices) * devices,
    place=run.place,
    trajectory=trajectory,
    progress=progress,
  )
  return samples, time.perf_counter() - begun


def starts(parts: Any, num: int) -> np.ndarray | None:
  """What the first `num` samples start from, as stored; None where the prior is drawn."""
  return None if sampler_config.starts(parts) is None else stored_starts(parts.dataset, np.arange(num))


def measure(
  dataset: Any,
  stored: np.ndarray,
  labels: np.ndarray | None,
  train: Mapping[str, np.ndarray],
  held: Mapping[str, np.ndarray],
  seed: int = 0,
  starts: np.ndarray | None = None,
) -> dict[str, Any]:
  """What samples are worth, by the metrics of points for vectors, of text, and of images for all else.

  Args:
    dataset: of the run.
    stored: samples [n, ...] in stored values.
    labels: [n] classes they were drawn for, or None.
    train, held: records of `real_data`.
    seed: of the draws inside the metrics.
    starts: [n, ...] stored values that samples of vectors started from: how far from the data they were.

  Returns:
    A dict of JSON types; `left_out` in it says what could not be measured.
  """
  if dataset.scaling.vocabulary is not None:
    return metrics.evaluate_text(stored, train["x"], held["x"], dataset.scaling.levels)
  if len(dataset.shape) == 1:
    found = metrics.evaluate_points(stored, train["x"], held["x"], seed=seed)
    if starts is not None and "sliced_wasserstein" in found:
      found["sliced_wasserstein_starts"] = metrics.sliced_wasserstein(starts, held["x"])
    return found
  of = lambda records: records["label"] if dataset.num_classes else None
  return metrics.evaluate_samples(stored, labels, train["x"], of(train), held["x"], of(held))
