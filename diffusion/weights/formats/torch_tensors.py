"""PyTorch's tensors within a pickle: storages of numbers, and tensors that are views of them.

A tensor is `_rebuild_tensor_v2(storage, offset, shape, strides, ...)`, in elements; several may share a
storage (torch/_utils.py, torch/serialization.py of PyTorch 2.14).
"""

import dataclasses
import math
from typing import Any

import numpy as np

from diffusion.weights.contents import StoredArray
from diffusion.weights.formats import dtypes, mapped
from diffusion.weights.formats.mapped import Damaged, Refused, Source, Span, printable
from diffusion.weights.formats.pickle_machine import Record, Standin


@dataclasses.dataclass(frozen=True)
class StorageType:
  """A class of storages, as the persistent id of one names it; dtype is None for one of bytes."""

  dtype: np.dtype | None


@dataclasses.dataclass(eq=False)
class Storage:
  """Numbers in a row; where they lie may be known only after the pickle was read.

  Attributes:
    dtype: of the numbers, None if the tensors on it say which.
    count: how many there are: bytes if dtype is None.
    source, start: where they are.
    big_endian: True if the bytes of each stand the other way round.
    checksum: CRC-32 of all of them, 0 for none.
  """

  dtype: np.dtype | None
  count: int
  source: Source | None = None
  start: int = 0
  big_endian: bool = False
  checksum: int = 0

  @property
  def nbytes(self) -> int:
    """Bytes of all of them."""
    return self.count * (1 if self.dtype is None else self.dtype.itemsize)


@dataclasses.dataclass(frozen=True, eq=False)
class Part:
  """A part of a storage that is shared, from element `first` on."""

  storage: Storage
  first: int
  count: int


@dataclasses.dataclass(frozen=True, eq=False)
class Tensor:
  """A view of a storage; offset and strides are in elements."""

  storage: Any
  offset: Any
  shape: Any
  strides: Any
  dtype: np.dtype | None = None

  def stored(self) -> StoredArray:
    """The array, whose numbers stay where they are."""
    storage, offset, limit = self.storage, self.offset, None
    if type(storage) is Part:
      storage, offset, limit = storage.storage, offset + storage.first, storage.first + storage.count
    if type(storage) is not Storage or type(offset) is not int or offset < 0:
      raise Damaged("a tensor has no storage")
    dtype = self.dtype or storage.dtype
    if dtype is None:
      raise Damaged("a tensor has no dtype")
    if storage.source is None:
      if storage.nbytes == 0:
        return mapped.array(Source("an empty storage", b""), 0, self.shape, dtype, strides=self.strides)
      raise Damaged("the storage of a tensor is not there")
    length = storage.nbytes if limit is None else min(storage.nbytes, limit * dtype.itemsize)
    shape, steps = tuple(self.shape), tuple(self.strides)
    alone = offset == 0 and math.prod(shape) * dtype.itemsize == storage.nbytes
    return mapped.array(
      *(storage.source, storage.start + offset * dtype.itemsize, shape, dtype),
      strides=steps,
      stop=storage.start + length,
      big_endian=storage.big_endian,
      checksum=storage.checksum if alone and _row_major(shape, steps) else 0,
    )


def storage_of(key: Any, found: dict[Any, Storage]) -> Any:
  """What stands for a persistent id: ('storage', type, key, device, count[, part]), or a class.

  Args:
    key: the id.
    found: storages by key, to which a new one is added.
  """
  if type(key) is not tuple or not key:
    raise Damaged(f"it keeps {printable(key, 60)} outside of itself")
  if key[0] == "module" and len(key) == 4:
    return key[1]
  if (
    key[0] != "storage"
    or len(key) not in (5, 6)
    or type(key[1]) is not StorageType
    or type(key[4]) is not int
  ):
    raise Damaged(f"it keeps {printable(key[0], 60)} outside of itself")
  kind, name, count = key[1], key[2], key[4]
  if count < 0 or type(name) is not str:
    raise Damaged(f"a storage has {count} elements")
  storage = found.setdefault(name, Storage(kind.dtype, count))
  if (storage.dtype, storage.count) != (kind.dtype, count):
    raise Damaged(f"the storage {printable(name)} has two sizes")
  if len(key) == 6 and key[5] is not None:
    _, first, length = key[5]
    if type(first) is not int or type(length) is not int or first < 0 or length < 0 or first + length > count:
      raise Damaged("a part of a storage is not within it")
    return Part(storage, first, length)
  return storage


