"""safetensors: a length in 8 bytes, that many bytes of JSON, then row-major little-endian numbers.

The JSON maps each name to dtype, shape and data_offsets from the end of the header; `__metadata__` has texts.
Arrays touch each other and fill the file. Shards: NAME.safetensors.index.json has a weight_map, name -> file.
Source: github.com/huggingface/safetensors, README, "Format".
"""

import json
import os
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

from diffusion.config.errors import UserError
from diffusion.weights.contents import Contents, StoredArray
from diffusion.weights.formats import dtypes, mapped
from diffusion.weights.formats.mapped import Damaged, Refused, printable, sound

HEADER = 100 * 10**6
"""Bytes that a header may have, as in the original."""

TEXTS = {dtype: text for text, dtype in dtypes.SAFETENSORS.items()}


def read(source: mapped.Source, notes: dict[str, Any]) -> Contents:
  """One file.

  Raises UserError for one whose header and length do not fit, and for a dtype of 4 or 6 bits.
  """
  with sound(source.path, "safetensors"):
    metadata, arrays = _header(source)
  return Contents(source.path, "safetensors", arrays, {"metadata": metadata} | notes)


def read_index(source: mapped.Source, notes: dict[str, Any]) -> Contents:
  """The shards that an index names, which lie beside it.

  Raises UserError for a shard that is missing or damaged, or holds other names than the index says.
  """
  with sound(source.path, "an index of safetensors"):
    index = parsed(source.bytes(0, source.size))
    weight_map = index["weight_map"]
    files = sorted({_name_of_file(file) for file in weight_map.values()})
    metadata = index.get("metadata", {})
    if type(metadata) is not dict:
      raise Damaged("its metadata is no table")
  arrays: dict[str, StoredArray] = {}
  folder = os.path.dirname(source.path)
  for file in files:
    shard = read(mapped.opened(os.path.join(folder, file)), {})
    stated = {name for name, where in weight_map.items() if where == file}
    for name in sorted(stated ^ set(shard.arrays)):
      raise UserError(
        f"{printable(name)} is in only one of {source.path} and its shard {file}: fetch both again, from one "
        "revision"
      )
    arrays |= shard.arrays
    metadata = shard.notes["metadata"] | metadata
  ordered = {name: arrays[name] for name in weight_map}
  return Contents(source.path, "safetensors", ordered, {"metadata": metadata} | notes)


def write_safetensors(
  path: str, arrays: Mapping[str, Any], metadata: Mapping[str, str] | None = None
) -> None:
  """Arrays by name, into one file; it is complete or not there.

  Each is written row by row whatever its layout in memory, one at a time. The bytes are those that the
  original library writes.

  Args:
    path: of the file.
    arrays: NumPy or JAX arrays by name.
    metadata: texts by name.
  Raises:
    ValueError: for an array whose dtype the format does not have, or the name '__metadata__'.
  """
  shapes = {}
  for name, one in arrays.items():
    dtype = np.dtype(np.dtype(one.dtype).type)
    if dtype not in TEXTS or name == "__metadata__":
      raise ValueError(
        f"{name} of {dtype} cannot be written as safetensors: its dtypes are {', '.join(dtypes.SAFETENSORS)}"
        ", and __metadata__ is no name"
      )
    shapes[name] = dtype, tuple(int(size) for size in one.shape)
  order = sorted(shapes, key=lambda name: (-_ORDER.index(TEXTS[shapes[name][0]]), name))
  header: dict[str, Any] = {} if metadata is None else {"__metadata__": dict(metadata)}
  end = 0
  for name in order:
    dtype, shape = shapes[name]
    start, end = end, end + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    header[name] = {"dtype": TEXTS[dtype], "shape": list(shape), "data_offsets": [start, end]}
  text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
  text += b" " * (-len(text) % 8)
  try:
    with open(path + ".tmp", "wb") as file:
      file.write(struct.pack("<Q", len(text)) + text)
      for name in order:
        raw = np.ascontiguousarray(arrays[name], shapes[name][0]).reshape(-1)
        file.write(raw.view(np.uint8).data)
    os.replace(path + ".tmp", path)
  except BaseException:
    if os.path.exists(path + ".tmp"):
      os.remove(path + ".tmp")
    raise


_ORDER = (
  *("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"),
  *("I16", "U16", "F16", "BF16", "I32", "U32", "F32", "C64", "F64", "I64", "U64"),
)
"""The original's order of dtypes: the wider of two comes first in a file, so that each array is aligned."""


def parsed(text: bytes) -> dict[str, Any]:
  """JSON with an object at its root.

  Raises Damaged for a key that stands twice in one object.
  """

  def once(pairs):
    found = dict(pairs)
    if len(found) != len(pairs):
      names = [name for name, _ in pairs]
      twice = next(name for name in names if names.count(name) > 1)
      raise Damaged(f"the name {printable(twice)} stands twice")
    return found

  root = json.loads(text.decode("utf-8"), object_pairs_hook=once)
  if type(root) is not dict:
    raise Damaged("its JSON is no object")
  return root


def _header(source):
  """(metadata, arrays) of one file."""
  (length,) = struct.unpack("<Q", source.bytes(0, 8))
  if length > min(HEADER, source.size - 8):
    raise Damaged(f"its header should have {length} bytes, and the file has {source.size}")
  root = parsed(source.bytes(8, length))
  metadata = root.pop("__metadata__", {})
  if type(metadata) is not dict or not all(type(text) is str for text in metadata.values()):
    raise Damaged("its __metadata__ is no table of texts")
  base, ends, arrays = 8 + length, [], {}
  for name, entry in root.items():
    text = entry["dtype"]
    if text not in dtypes.SAFETENSORS:
      raise Refused(
        f"holds {printable(name)} of the dtype {printable(text)}; known are {', '.join(dtypes.SAFETENSORS)}: "
        "save it in one of them"
      )
    start, end = entry["data_offsets"]
    if type(start) is not int or type(end) is not int or not 0 <= start <= end <= source.size - base:
      raise Damaged(f"{printable(name)} lies at {printable([start, end])} of {source.size - base} bytes")
    arrays[name] = mapped.array(
      source, base + start, entry["shape"], dtypes.SAFETENSORS[text], stop=base + end
    )
    if arrays[name].nbytes != end - start:
      raise Damaged(f"{printable(name)} needs {arrays[name].nbytes} bytes and has {end - start}")
    ends.append((start, end, name))
  at = 0
  for start, end, name in sorted(ends):
    if start != at:
      raise Damaged(f"{printable(name)} starts at byte {start}, where the one before it ends at {at}")
    at = end
  if at != source.size - base:
    raise Damaged(f"its arrays end at byte {at} of {source.size - base}")
  return metadata, arrays


def _name_of_file(file):
  """The name of a shard, which lies in the same folder and nowhere else."""
  if type(file) is not str or file != os.path.basename(file) or file in ("", ".", "..") or "\0" in file:
    raise Damaged(f"it names the shard {printable(file)}, and shards lie beside it")
  return file
