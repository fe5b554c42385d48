"""PyTorch's files before 1.6 (and `_use_new_zipfile_serialization=False`): pickles in a row, then numbers.

    magic number, protocol 1001, what machine wrote it, the object, the keys of its storages: five pickles
    for each key, in that order: the count as 8 bytes, then the numbers

A storage within EDM's pickles is such a file too (torch/serialization.py, `_legacy_load`, PyTorch 2.14).
"""

import struct
from typing import Any

from diffusion.weights.contents import Contents
from diffusion.weights.formats import pickle_machine, torch_tensors, trees
from diffusion.weights.formats.mapped import Damaged, Source, printable, sound

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001

START = b"\x8a\x0a" + MAGIC.to_bytes(10, "little")
"""Among the first bytes of such a file, after what a protocol of pickles has before them."""


def read(source: Source, notes: dict[str, Any]) -> Contents:
  """A whole file.

  Raises UserError for a damaged one, and for whatever `allowed` does not know.
  """
  with sound(source.path, "PyTorch's old format"):
    arrays, tree = trees.flat(parsed(source, 0, source.size), source.size)
  return Contents(source.path, "torch stream", arrays, notes | {"tree": tree})


def parsed(source: Source, start: int, stop: int) -> Any:
  """What such a file holds, within a source; its storages know where they lie."""
  from diffusion.weights.formats import allowed

  find, found = allowed.find, {}
  persistent = lambda key: torch_tensors.storage_of(key, found)
  magic, at = pickle_machine.run(source, start, stop, find)
  protocol, at = pickle_machine.run(source, at, stop, find)
  if magic != MAGIC or protocol != PROTOCOL:
    raise Damaged(f"its protocol is {printable(protocol, 20)}, and {PROTOCOL} is known")
  machine, at = pickle_machine.run(source, at, stop, find)
  root, at = pickle_machine.run(source, at, stop, find, persistent)
  keys, at = pickle_machine.run(source, at, stop, find)
  if type(machine) is not dict or type(keys) is not list or len(set(keys)) != len(keys):
    raise Damaged("its list of storages is none")
  for key in keys:
    if key not in found:
      raise Damaged(f"it has a storage {printable(key)} that no tensor uses")
    storage = found[key]
    (count,) = struct.unpack("<q", source.bytes(at, 8))
    if count != storage.count or at + 8 + storage.nbytes > stop:
      raise Damaged(
        f"a storage of {storage.count} elements has {count}, and {stop - at - 8} bytes are left of the file"
      )
    storage.source, storage.start = source, at + 8
    storage.big_endian = machine.get("little_endian") is False
    at += 8 + storage.nbytes
  if at != stop:
    raise Damaged(f"{stop - at} bytes follow its last storage")
  return root
