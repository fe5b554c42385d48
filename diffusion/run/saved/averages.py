"""Weights of a run by the name of an average: one that the checkpoint keeps, or one made of snapshots.

A relative length that the run did not keep is made of the averages in its snapshots up to the checkpoint
(`saved.snapshots`) and in the checkpoint itself, by the factors of `run.posthoc`.
"""

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from diffusion.config.errors import UserError
from diffusion.run import ema, posthoc
from diffusion.run.saved import checkpoints, digests, weights, workdir as workdirs


class Average(NamedTuple):
  """Where the weights of a model are.

  Attributes:
    name: half-life in images or relative length, as text; None for the parameters themselves.
    checkpoint: its folder.
    parts: (folder, name of the average there, factor) of what is added up; () for what the checkpoint keeps.
    error: of the profile, see `posthoc.Combination`; 0 for what the checkpoint keeps.
  """

  name: str | None
  checkpoint: str
  parts: tuple[tuple[str, str, float], ...] = ()
  error: float = 0.0

  @property
  def said(self) -> str:
    """The average in words."""
    if self.name is None:
      return "parameters"
    if not self.parts:
      return f"average {self.name}"
    return (
      f"average of relative length {self.name} made of {len(self.parts)} stored ones, its profile within "
      f"{self.error:.2g} of the norm"
    )

  def read(self, like: Any = None) -> tuple[Any, dict[str, Any]]:
    """(parameters, mutable collections), as `weights.read_weights` gives them; `like` is the same as there.

    Of one that is made of others every snapshot is compared with its digests first, and no more than four
    times the weights are in memory at once. Raises UserError for a snapshot that is damaged.
    """
    if not self.parts:
      return weights.read_weights(self.checkpoint, "model", self.name, like)
    for folder in sorted({folder for folder, _, _ in self.parts} - {self.checkpoint}):
      wrong = digests.problem(folder)
      if wrong:
        raise UserError(
          f"the snapshot {folder} is damaged ({wrong}): put it back from a backup, or delete that folder to "
          "do without it"
        )
    # Differences from the newest average, which are small where the factors are large, and whose sum has
    # their total, 1, in it whatever the rounding.
    (folder, name, _), *others = reversed(self.parts)
    start, collections = weights.read_weights(folder, "model", name, like)
    total = start
    alone = None if like is None else (like[0], {})
    for folder, name, factor in others:
      found, _ = weights.read_weights(folder, "model", name, alone)
      add = lambda so_far, one, first, factor=factor: so_far + np.asarray(factor, one.dtype) * (one - first)
      total = jax.tree.map(add, total, found, start)
    return total, collections


def choose(checkpoint: str, config: Any, asked: str | None = None) -> Average:
  """The average of a run that is meant, and of what it is made; nothing but names is read.

  Args:
    checkpoint: its folder.
    config: of the run.
    asked: see `ema.average_name`.

  Raises UserError for no average of the run's, for a relative length where there are no snapshots, and for
  one that they stand for only badly.
  """
  name, training = ema.average_name(config, asked), config["training"]
  if name is None or name in ema.averages(training):
    return Average(name, checkpoint)
  lengths = ema.lengths(training)
  folder = workdirs.snapshots(os.path.dirname(os.path.dirname(checkpoint)))
  last = int(os.path.basename(checkpoint))
  before = [step for step in checkpoints.steps(folder) if step < last]
  if not before:
    raise UserError(
      f"the relative length {name} is made of snapshots, and there are none up to step {last} in {folder}; "
      f"without them there are {', '.join(ema.averages(training))}"
    )
  sources = [
    (checkpoints.path_of(folder, step) if step < last else checkpoint, step, stored)
    for step in (*before, last)
    for stored in lengths
  ]
  of = [step for _, step, _ in sources], [posthoc.power_gamma(lengths[stored]) for *_, stored in sources]
  weighed = posthoc.combine(*of, last, posthoc.power_gamma(float(name)))
  if weighed.error > posthoc.NEAR:
    within = posthoc.reach(*of, last)
    near = f"name one from {within[0]:g} to {within[1]:g}" if within else "name one that the run keeps"
    raise UserError(
      f"the {len(before)} snapshots up to step {last} in {folder} give the relative length {name} only to "
      f"{weighed.error:.0%} of its profile, and {posthoc.NEAR:.0%} is allowed: {near}"
    )
  parts = zip(sources, weighed.weights.tolist(), strict=True)
  return Average(
    name, checkpoint, tuple((place, stored, factor) for (place, _, stored), factor in parts), weighed.error
  )


def of_run(
  folder: str, step: int | None, average: str | None, name: str, where: str, say: Callable[[str], None]
) -> tuple[Any, dict[str, Any]]:
  """(parameters, mutable collections) of another run's model, as nested dicts of NumPy arrays.

  Args:
    folder: of that run.
    step: of its checkpoint; None for the newest that is undamaged.
    average: half-life in images or relative length, as text; 'none' for the parameters themselves, None for
      the first average of that run.
    name: of what the weights are for; `say` is told it and where they are from.
    where: names the section in messages.

  Raises UserError where there is no such checkpoint or average.
  """
  chosen = checkpoints.choose(workdirs.checkpoints(folder), step, say=say)
  if chosen is None:
    raise UserError(f"{where}: that run has no checkpoint yet; train it first")
  found = choose(chosen, workdirs.read(folder), average)
  read = found.read()
  say(f"{name} from {chosen}, {found.said}")
  return read