def names() -> dict[tuple[str, str], Any]:
  """What stands for the names of PyTorch."""
  found: dict[tuple[str, str], Any] = {}

  def add(module, name, call=None):
    found[module, name] = Standin(f"{module}.{name}", call)

  for name, call in (
    ("_rebuild_tensor", _tensor),
    ("_rebuild_tensor_v2", _tensor),
    ("_rebuild_tensor_v3", _tensor_v3),
    ("_rebuild_parameter", _first),
    ("_rebuild_parameter_with_state", _first),
  ):
    add("torch._utils", name, call)
  add("torch._tensor", "_rebuild_from_type_v2", _from_type)
  add("torch.storage", "_load_from_bytes", _nested)
  add("torch", "Size", lambda sizes=(): tuple(sizes))
  add("torch", "device", lambda kind, index=None: str(kind) if index is None else f"{kind}:{index}")
  for module, name in (
    *(("torch", "Tensor"), ("torch._tensor", "Tensor")),
    *(("torch.nn.parameter", "Parameter"), ("torch.nn.parameter", "Buffer")),
  ):
    add(module, name)
  for name, dtype in dtypes.TORCH_STORAGES.items():
    for module in ("torch", "torch.cuda", "torch.storage"):
      found[module, name] = StorageType(dtype)
  for name in ("UntypedStorage", "_UntypedStorage"):
    found["torch.storage", name] = found["torch", name] = StorageType(None)
  for name in dtypes.BY_NAME:
    add("torch", name)
  return found


def _row_major(shape, strides):
  expected = tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
  return all(size == 1 or step == want for size, step, want in zip(shape, strides, expected))


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *more: Any) -> Tensor:
  """(requires_grad, hooks, metadata) may follow; a lazy conjugate or negative is not what its numbers say."""
  _no_flags(more[2] if len(more) > 2 else None)
  return Tensor(storage, offset, _sizes(shape), _sizes(strides))


def _tensor_v3(
  storage: Any, offset: Any, shape: Any, strides: Any, grad: Any, hooks: Any, kind: Any, *more: Any
) -> Tensor:
  _no_flags(more[0] if more else None)
  name = kind.name.partition(".")[2] if type(kind) is Standin else ""
  if name not in dtypes.BY_NAME:
    raise Damaged("a tensor has no dtype that is known")
  return Tensor(storage, offset, _sizes(shape), _sizes(strides), dtypes.BY_NAME[name])


def _no_flags(flags):
  if flags:
    raise Refused(
      f"holds a tensor with the flags {printable(', '.join(map(str, flags)), 60)}, whose numbers are not "
      "its values: save tensor.resolve_conj().resolve_neg() of it"
    )


def _sizes(sizes):
  if type(sizes) not in (tuple, list):
    raise Damaged("a tensor has no shape")
  return tuple(sizes)


def _first(data: Any, *_: Any) -> Any:
  """A parameter is its tensor."""
  return data


def _from_type(rebuild: Any, kind: Any, args: Any, state: Any) -> Any:
  """A tensor of a subclass, or with attributes: the tensor."""
  plain = (
    "torch.Tensor",
    "torch._tensor.Tensor",
    "torch.nn.parameter.Parameter",
    "torch.nn.parameter.Buffer",
  )
  if type(kind) is not Standin or kind.name not in plain:
    raise Refused("holds a tensor of a class of its own: save tensor.as_subclass(torch.Tensor) of it")
  if type(rebuild) is not Standin or not rebuild.name.startswith("torch._utils.") or type(args) is not tuple:
    raise Damaged("a tensor is made by something else than PyTorch")
  return rebuild.call(*args) if rebuild.call else None


def _nested(numbers: Any) -> Any:
  """A storage that was pickled by itself: the bytes of a file in the stream format."""
  from diffusion.weights.formats import torch_stream

  if type(numbers) is bytes:
    numbers = Span(Source("a storage in memory", numbers), 0, len(numbers))
  if type(numbers) is not Span:
    raise Damaged("a storage has no bytes")
  found = torch_stream.parsed(numbers.source, numbers.start, numbers.start + numbers.length)
  if type(found) not in (Storage, Record):
    raise Damaged("bytes that should hold a storage hold something else")
  return found
