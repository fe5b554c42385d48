"""Two data sets as one of pairs, for processes that run from one to the other."""

import dataclasses

import numpy as np

from diffusion.config.errors import UserError
from diffusion.data import sources
from diffusion.data.dataset import Dataset
from diffusion.data.named import other_half
from diffusion.data.scaling import Standardize
from diffusion.data.sources import Record, Source

OTHER = "x1"
"""The array of a record that holds the second set's x."""


class Paired:
  """A source whose record i is record i of `first`, with x of a record of `second` as `x1`.

  The partner is drawn: a fixed permutation of `second`, gone through again where `first` is longer. There are
  as many records as in the longer of the two, so that all of both are seen.
  """

  def __init__(self, first: Source, second: Source, seed: int) -> None:
    self.first, self.second = first, second
    self.partner = np.random.default_rng(seed).permutation(len(second))

  def __len__(self) -> int:
    return max(len(self.first), len(self.second)) if len(self.first) and len(self.second) else 0

  def __getitem__(self, index: int) -> Record:
    if not 0 <= index < len(self):
      raise IndexError(index)
    other = self.second[int(self.partner[index % len(self.second)])]
    return {**self.first[index % len(self.first)], OTHER: other["x"]}

  def gather(self, indices: np.ndarray) -> Record:
    """Records as stacked arrays."""
    indices = np.asarray(indices)
    partners = self.partner[indices % len(self.second)]
    found = sources.gather(self.first, indices % len(self.first))
    return {**found, OTHER: sources.gather(self.second, partners)["x"]}


def two_sets(first: Dataset, second: Dataset, *, seed: int = 0) -> Dataset:
  """Two data sets as pairs that are independent of each other.

  x is of the first, at t_min of a process between them, and x1 of the second, at t_max, where sampling
  starts.

  Classes, conditions and scaling are those of the first; both are scaled alike, by its numbers.

  Args:
    first, second: data sets whose x have one shape; in a config sections with a factory each.
    seed: of who is whose partner; integer >= 0.
  Returns:
    `Dataset` with a pair.
  Raises:
    UserError: x of two shapes, or of two scalings of whole numbers.

  >>> from diffusion import data
  >>> pairs = two_sets(data.toy2d("moons", 100, held_out_size=10), data.toy2d("rings", 90, held_out_size=9))
  >>> len(pairs.train), len(pairs.held_out), sorted(pairs.batch_shapes)
  (100, 10, ['cond', 'x', 'x1'])
  """
  what = f"two_sets joins {first.name} and {second.name}"
  if first.shape != second.shape:
    raise UserError(
      f"{what}, whose examples have shapes {list(first.shape)} and {list(second.shape)}: bring them to one "
      "shape"
    )
  real = all(one.scaling.likelihood == Standardize.likelihood for one in (first, second))
  if first.scaling != second.scaling and not real:
    raise UserError(
      f"{what}, whose whole numbers are scaled differently, {first.scaling} and {second.scaling}: give both "
      "the same levels, centered and dequantization"
    )
  train = Paired(first.train, second.train, seed)
  return dataclasses.replace(
    first,
    name=f"{first.name} from {second.name}",
    train=train,
    held_out=Paired(first.held_out, second.held_out, seed),
    pair=other_half(OTHER, train, first.scaling),
    split=f"{first.split}; of the second set: {second.split}",
    notes=(*first.notes, *second.notes),
  )
