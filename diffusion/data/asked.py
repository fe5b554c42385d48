"""What samples are told and start from, as functions of the index.

Sample i is told its class and the other conditions. It starts from a record where a process runs between
two data sets.
"""

from collections.abc import Callable

import numpy as np

from diffusion.data.dataset import Dataset
from diffusion.data.sources import Record, Source, gather


def classes_in_turn(dataset: Dataset) -> Callable[[np.ndarray], np.ndarray] | None:
  """The classes of samples, in turn, as a function of their indices.

  The function is from sample indices [n] to classes [n], those that training records have, in turn. None
  without classes.

  >>> from diffusion import data
  >>> labelled = data.Arrays(np.zeros((4, 2)), [1, 3, 1, 3])
  >>> mine = data.describe("mine", labelled, [], split="none", class_names="abcd", present=(1, 3))
  >>> classes_in_turn(mine)(np.arange(5)).tolist()
  [1, 3, 1, 3, 1]
  """
  if not dataset.num_classes:
    return None
  classes = np.asarray(dataset.classes, np.int64)
  return lambda index: classes[index % len(classes)]


def records_of(dataset: Dataset) -> Source:
  """The source whose records lend samples their conditions: the held-out ones, or else the training ones."""
  return dataset.held_out if len(dataset.held_out) else dataset.train


def conditions_of_records(dataset: Dataset) -> Callable[[np.ndarray], dict[str, np.ndarray]] | None:
  """A function from sample indices [n] to all that the model is told, dict(name=[n, ...]) in model values.

  Sample i is told what record i (mod their number) of `records_of` says, its class included, so that the
  conditions of one sample belong together. None for a data set whose only condition is the label: samples
  then go through the classes in turn.
  """
  if not dataset.conditions:
    return None
  return lambda index: dataset.encode(_records(dataset, index))["cond"]


def stored_conditions(dataset: Dataset, index: np.ndarray) -> dict[str, np.ndarray]:
  """The same as stored, without the label: what a file of samples keeps beside them."""
  names = [one.name for one in dataset.conditions if one.kept]
  if not names:
    return {}
  records = _records(dataset, index)
  return {name: records[name] for name in names}


def starts_of_records(dataset: Dataset) -> Callable[[np.ndarray], np.ndarray]:
  """The starts of samples between two data sets, as a function of their indices.

  The function is from sample indices [n] to what samples start from, [n, ...] in model values, where a
  process runs between two data sets.

  Sample i starts from the other half of the pair in record i (mod their number) of `records_of`: of held-out
  pairs in their order, again from the first where there are more samples. Whatever the seed and the batch, i
  decides.

  >>> from diffusion import data
  >>> pairs = data.Arrays(np.zeros((2, 1)), target=np.array([[5.0], [6.0]]))
  >>> mine = data.describe("mine", pairs, pairs, split="none", pair="target")
  >>> starts_of_records(mine)(np.array([0, 1, 2]))[:, 0].tolist()
  [5.0, 6.0, 5.0]
  """
  return lambda index: dataset.encode(_records(dataset, index))["x1"]


def stored_starts(dataset: Dataset, index: np.ndarray) -> np.ndarray:
  """The same as stored, [n, ...]: what a file of samples keeps beside them."""
  if dataset.pair is None:
    raise ValueError(f"{dataset.name} has no pairs: name the other half with pair=...")
  return _records(dataset, index)[dataset.pair.name]


def _records(dataset: Dataset, index: np.ndarray) -> Record:
  """The records [n] that samples [n] belong to."""
  source = records_of(dataset)
  return gather(source, np.asarray(index) % len(source))
