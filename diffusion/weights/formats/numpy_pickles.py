"""NumPy's arrays, scalars and dtypes within a pickle, as records that are read later."""

import dataclasses
import math
from typing import Any

import numpy as np

from diffusion.weights.contents import StoredArray
from diffusion.weights.formats import dtypes, mapped
from diffusion.weights.formats.mapped import Damaged, Refused, Source, Span, printable
from diffusion.weights.formats.pickle_machine import Standin


@dataclasses.dataclass(eq=False)
class Dtype:
  """A dtype as a pickle makes it: a name first, the byte order afterwards."""

  dtype: np.dtype
  big_endian: bool = False

  def build(self, state: Any) -> None:
    """(version, byte order, ...) as `numpy.dtype.__reduce__` gives them."""
    if type(state) is not tuple or len(state) < 2 or state[1] not in ("<", ">", "|", "="):
      raise Damaged("a dtype of NumPy has no byte order")
    self.big_endian = state[1] == ">"


@dataclasses.dataclass(eq=False)
class NumpyArray:
  """An array as a pickle makes it: empty first, then with its numbers."""

  state: Any = None

  def build(self, state: Any) -> None:
    """(version, shape, dtype, columns first, bytes)."""
    self.state = state

  def stored(self) -> StoredArray:
    """The array, whose numbers stay where they are."""
    if type(self.state) is not tuple or len(self.state) != 5 or type(self.state[2]) is not Dtype:
      raise Damaged("an array of NumPy has no numbers of a plain dtype")
    _, shape, kind, columns, numbers = self.state
    return _stored(shape, kind, bool(columns), numbers)


def names() -> dict[tuple[str, str], Standin]:
  """What stands for the names of NumPy."""
  found = {
    ("numpy", "ndarray"): Standin("numpy.ndarray"),
    ("numpy", "dtype"): Standin("numpy.dtype", _dtype),
  }
  for core in ("numpy.core", "numpy._core"):
    found[f"{core}.multiarray", "_reconstruct"] = Standin("numpy._reconstruct", _empty)
    found[f"{core}.multiarray", "scalar"] = Standin("numpy.scalar", _scalar)
    found[f"{core}.numeric", "_frombuffer"] = Standin("numpy._frombuffer", _from_buffer)
  for name in dtypes.BY_NAME:
    for module in ("numpy", "ml_dtypes"):
      found[module, name] = Standin(f"{module}.{name}")
  found["numpy", "bool_"] = Standin("numpy.bool")
  return found


def _dtype(kind: Any, *_: Any) -> Dtype:
  """`numpy.dtype('f4', ...)`, and of a class of `ml_dtypes`."""
  if type(kind) is Standin:
    kind = kind.name.partition(".")[2]
  elif type(kind) is str and kind[1:].isdigit() and kind[0] in "biufc":
    kind = np.dtype(kind).name
  if type(kind) is not str or kind not in dtypes.BY_NAME:
    raise Refused(
      f"holds an array of NumPy's dtype {printable(kind, 40)}, and only numbers are read: save it without "
      "that array"
    )
  return Dtype(dtypes.BY_NAME[kind])


def _empty(*_: Any) -> NumpyArray:
  return NumpyArray()


def _stored(shape, kind, columns, numbers):
  if type(numbers) is str:  # bytes of Python 2
    numbers = numbers.encode("latin-1")
  if type(numbers) is bytes:
    numbers = Span(Source("an array of NumPy", numbers), 0, len(numbers))
  if type(numbers) is not Span or type(shape) is not tuple:
    raise Damaged("an array of NumPy has no bytes")
  strides = tuple(math.prod(shape[:axis]) for axis in range(len(shape))) if columns else None
  found = mapped.array(
    *(numbers.source, numbers.start, shape, kind.dtype),
    strides=strides,
    stop=numbers.start + numbers.length,
    big_endian=kind.big_endian,
  )
  if found.nbytes != numbers.length:
    raise Damaged(f"an array of shape {list(shape)} and {kind.dtype} has {numbers.length} bytes")
  return found


def _scalar(kind: Any, numbers: Any) -> Any:
  if type(kind) is not Dtype:
    raise Damaged("a number of NumPy has no dtype")
  number = _stored((), kind, False, numbers).read()
  return number.item() if kind.dtype.isbuiltin == 1 else float(number)


def _from_buffer(numbers: Any, kind: Any, shape: Any, order: Any) -> NumpyArray:
  """An array in protocol 5."""
  return NumpyArray((1, shape, kind, order == "F", numbers))
