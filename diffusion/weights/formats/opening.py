"""Which format a file or folder has, by its first bytes and not by its name."""

import os
from typing import Any

from diffusion.config.errors import UserError
from diffusion.weights.contents import Contents
from diffusion.weights.formats import (
  mapped,
  msgpack,
  orbax,
  pickled,
  safetensors,
  torch_stream,
  torch_zip,
)

KNOWN = (
  "safetensors (one file, an index of shards or a folder of diffusers), PyTorch's .pt, .pth and .bin, the "
  "pickles of EDM and EDM2, Flax's msgpack, and Orbax"
)

OTHERS = {
  b"version https://git-lfs": "the pointer of Git LFS and not the file: run 'git lfs pull' in its folder",
  b"<": "a page of text and not the file: fetch it again from the address of the file itself",
  b"\x1f\x8b": "packed by gzip: unpack it first",
  b"\x93NUMPY": "one array of NumPy: save arrays by name with weights.write_safetensors",
  b"\x89HDF": "an HDF5 file: save its arrays by name with weights.write_safetensors",
}

IN_FOLDERS = (
  "diffusion_pytorch_model.safetensors.index.json",
  "diffusion_pytorch_model.safetensors",
  "model.safetensors.index.json",
  "model.safetensors",
  "diffusion_pytorch_model.bin",
  "pytorch_model.bin",
  "diffusion_flax_model.msgpack",
  "flax_model.msgpack",
)
"""What diffusers and transformers call weights, in the order in which they are taken."""

CONFIG = 2**24
"""Bytes that a config.json may have."""


def read(path: str) -> Contents:
  """What a file of published weights, or a folder of them, holds; arrays are read when they are asked for.

  Nothing in a file is run, whatever it asks for, and nothing is written.

  Args:
    path: a file; a folder with a file of diffusers' or transformers' name in it, and its config.json; a
      folder of Orbax, or one that holds one.
  Returns:
    `Contents`: arrays by dotted name, and all else as plain data.
  Raises:
    UserError: for a format that is not known, a damaged or shortened file, arrays that lie outside of it or
      over each other, a name that stands twice, and for a name in a pickle that is not among those that are
      read: it says which.
  """
  path = os.path.expanduser(os.fspath(path))
  if os.path.isdir(path):
    return _folder(path)
  source = mapped.opened(path)
  notes = _config_beside(path)
  start = source.bytes(0, min(32, source.size))
  for known, what in OTHERS.items():
    if start.startswith(known):
      raise UserError(f"{path} is {what}")
  if start.startswith(torch_zip.START):
    return torch_zip.read(source, notes)
  if start[:1] == b"\x80" and torch_stream.START in start:
    return torch_stream.read(source, notes)
  if start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
    return pickled.read(source, notes)
  if start[8:9] == b"{":
    return safetensors.read(source, notes)
  if start[:1] == b"{":
    return safetensors.read_index(source, notes)
  if start[0] in msgpack.STARTS:
    return msgpack.read(source, notes)
  raise UserError(
    f"{path} begins with {mapped.printable(start[:8].hex(' '))}, which is no format of weights that is read: "
    f"known are {KNOWN}"
  )


def _folder(path):
  """A folder of diffusers, of Orbax, or one that holds such a folder."""
  if orbax.is_one(path):
    return orbax.read(path, _config_beside(path))
  for name in IN_FOLDERS:
    if os.path.isfile(os.path.join(path, name)):
      return read(os.path.join(path, name))
  if os.path.isfile(os.path.join(path, "model_index.json")):
    parts = sorted(name for name in os.listdir(path) if os.path.isdir(os.path.join(path, name)))
    raise UserError(f"{path} is a whole pipeline of diffusers: give one of its folders, {', '.join(parts)}")
  within = [name for name in sorted(os.listdir(path)) if orbax.is_one(os.path.join(path, name))]
  if len(within) == 1:
    return orbax.read(os.path.join(path, within[0]), _config_beside(os.path.join(path, within[0])))
  files = sorted(name for name in os.listdir(path) if name.endswith((".safetensors", ".bin", ".msgpack")))
  there = ", ".join((files or within)[:4]) or "none of them"
  raise UserError(
    f"{path} has no weights under a name that is looked for ({', '.join(IN_FOLDERS)}, or one folder of "
    f"Orbax); there is {there}: give the path of the file itself"
  )


def _config_beside(path):
  """{'config': ...} of the config.json in the same folder; nothing if there is none."""
  beside = os.path.join(os.path.dirname(os.path.abspath(path)), "config.json")
  if not os.path.isfile(beside) or not 0 < os.path.getsize(beside) <= CONFIG:
    return {}
  with mapped.sound(beside, "a config"):
    source: Any = mapped.opened(beside)
    return {"config": safetensors.parsed(source.bytes(0, source.size))}
