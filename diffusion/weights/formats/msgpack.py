"""Flax's msgpack: nested maps, with arrays as an extension type.

    extension 1   an array: [shape, name of the dtype, bytes], row-major
    extension 2   a complex number: [real, imaginary]
    extension 3   a number of NumPy, as extension 1
    a map with __msgpack_chunked_array__   {shape, chunks}: an array of more than 1 GiB in flat pieces

Source: flax/serialization.py of Flax 0.12.8; github.com/msgpack/msgpack, spec.md. Nothing of it could be run:
it has no names of functions. It is read here and not by `msgpack_restore`, for that one holds the file and
every array in memory at once, keeps the last of two equal keys, and cannot leave an array out.
"""

import dataclasses
import math
import struct
from typing import Any

import numpy as np

from diffusion.weights.contents import Contents, StoredArray
from diffusion.weights.formats import dtypes, mapped, trees
from diffusion.weights.formats.mapped import Damaged, Source, Span, printable, sound

CHUNKED = "__msgpack_chunked_array__"

SHORT = 1024
"""Bytes up to which a text of bytes is copied; longer ones become a `Span`."""

STARTS = frozenset((*range(0x81, 0x90), 0xDE, 0xDF))
"""First bytes of a map that is not empty."""


def read(source: Source, notes: dict[str, Any]) -> Contents:
  """A whole file.

  Raises UserError for a damaged one.
  """
  with sound(source.path, "msgpack of Flax"):
    reader = _Reader(source, 0, source.size)
    root = reader.value(0)
    reader.done()
    arrays, tree = trees.flat(root, source.size)
  return Contents(source.path, "flax msgpack", arrays, notes | {"tree": tree})


class _Reader:
  def __init__(self, source, start, stop):
    self.source, self.at, self.stop = source, start, stop

  def skip(self, count):
    """Where the next bytes are, which are passed over."""
    if count > self.stop - self.at:
      raise Damaged(f"{count} bytes are wanted from byte {self.at}, and it ends at byte {self.stop}")
    self.at += count
    return self.at - count

  def whole(self, kind):
    first = self.skip(struct.calcsize(kind))
    return struct.unpack(kind, self.source.bytes(first, struct.calcsize(kind)))[0]

  def done(self):
    if self.at != self.stop:
      raise Damaged(f"{self.stop - self.at} bytes follow its end")

  def value(self, depth):
    """The next object."""
    if depth > trees.DEEP:
      raise Damaged("its maps are nested without end")
    code = self.whole("B")
    if code < 0x80:
      return code
    if code >= 0xE0:
      return code - 256
    if code < 0x90:
      return self.map(code & 15, depth)
    if code < 0xA0:
      return self.list(code & 15, depth)
    if code < 0xC0:
      return self.text(code & 31)
    if code in PLAIN:
      return PLAIN[code]
    if code in NUMBERS:
      return self.whole(NUMBERS[code])
    if code in SIZED:
      kind, do = SIZED[code]
      return do(self, self.whole(kind), depth)
    if code in FIXED:
      return self.extension(FIXED[code], depth)
    raise Damaged(f"byte {self.at - 1} is no object of msgpack")

  def map(self, count, depth):
    found = {}
    for _ in range(count):
      key = self.value(depth + 1)
      if type(key) not in (str, int, bool, float):
        raise Damaged("a key of a map is no text")
      if key in found:
        raise Damaged(f"the key {printable(key, 60)} stands twice in a map")
      found[key] = self.value(depth + 1)
    return _joined(found) if CHUNKED in found else found

  def list(self, count, depth):
    return [self.value(depth + 1) for _ in range(count)]

  def text(self, count, depth=0):
    return self.source.bytes(self.skip(count), count).decode("utf-8", "surrogatepass")

  def blob(self, count, depth=0):
    first = self.skip(count)
    return self.source.bytes(first, count) if count <= SHORT else Span(self.source, first, count)

  def extension(self, count, depth):
    code = self.whole("b")
    start = self.skip(count)
    inner = _Reader(self.source, start, self.at)
    if code not in (1, 2, 3):
      raise Damaged(f"it has an extension of type {code}, and Flax has 1 to 3")
    if code == 2:
      parts = inner.value(depth + 1)
      inner.done()
      return complex(*parts)
    found = inner.array()
    inner.done()
    if code == 1:
      return found
    number = found.read()
    return number.item() if found.dtype.isbuiltin == 1 else float(number)

  def array(self):
    """[shape, dtype, bytes], whose bytes stay where they are."""
    if self.whole("B") != 0x93:
      raise Damaged("an array is no list of three")
    shape, name = self.value(trees.DEEP - 2), self.value(trees.DEEP)
    if type(name) is bytes:
      name = name.decode()
    code = self.whole("B")
    if type(shape) is not list or name not in dtypes.BY_NAME or code not in BYTES:
      raise Damaged(f"an array has the dtype {printable(name, 40)}")
    length = self.whole(BYTES[code])
    start = self.skip(length)
    found = mapped.array(self.source, start, shape, dtypes.BY_NAME[name], stop=self.at)
    if found.nbytes != length:
      raise Damaged(f"an array of shape {shape} and {name} has {length} bytes")
    return found


