"""Images of an evaluation from a run: its samples, and its data."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from diffusion import sampling
from diffusion.commands.evaluation.sources import Source, pixels
from diffusion.config.errors import UserError
from diffusion.data import classes_in_turn, conditions_of_records
from diffusion.metrics.protocols import Rounding
from diffusion.run.parts import sampler_config


def check_images(dataset: Any) -> None:
  """UserError unless a run's data are images with pixels."""
  shape, levels = tuple(dataset.shape), dataset.scaling.levels
  if len(shape) != 3 or shape[2] not in (1, 3) or levels is None:
    what = f"data of shape {list(shape)}" + ("" if levels else " that are no whole-numbered pixels")
    raise UserError(
      f"a protocol measures pictures, and this run has {what}: evaluate it without --protocol, or give "
      "pictures by "
      "--samples"
    )


def of_run(
  run: Any,
  denoiser: Any,
  solver: Any,
  num: int,
  batch: int,
  seed: int,
  rounding: Rounding,
  sampler: Mapping[str, Any],
) -> Source:
  """Samples of a run as --evaluate draws them, and drawn only when they are read.

  With 256 grey levels model values are rounded by the protocol; with fewer they first become one of the
  data's own levels.
  """
  dataset, scaling = run.parts.dataset, run.parts.dataset.scaling
  told, devices = conditions_of_records(dataset), run.mesh.shape["data"]

  def take(first, count):
    samples = sampling.generate(
      denoiser,
      solver,
      run.parts.shape,
      count,
      seed=seed,
      first=first,
      labels=None if told else classes_in_turn(dataset),
      cond=told,
      starts=sampler_config.starts(run.parts),
      batch=-(-batch // devices) * devices,
      place=run.place,
    )
    x = run.decode(samples.x)
    if scaling.levels != 256 or scaling.dtype != np.float32:
      return pixels(scaling.to_data(x), scaling.levels)
    low, high = scaling.model_range(x)
    return np.asarray(x, np.float32) if low == -1 else (2 * np.asarray(x, np.float32) / high - 1)

  said = {"samples_of": run.source, **run.identity, "seed": seed, "batch": batch}
  return Source(num, said | {"sampler": dict(sampler)}, take, rounding, drawn=True)


def of_data(dataset: Any, split: str, rounding: Rounding, num: int | None = None) -> Source:
  """Images of a run's training or held-out data, as they are stored."""
  source = {"train": dataset.train, "held_out": dataset.held_out}[split]
  if not len(source):
    raise UserError(f"--statistics={split}, and this run has no such records: take the other split")

  def take(first, count):
    return pixels(np.stack([source[i]["x"] for i in range(first, first + count)]), dataset.scaling.levels)

  return Source(min(num or len(source), len(source)), {"data": dataset.name, "split": split}, take, rounding)
