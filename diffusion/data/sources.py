"""Sources of records with random access: anything with a length whose item i is dict(x=array, label=int).

A record may hold further arrays by name (`low_resolution`, `tokens`, the other half of a pair), and may leave
out its label. A source may also have `gather(indices) -> dict(x=[n, ...], label=[n], ...)`; those held in
memory do, and a whole batch is then one indexing operation.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np

from diffusion.config.errors import UserError
from diffusion.data import order

Record: TypeAlias = dict[str, Any]
"""One record, dict(x=stored values, label=int), or many of them with one more axis in front."""

Augment: TypeAlias = Callable[[Record, np.random.Generator], Record]
"""A random change of one record's stored values, which keeps their shape and type."""


class Source(Protocol):
  """Anything with a length whose item i is a record."""

  def __len__(self) -> int: ...

  def __getitem__(self, index: int, /) -> Record: ...


MEMORY_LIMIT = 2**30  # bytes of decoded data that `cached` keeps without being asked


def gather(source: Source, indices: Sequence[int] | np.ndarray) -> dict[str, np.ndarray]:
  """Records of a source as stacked arrays.

  Args:
    source: a source.
    indices: integers [n].
  Returns:
    dict(x=[n, ...], label=int32 [n]) and whatever else the records hold; label is -1 where a record has none.
  Raises:
    UserError: where records have different shapes or names.

  >>> gather([dict(x=np.zeros(2), label=7)], [0, 0])["label"].tolist()
  [7, 7]
  """
  whole = getattr(source, "gather", None)
  if whole is not None:
    return whole(indices)
  return stack([source[int(i)] for i in indices])


def stack(records: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
  """A list of records as one dict of arrays; UserError where their names or shapes differ."""
  names = list(records[0])
  for record in records:
    if record.keys() != records[0].keys():
      raise UserError(
        f"a record has {', '.join(sorted(record))} and another has {', '.join(sorted(names))}: give every "
        "record the same arrays"
      )
  found = {}
  for name in names:
    if name != "label":
      check_shapes(name, [np.shape(record[name]) for record in records])
      found[name] = np.stack([record[name] for record in records])
  return found | {"label": np.array([record.get("label", -1) for record in records], dtype=np.int32)}


def check_shapes(name: str, shapes: Sequence[tuple[int, ...]]) -> None:
  """UserError where the arrays of one name have different shapes."""
  if len(set(shapes)) > 1:
    some = ", ".join("x".join(map(str, shape)) for shape in sorted(set(shapes))[:3])
    raise UserError(
      f"the images have different sizes, {some}: give image_size=... to crop and resize them all"
      if name == "x"
      else f"the arrays '{name}' have different shapes, {some}: bring them to one shape first"
    )


class Arrays:
  """Records in memory: x [n, ...], label [n] (none by default) and further arrays [n, ...] by name.

  >>> source = Arrays(np.arange(6).reshape(3, 2), [0, 1, 0], tokens=np.eye(3, dtype=int))
  >>> len(source), source[1]["x"].tolist(), source[1]["label"], source[1]["tokens"].tolist()
  (3, [2, 3], 1, [0, 1, 0])
  """

  def __init__(self, x: Any, label: Any = None, **named: Any) -> None:
    self.x = np.asarray(x)
    self.label = np.full(len(self.x), -1, np.int32) if label is None else np.asarray(label).astype(np.int32)
    if self.label.shape != self.x.shape[:1]:
      raise UserError(
        f"there are {len(self.x)} records but labels of shape {self.label.shape}: give one whole number a "
        "record"
      )
    self.named = {name: np.asarray(array) for name, array in named.items()}
    for name, array in self.named.items():
      if array.shape[:1] != self.x.shape[:1]:
        raise UserError(
          f"there are {len(self.x)} records but '{name}' has shape {array.shape}: give one entry a record"
        )

  def __len__(self) -> int:
    return len(self.x)

  def __getitem__(self, index: int) -> dict[str, Any]:
    named = {name: array[index] for name, array in self.named.items()}
    return {"x": self.x[index], "label": int(self.label[index])} | named

  def gather(self, indices: Any) -> dict[str, np.ndarray]:
    """Records as stacked arrays."""
    named = {name: array[indices] for name, array in self.named.items()}
    return {"x": self.x[indices], "label": self.label[indices]} | named


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
    first = stack([self.source[0]])
    # `empty` costs no memory until a row is written.
    self.arrays = {
      name: np.empty((len(self.source), *array.shape[1:]), array.dtype) for name, array in first.items()
    }
    self.known = np.zeros(len(self.source), bool)

  def __len__(self) -> int:
    return len(self.source)

  def __getitem__(self, index: int) -> Record:
    record = self.gather(np.array([index]))
    return {name: array[0] for name, array in record.items()} | {"label": int(record["label"][0])}

  def gather(self, indices: Any) -> dict[str, np.ndarray]:
    """Records as stacked arrays; those not seen before are decoded."""
    indices = np.asarray(indices)
    missing = np.unique(indices[~self.known[indices]])
    if len(missing):
      records = gather(self.source, missing)
      for name, array in self.arrays.items():
        check_shapes(name, [array.shape[1:], records[name].shape[1:]])
        array[missing] = records[name]
      self.known[missing] = True
    return {name: array[indices] for name, array in self.arrays.items()}


def cached(source: Source, limit: int = MEMORY_LIMIT) -> Source:
  """The source with a memory if its decoded records fit into `limit` bytes, else the source itself."""
  if isinstance(source, Arrays):
    return source
  size = sum(np.asarray(array).nbytes for array in source[0].values())
  return source if size * len(source) > limit else Cached(source)


def load(source: Source, limit: int | None = None, seed: int | None = None) -> dict[str, np.ndarray]:
  """Records as dict(x=[n, ...] stored values, label=int32 [n]) and what else they hold.

  Args:
    source: a source.
    limit: how many; None for all.
    seed: None for the first ones; a number draws which (see `order.subset`). Sources are often sorted by
      class, so what stands for the whole is drawn.

  >>> load(Arrays(np.eye(3)), limit=2)["x"].shape
  (2, 3)
  """
  if limit is None or limit >= len(source):
    return gather(source, np.arange(len(source)))
  return gather(source, np.arange(limit) if seed is None else order.subset(len(source), limit, seed))