PLAIN = {0xC0: None, 0xC2: False, 0xC3: True}

NUMBERS = {0xCA + place: ">" + kind for place, kind in enumerate("fdBHIQbhiq")}

BYTES = {0xC4: ">B", 0xC5: ">H", 0xC6: ">I"}

SIZED: dict[int, Any] = {code: (kind, _Reader.blob) for code, kind in BYTES.items()}
SIZED |= {0xC7 + place: (">" + kind, _Reader.extension) for place, kind in enumerate("BHI")}
SIZED |= {0xD9 + place: (">" + kind, _Reader.text) for place, kind in enumerate("BHI")}
SIZED |= {0xDC + place: (">" + kind, _Reader.list) for place, kind in enumerate("HI")}
SIZED |= {0xDE + place: (">" + kind, _Reader.map) for place, kind in enumerate("HI")}

FIXED = {0xD4: 1, 0xD5: 2, 0xD6: 4, 0xD7: 8, 0xD8: 16}


def _joined(found):
  """The array of which a map holds the flat pieces."""
  shape = _in_order(found["shape"])
  pieces = _in_order(found["chunks"])
  if not pieces or any(type(piece) is not StoredArray or len(piece.shape) != 1 for piece in pieces):
    raise Damaged("an array in pieces has none")
  if any(type(size) is not int or size < 0 for size in shape):
    raise Damaged("an array in pieces has no shape")
  dtype = pieces[0].dtype
  if any(piece.dtype != dtype for piece in pieces) or math.prod(shape) != sum(one.shape[0] for one in pieces):
    raise Damaged(f"the pieces of an array of shape {list(shape)} are not its own")
  return StoredArray(shape, dtype, _Pieces(shape, dtype, pieces).fetch)


def _in_order(numbered):
  """The values of {'0': ..., '1': ...}."""
  if type(numbered) is not dict:
    raise Damaged("an array in pieces has no table of them")
  return tuple(numbered[str(place)] for place in range(len(numbered)))


@dataclasses.dataclass(frozen=True)
class _Pieces:
  """An array whose elements lie in several others, one after the other."""

  shape: tuple[int, ...]
  dtype: np.dtype
  pieces: tuple[StoredArray, ...]

  def fetch(self, index):
    """A part: of each row along the first axis that is wanted, the pieces that it touches."""
    out = mapped.aligned(
      tuple(len(range(*one.indices(size))) for one, size in self._wanted(index)), self.dtype
    )
    if not out.size:
      return out
    (first, *rest), _ = zip(*self._wanted(index)) if self.shape else ((slice(None),), None)
    if not self.shape:
      return self._flat(0, 1).reshape(())
    row = math.prod(self.shape[1:])
    step = max(1, mapped.PIECE // max(1, row * self.dtype.itemsize))
    rows = range(*first.indices(self.shape[0]))
    for start in range(0, len(rows), step):
      some = rows[start : start + step]
      block = self._flat(some[0] * row, (some[-1] + 1) * row).reshape(-1, *self.shape[1:])
      out[start : start + len(some)] = block[(slice(None, None, rows.step), *rest)]
    return out

  def _wanted(self, index):
    return list(zip((*index, *[slice(None)] * (len(self.shape) - len(index))), self.shape))

  def _flat(self, start, stop):
    """Elements from `start` to `stop`."""
    found, before = [], 0
    for piece in self.pieces:
      low, high = max(start - before, 0), min(stop - before, piece.shape[0])
      if low < high:
        found.append(piece.read((slice(low, high),)))
      before += piece.shape[0]
    return np.concatenate(found)
