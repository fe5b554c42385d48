"""Bytes of a file without reading it: a memory map, and arrays that are gathered from it piece by piece.

Every size that a file states is compared with the file's own length before anything is made of it.
"""

import contextlib
import dataclasses
import math
import mmap
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from diffusion.config.errors import UserError
from diffusion.weights.contents import StoredArray

PIECE = 4 * 2**20
"""Bytes that are copied at a time: what reading takes beside the arrays."""

REPEATED = 2**20
"""Bytes that an array may take though its file is smaller, because it repeats elements (a stride of 0)."""


class Damaged(ValueError):
  """What is wrong with a file, as half a sentence; `sound` makes it whole."""


class Refused(Exception):
  """What a whole file asks for and is not given, from the verb on; `sound` puts the path before it."""


def printable(text: Any, most: int = 120) -> str:
  """Text from a file as one line that does no harm to a terminal.

  >>> printable("conv_in" + chr(10) + chr(27))
  'conv_in\\\\n\\\\x1b'
  """
  line = str(text).encode("unicode_escape", "backslashreplace").decode("ascii")
  return line if len(line) <= most else line[: most - 3] + "..."


@contextlib.contextmanager
def sound(path: str, kind: str) -> Iterator[None]:
  """Within, whatever goes wrong with bytes that do not fit a format becomes one sentence.

  Parsers meet every error of Python on damaged bytes (an index out of range, a text that is no number,
  nesting without end): all of them say one thing about the file.
  """
  try:
    yield
  except Refused as error:
    raise UserError(f"{path} {error}") from None
  except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, RecursionError) as error:
    raise UserError(_sentence(path, kind, error)) from error
  except (struct.error, zlib.error, EOFError, MemoryError) as error:
    raise UserError(_sentence(path, kind, error)) from error


def _sentence(path, kind, error):
  what = (
    printable(error, 200) if type(error) is Damaged else printable(f"{type(error).__name__}: {error}", 200)
  )
  return f"{path} cannot be read as {kind} ({what}): it may be damaged or cut short, fetch it again"


class Source:
  """Bytes that can be addressed: a file, or what is in memory.

  Args:
    path: for messages.
    buffer: a memory map or bytes.
  """

  def __init__(self, path: str, buffer: Any) -> None:
    self.path, self.buffer, self.size = path, buffer, len(buffer)

  def bytes(self, start: int, length: int) -> bytes:
    """A copy of a few bytes; `Damaged` if the file ends before them."""
    self.check(start, length)
    return bytes(self.buffer[start : start + length])

  def check(self, start: int, length: int) -> None:
    """`Damaged` unless all of these bytes are there."""
    if start < 0 or length < 0 or start + length > self.size:
      raise Damaged(f"it has {self.size} bytes, and {length} are wanted from byte {start}")

  def release(self, start: int, stop: int) -> None:
    """Gives the memory of bytes that were read back to the system; they stay readable."""
    if type(self.buffer) is mmap.mmap and hasattr(mmap, "MADV_DONTNEED"):
      start -= start % mmap.PAGESIZE
      self.buffer.madvise(mmap.MADV_DONTNEED, start, min(stop, self.size) - start)


@dataclasses.dataclass(frozen=True, eq=False)
class Span:
  """A run of bytes of a source that is not read: large texts and numbers within a pickle or a message."""

  source: Source
  start: int
  length: int

  def bytes(self) -> bytes:
    """A copy of them."""
    return self.source.bytes(self.start, self.length)


