"""Sources of records with random access: anything with a length whose item i is dict(x=array, label=int).

A source may also have `gather(indices) -> dict(x=[n, ...], label=[n])`; those held in memory do, and a whole
batch is then one indexing operation.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from diffusion.errors import UserError

Record: TypeAlias = dict[str, Any]
"""One record, dict(x=stored values, label=int), or many of them with one more axis in front."""

Augment: TypeAlias = Callable[[Record, np.random.Generator], Record]
"""A random change of one record's stored values, which keeps their shape and type."""


class Source(Protocol):
  """Anything with a length whose item i is a record."""

  def __len__(self) -> int: ...

  def __getitem__(self, index: int, /) -> Record: ...


MEMORY_LIMIT = 2**30  # bytes of decoded data that `cached` keeps without being asked


def gather(source: Source, indices: np.ndarray) -> Record:
  """Records of a source as stacked arrays.

  Args:
    source: a source.
    indices: integers [n].
  Returns:
    dict(x=[n, ...], label=int32 [n]).
  Raises:
    UserError: where records have different shapes.

  >>> gather([dict(x=np.zeros(2), label=7)], [0, 0])["label"].tolist()
  [7, 7]
  """
  whole = getattr(source, "gather", None)
  if whole is not None:
    return whole(indices)
  return stack([source[int(i)] for i in indices])


def stack(records: Sequence[Mapping[str, Any]]) -> Record:
  """A list of records as one dict of arrays; UserError where their shapes differ."""
  shapes = {np.shape(record["x"]) for record in records}
  if len(shapes) > 1:
    raise UserError(
      f"the images have different sizes, {_some(shapes)}: give image_size=... to crop and resize them all"
    )
  return {
    "x": np.stack([record["x"] for record in records]),
    "label": np.array([record["label"] for record in records], dtype=np.int32),
  }


def _some(shapes):
  return ", ".join("x".join(map(str, shape)) for shape in sorted(shapes)[:3])


class Arrays:
  """Records in memory.

  >>> source = Arrays(np.arange(6).reshape(3, 2), [0, 1, 0])
  >>> len(source), source[1]["x"].tolist(), source[1]["label"]
  (3, [2, 3], 1)
  """

  def __init__(self, x: npt.ArrayLike, label: npt.ArrayLike | None = None) -> None:
    self.x = np.asarray(x)
    self.label = np.full(len(self.x), -1, np.int32) if label is None else np.asarray(label).astype(np.int32)
    if self.label.shape != self.x.shape[:1]:
      raise UserError(
        f"there are {len(self.x)} records but labels of shape {self.label.shape}: give one whole number a "
        "record"
      )

  def __len__(self) -> int:
    return len(self.x)

  def __getitem__(self, index: int) -> Record:
    return {"x": self.x[index], "label": int(self.label[index])}

  def gather(self, indices: np.ndarray) -> Record:
    return {"x": self.x[indices], "label": self.label[indices]}


class Subset:
  """Some records of a source, by index."""

  def __init__(self, source: Source, indices: np.ndarray) -> None:
    self.source, self.indices = source, np.asarray(indices)

  def __len__(self) -> int:
    return len(self.indices)

  def __getitem__(self, index: int) -> Record:
    return self.source[int(self.indices[index])]

  def gather(self, indices: np.ndarray) -> Record:
    return gather(self.source, self.indices[np.asarray(indices)])


class Cached:
  """A source that remembers decoded records: the first epoch fills the memory, later ones only index into it.

  Safe under threads (two of them may decode one record twice, with one result). A copy sent to another
  process starts empty.
  """

  def __init__(self, source: Source) -> None:
    self.source = source
    self._forget()

  def __getstate__(self) -> dict[str, Any]:
    return {"source": self.source}

  def __setstate__(self, state: dict[str, Any]) -> None:
    self.__init__(**state)

  def _forget(self):
    first = self.source[0]["x"]
    # `empty` costs no memory until a row is written.
    self.x = np.empty((len(self.source), *np.shape(first)), np.asarray(first).dtype)
    self.label = np.empty(len(self.source), np.int32)
    self.known = np.zeros(len(self.source), bool)

  def __len__(self) -> int:
    return len(self.source)

  def __getitem__(self, index: int) -> Record:
    record = self.gather(np.array([index]))
    return {"x": record["x"][0], "label": int(record["label"][0])}

  def gather(self, indices: np.ndarray) -> Record:
    indices = np.asarray(indices)
    missing = np.unique(indices[~self.known[indices]])
    if len(missing):
      records = gather(self.source, missing)
      if records["x"].shape[1:] != self.x.shape[1:]:
        stack([{"x": self.x[0], "label": 0}, {"x": records["x"][0], "label": 0}])  # raises, naming both sizes
      self.x[missing], self.label[missing] = records["x"], records["label"]
      self.known[missing] = True
    return {"x": self.x[indices], "label": self.label[indices]}


def cached(source: Source, limit: int = MEMORY_LIMIT) -> Source:
  """The source with a memory if its decoded records fit into `limit` bytes, else the source itself."""
  if isinstance(source, Arrays) or np.asarray(source[0]["x"]).nbytes * len(source) > limit:
    return source
  return Cached(source)


def load(source: Source, limit: int | None = None) -> Record:
  """The first `limit` records (default all) as dict(x=[n, ...] stored values, label=int32 [n]).

  >>> load(Arrays(np.eye(3)), limit=2)["x"].shape
  (2, 3)
  """
  return gather(source, np.arange(min(len(source), limit if limit is not None else len(source))))
