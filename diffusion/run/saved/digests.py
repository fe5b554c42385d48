"""A SHA-256 of every file of a folder, so that a truncated or flipped byte is seen before it is used."""

import hashlib
import json
import os

NAME = "digests.json"


def _digest(path: str) -> str:
  with open(path, "rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


def _files(folder: str) -> list[str]:
  found = (
    os.path.relpath(os.path.join(place, name), folder)
    for place, _, names in os.walk(folder)
    for name in names
  )
  return sorted(name for name in found if name != NAME)


def _text(table: dict[str, str]) -> str:
  listing = json.dumps(table, sort_keys=True)
  return json.dumps(
    {"files": table, "sha256": hashlib.sha256(listing.encode()).hexdigest()}, indent=1, sort_keys=True
  )


def write(folder: str) -> None:
  """Writes the digest of every file now in `folder` to `digests.json` there, and flushes all to the disk."""
  table = {name: _digest(os.path.join(folder, name)) for name in _files(folder)}
  with open(os.path.join(folder, NAME), "w") as file:
    file.write(_text(table))
    file.flush()
    os.fsync(file.fileno())


def problem(folder: str) -> str | None:
  """What is wrong with the files of `folder`, in a few words; None if each is as it was written."""
  path = os.path.join(folder, NAME)
  if not os.path.exists(path):
    return f"{NAME} is missing"
  try:
    with open(path, "rb") as file:
      text = file.read().decode()
    table = json.loads(text)["files"]
    whole = _text(table) == text  # the list of digests guards itself too
  except (ValueError, KeyError, TypeError, AttributeError):
    whole = False
  if not whole:
    return f"{NAME} is damaged"
  present = _files(folder)
  for name in sorted({*table, *present}):
    if name not in present:
      return f"{name} is missing"
    if name not in table:
      return f"{name} was not there when it was saved"
    if _digest(os.path.join(folder, name)) != table[name]:
      return f"{name} is not as it was written"
  return None
