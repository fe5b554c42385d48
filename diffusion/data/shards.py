"""Many samples as many files of a fixed number each, written by any number of processes, at any time.

    samples/manifest.json               what was asked for: checkpoint, sampler, seed, size of a shard
            000000000-000008191.npz     stored [n, ...], index [n], with classes label [n], and the digest of
                                        the manifest

A file appears under its name when it is whole. Its name says which samples it holds, and sample i depends on
(seed, i) alone, so who writes it and when makes no difference, and what is there already need not be made
again.
"""

import hashlib
import json
import os
import re
import zipfile
from collections.abc import Iterator
from typing import Any

import numpy as np

from diffusion.config.errors import UserError

MANIFEST = "manifest.json"
NAME = re.compile(r"(\d{9,})-(\d{9,})\.npz")


def name(first: int, count: int) -> str:
  """The file of samples `first` to `first + count - 1`.

  >>> name(8192, 8192)
  '000008192-000016383.npz'
  """
  return f"{first:09d}-{first + count - 1:09d}.npz"


def plan(first: int, num: int, size: int, process: int = 0, processes: int = 1) -> list[tuple[int, int]]:
  """(first index, number of samples) of each shard that one process writes: every `processes`-th one.

  >>> plan(0, 25, 10), plan(0, 25, 10, process=1, processes=2)
  ([(0, 10), (10, 10), (20, 5)], [(10, 10)])
  """
  whole = [(start, min(size, first + num - start)) for start in range(first, first + num, size)]
  return whole[process::processes]


def claim(folder: str, command: dict[str, Any], num: int) -> str:
  """Makes the folder and its manifest, or checks that what it holds belongs to the same command.

  Args:
    folder: where the shards go.
    command: what decides the samples, as JSON takes it; with `first` and `size`, which decide the files'
      names.
    num: how many samples are asked for; more may be asked for later.

  Returns:
    the digest of the command, which every shard carries.

  Raises:
    UserError: the manifest or a file is another command's.
  """
  command = json.loads(json.dumps(command))
  text = json.dumps(command, indent=1, sort_keys=True) + "\n"
  path = os.path.join(folder, MANIFEST)
  os.makedirs(folder, exist_ok=True)
  if not os.path.exists(path):
    # Processes that begin together write the same file.
    own = f"{path}.{os.getpid()}.tmp"
    with open(own, "w") as file:
      file.write(text)
      file.flush()
      os.fsync(file.fileno())
    os.replace(own, path)
  try:
    with open(path) as file:
      there = json.load(file)
  except ValueError:
    raise UserError(
      f"{path} is not whole: delete it if the shards beside it are of this command, or give another folder"
    ) from None
  different = [key for key in sorted({*there, *command}) if there.get(key) != command.get(key)]
  if different:
    shown = "; ".join(
      f"{key} is {_short(there.get(key))} there and {_short(command.get(key))} here" for key in different[:3]
    )
    raise UserError(
      f"{folder} holds samples of another command: {shown}; give another --shards folder, or the same flags "
      "to go on"
    )
  expected = {name(*shard) for shard in plan(command["first"], num, command["size"])}
  for found in sorted(os.listdir(folder)):
    match = NAME.fullmatch(found)
    if match and found not in expected:
      start, last = map(int, match.groups())
      if (
        start < command["first"]
        or (start - command["first"]) % command["size"]
        or last - start + 1 != command["size"]
      ):
        raise UserError(
          f"{os.path.join(folder, found)} is no shard of --num={num} samples in files of {command['size']}: "
          "the last file of a smaller --num"
          " was shorter; delete it, or give another --shards folder"
        )
  return hashlib.sha256(text.encode()).hexdigest()


def _short(value):
  text = json.dumps(value)
  return text if len(text) <= 60 else text[:57] + "..."


def problem(path: str, first: int, count: int, digest: str) -> str | None:
  """What is wrong with a shard, in a few words, or None.

  None if it is whole and of this command; 'missing' if it is not there.
  """
  if not os.path.exists(path):
    return "missing"
  try:
    with zipfile.ZipFile(path) as file:
      if file.testzip() is not None:
        return "its content is not as it was written"
    with np.load(path) as arrays:
      if str(arrays["command"]) != digest:
        return "it is of another command"
      if not np.array_equal(arrays["index"], first + np.arange(count)) or len(arrays["stored"]) != count:
        return "it holds other samples than its name says"
  except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, NotImplementedError) as error:
    return f"it cannot be read ({str(error).splitlines()[0] if str(error) else type(error).__name__})"
  return None


def write(path: str, digest: str, **arrays: Any) -> None:
  """Writes a shard beside its place and renames it when it is on the disk."""
  with open(path + ".tmp", "wb") as file:
    np.savez(file, command=np.array(digest), **arrays)
    file.flush()
    os.fsync(file.fileno())
  os.replace(path + ".tmp", path)


def read(folder: str) -> Iterator[dict[str, np.ndarray]]:
  """The shards of a folder in the order of their indices, as dicts of arrays, one after another.

  >>> import tempfile
  >>> with tempfile.TemporaryDirectory() as folder:
  ...   digest = claim(folder, {"first": 0, "size": 2, "seed": 0}, num=3)
  ...   for first, count in plan(0, 3, 2):
  ...     path, index = os.path.join(folder, name(first, count)), first + np.arange(count)
  ...     write(path, digest, stored=np.zeros((count, 1)), index=index)
  ...   [shard["index"].tolist() for shard in read(folder)]
  [[0, 1], [2]]
  """
  names = filter(None, map(NAME.fullmatch, os.listdir(folder)))
  for found in sorted(names, key=lambda found: int(found.group(1))):
    with np.load(os.path.join(folder, found.string)) as arrays:
      yield {key: arrays[key] for key in arrays.files if key != "command"}