def opened(path: str) -> Source:
  """The file as a memory map.

  Raises UserError if it is not there, is empty or may not be read.
  """
  try:
    with open(path, "rb") as file:
      if os.fstat(file.fileno()).st_size == 0:
        raise UserError(f"{path} is empty: fetch it again")
      return Source(path, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
  except OSError as error:
    raise UserError(
      f"{path} cannot be opened ({error.strerror or error}): give the path of a file or folder of weights"
    ) from None


def array(
  source: Source,
  start: int,
  shape: Sequence[int],
  dtype: np.dtype,
  *,
  strides: Sequence[int] | None = None,
  stop: int | None = None,
  big_endian: bool = False,
  checksum: int = 0,
) -> StoredArray:
  """An array whose elements lie in a source.

  Args:
    source: the bytes.
    start: byte of its first element.
    shape: of the array.
    dtype: of the elements, in this machine's byte order.
    strides: elements from one to the next along each axis, none negative; row-major if None.
    stop: byte before which all of it must lie; the source's end if None.
    big_endian: True if the bytes of an element stand the other way round.
    checksum: CRC-32 of the array's little-endian bytes, compared when all of it is read; 0 for none.
  Raises:
    Damaged: if it does not lie there.
  """
  shape, dtype = tuple(_whole(size) for size in shape), np.dtype(dtype.type)
  if len(shape) > 32:
    raise Damaged(f"an array of {len(shape)} axes")
  if strides is None:
    steps = tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
  else:
    steps = tuple(_whole(step) for step in strides)
  if len(steps) != len(shape):
    raise Damaged(f"an array has {len(shape)} axes and {len(steps)} strides")
  count = math.prod(shape)
  reach = 1 + sum((size - 1) * step for size, step in zip(shape, steps)) if count else 0
  stop = source.size if stop is None else stop
  if reach and (start < 0 or stop > source.size or start + reach * dtype.itemsize > stop):
    raise Damaged(
      f"an array of shape {list(shape)} and {dtype} wants bytes {start} to {start + reach * dtype.itemsize}, "
      f"and there are {stop}"
    )
  if count * dtype.itemsize > max(source.size, REPEATED):
    raise Damaged(f"an array of shape {list(shape)} repeats the {reach} elements that it has")
  laid = _Laid(source, start, shape, steps, dtype, reach, big_endian, checksum)
  return StoredArray(shape, dtype, laid.fetch)


@dataclasses.dataclass(frozen=True)
class _Laid:
  """Where the elements of an array lie."""

  source: Source
  start: int
  shape: tuple[int, ...]
  strides: tuple[int, ...]
  dtype: np.dtype
  reach: int
  big_endian: bool
  checksum: int

  def fetch(self, index):
    """A part of the array, copied; memory of the map is given back after every piece."""
    if not self.reach:
      return np.empty(self.shape, self.dtype)[index]
    raw, size = _raw(self.dtype, self.big_endian), self.dtype.itemsize
    steps = tuple(step * size for step in self.strides)
    part = np.ndarray(self.shape, raw, self.source.buffer, self.start, steps)[index]
    out = aligned(part.shape, raw.newbyteorder("="))
    end = self.start + self.reach * size
    for piece in _pieces(part):
      out[piece] = part[piece]
      self.source.release(self.start, end)
    if (
      self.checksum
      and out.shape == self.shape
      and zlib.crc32(out.reshape(-1).view(np.uint8).data) != self.checksum
    ):
      raise UserError(
        f"{self.source.path} is damaged: an array of shape {list(self.shape)} is not the one that was "
        "written (its CRC-32 differs): fetch the file again"
      )
    return out.view(self.dtype)


def _whole(value):
  """A size or a stride, which is a whole number and not negative."""
  if type(value) is not int or not 0 <= value < 2**62:
    raise Damaged(f"{printable(value, 40)} stands where a size should")
  return value


def _raw(dtype, big_endian):
  """The dtype of the bytes in the file; what NumPy cannot turn round is moved as whole numbers."""
  if dtype.isbuiltin != 1:
    dtype = np.dtype(f"u{dtype.itemsize}")
  return dtype.newbyteorder(">" if big_endian else "<")


def aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
  """An empty array that starts at a multiple of 64 bytes: JAX on a CPU takes it as it is, without a copy."""
  count = math.prod(shape) * dtype.itemsize
  block = np.empty(count + 64, np.uint8)
  first = -block.ctypes.data % 64
  return block[first : first + count].view(dtype).reshape(shape)


def _pieces(part):
  """Indices that cut an array along the axis of its longest step, so that a piece is a short run of it."""
  if part.nbytes <= PIECE or not part.ndim:
    yield ...
    return
  axis = max(range(part.ndim), key=lambda one: (part.shape[one] > 1) * part.strides[one])
  rows = max(1, PIECE * part.shape[axis] // part.nbytes)
  for first in range(0, part.shape[axis], rows):
    yield (slice(None),) * axis + (slice(first, first + rows),)
