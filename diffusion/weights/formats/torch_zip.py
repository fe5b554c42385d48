"""PyTorch's files since 1.6: a zip, not packed, with a pickle and one member a storage.

    NAME/data.pkl     the object; a storage in it is the persistent id ('storage', type, key, device, count)
    NAME/data/KEY     its numbers
    NAME/byteorder    'little' or 'big', since 2.0

Source: torch/serialization.py, caffe2/serialize/inline_container.cc, PyTorch 2.14. PyTorch writes a CRC-32 of
each member, 0 where that is switched off, and does not look at it when it loads; here it is compared.
"""

import itertools
import struct
import zipfile
import zlib
from typing import Any

from diffusion.weights.contents import Contents
from diffusion.weights.formats import allowed, pickle_machine, torch_tensors, trees
from diffusion.weights.formats.mapped import Damaged, Refused, Source, printable, sound

START = b"PK\x03\x04"
"""The first bytes of such a file."""


def read(source: Source, notes: dict[str, Any]) -> Contents:
  """A whole file.

  Raises UserError for a damaged one, for a program of TorchScript, for other zips, and for whatever `allowed`
  does not know.
  """
  with sound(source.path, "PyTorch's zip format"):
    infos = _infos(source)
    folder = _folder({info.filename for info in infos})
    members = _members(source, infos)
    start, length, checksum = members[f"{folder}/data.pkl"]
    if checksum and zlib.crc32(source.bytes(start, length)) != checksum:
      raise Damaged("data.pkl is not what was written: its CRC-32 differs")
    found: dict[Any, torch_tensors.Storage] = {}
    root, end = pickle_machine.run(
      *(source, start, start + length, allowed.find),
      persistent=lambda key: torch_tensors.storage_of(key, found),
    )
    if end != start + length:
      raise Damaged(f"{start + length - end} bytes follow the pickle")
    order = members.get(f"{folder}/byteorder")
    order = b"little" if order is None else source.bytes(*order[:2])
    if order not in (b"little", b"big"):
      raise Damaged(f"its byte order is {printable(order, 20)}")
    for key, storage in found.items():
      name = f"{folder}/data/{key}"
      if name not in members or members[name][1] != storage.nbytes:
        there = members[name][1] if name in members else "no"
        raise Damaged(f"the storage {printable(key)} of {storage.nbytes} bytes has {there} bytes")
      start, _, checksum = members[name]
      storage.source, storage.start, storage.big_endian = source, start, order == b"big"
      storage.checksum = 0 if storage.big_endian else checksum
    arrays, tree = trees.flat(root, source.size)
  return Contents(source.path, "torch zip", arrays, notes | {"tree": tree})


def _infos(source):
  """What the zip's own table says of each member."""
  try:
    with zipfile.ZipFile(source.path) as file:
      return file.infolist()
  except (zipfile.BadZipFile, OSError, NotImplementedError, RuntimeError) as error:
    raise Damaged(f"{error}") from None


def _members(source, infos):
  """{name: (first byte, length, CRC-32)}; none packed, none over another."""
  members, ranges = {}, []
  for info in infos:
    if info.filename in members:
      raise Damaged(f"{printable(info.filename)} is in it twice")
    if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size or info.flag_bits & 1:
      raise Damaged(f"{printable(info.filename)} is packed or encrypted, which PyTorch never does")
    head = source.bytes(info.header_offset, 30)
    if head[:4] != START:
      raise Damaged(f"{printable(info.filename)} is not where the zip says")
    start = info.header_offset + 30 + sum(struct.unpack("<HH", head[26:]))
    source.check(start, info.file_size)
    members[info.filename] = start, info.file_size, info.CRC
    ranges.append((info.header_offset, start + info.file_size, info.filename))
  ranges.sort()
  for (_, end, _), (start, _, name) in itertools.pairwise(ranges):
    if start < end:
      raise Damaged(f"{printable(name)} lies over another member of the zip")
  return members


def _folder(names):
  """The one folder in the zip, which holds data.pkl."""
  folders = [name.removesuffix("/data.pkl") for name in names if name.count("/") == 1]
  folders = [name for name in folders if f"{name}/data.pkl" in names]
  if len(folders) != 1:
    kind = "NumPy's .npz" if any(name.endswith(".npy") for name in names) else "some other zip"
    raise Refused(f"is {kind} without weights of PyTorch: give a file that torch.save wrote, or safetensors")
  if f"{folders[0]}/constants.pkl" in names:
    raise Refused(
      "is a program of TorchScript, which is not read: save the state dict of the model that it was made from"
    )
  return folders[0]
