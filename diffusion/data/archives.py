"""Files by number, from a folder or from a zip.

Both have the same few methods: `names`, `read(index) -> bytes`, `path`.
"""

import mmap
import os
import struct
import zipfile
import zlib
from typing import Any

from diffusion.config.errors import UserError


class Folder:
  """All files below a folder, by their names relative to it, sorted."""

  def __init__(self, path: str) -> None:
    self.path = path
    self.names = sorted(
      os.path.relpath(os.path.join(parent, name), path).replace(os.sep, "/")
      for parent, _, names in os.walk(path, followlinks=True)
      for name in names
    )

  def read(self, index: int) -> bytes:
    with open(os.path.join(self.path, self.names[index]), "rb") as file:
      return file.read()


class Zip:
  """The members of a zip file, sorted by name.

  The table of contents is read once; a member is then a slice of the mapped file, so any number of threads
  may read at once (Python's own `zipfile` takes a lock for each read) and a copy in another process maps the
  file anew.
  """

  def __init__(self, path: str) -> None:
    self.path = path
    try:
      with zipfile.ZipFile(path) as file:
        members = sorted((m for m in file.infolist() if not m.is_dir()), key=lambda member: member.filename)
    except (zipfile.BadZipFile, OSError, EOFError) as error:
      raise UserError(
        f"{path} cannot be read as a zip ({error}): it may be truncated, fetch it again"
      ) from None
    self.names = [member.filename for member in members]
    self.members = [
      (m.header_offset, m.compress_size, m.file_size, m.compress_type, m.CRC, m.flag_bits & 1)
      for m in members
    ]
    self._map = None

  def __getstate__(self) -> dict[str, Any]:
    return self.__dict__ | {"_map": None}

  def read(self, index: int) -> bytes:
    """The bytes of one member; UserError where they are damaged."""
    if self._map is None:
      with open(self.path, "rb") as file:
        self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    offset, packed, size, method, checksum, encrypted = self.members[index]
    if encrypted or method not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
      raise UserError(
        f"{self.names[index]} in {self.path} is encrypted or packed in a rare way: unpack the zip and give "
        "the folder"
      )
    try:
      # Local header: 26 bytes on, the lengths of the name and of the extra field that stand before the data.
      name_length, extra_length = struct.unpack("<HH", self._map[offset + 26 : offset + 30])
      start = offset + 30 + name_length + extra_length
      content = self._map[start : start + packed]
      if method == zipfile.ZIP_DEFLATED:
        content = zlib.decompress(content, -zlib.MAX_WBITS, size)
    except (struct.error, zlib.error):
      content = b""
    if len(content) != size or zlib.crc32(content) != checksum:
      raise UserError(f"{self.names[index]} in {self.path} is damaged: fetch the zip again")
    return content


def open_archive(path: str) -> Folder | Zip:
  """`Folder` or `Zip` at a path; UserError where there is neither."""
  if os.path.isdir(path):
    return Folder(path)
  if os.path.isfile(path):
    return Zip(path)
  raise UserError(f"there is no file or folder at {path}: check the path")
