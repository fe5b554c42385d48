"""What is kept of features that stream by, and how far it came, in a folder to go on from."""

import dataclasses
import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from diffusion.metrics.extractors.extractor import Extractor
from diffusion.metrics.frechet import Statistics, merge, statistics
from diffusion.metrics.inception_score import ClassSums


@dataclasses.dataclass(frozen=True)
class Wanted:
  """What to keep of features besides the number of images.

  Attributes:
    sums: outputs whose mean and covariance are wanted.
    rows: [N] bool, whose 'pool' is kept; None for nobody's.
    groups: [N] int, the group of each image in the Inception score; None where it is not wanted.
  """

  sums: tuple[str, ...] = ("pool",)
  rows: np.ndarray | None = None
  groups: np.ndarray | None = None

  @property
  def outputs(self) -> tuple[str, ...]:
    """All outputs that are needed."""
    more = ("pool",) * (self.rows is not None) + ("logits",) * (self.groups is not None)
    return tuple(dict.fromkeys((*self.sums, *more)))


@dataclasses.dataclass(frozen=True)
class Features:
  """What was kept of the features of a set of images.

  Attributes:
    count: images.
    statistics: `Statistics` by output.
    index, rows: images whose 'pool' was kept, in order, and that, [n] and [n, D] float32.
    classes: sums of the Inception score, or None.
  """

  count: int
  statistics: Mapping[str, Statistics]
  index: np.ndarray
  rows: np.ndarray
  classes: ClassSums | None = None


class Sums:
  """Sums over the images so far, and chosen rows.

  Attributes:
    done: images that are in them.
  """

  def __init__(self, extractor: Extractor, wanted: Wanted) -> None:
    """Before the first image."""
    self.done = 0
    self.wanted = wanted
    self.sums: dict[str, Statistics] = {}
    groups = 0 if wanted.groups is None else int(wanted.groups.max()) + 1
    self.classes = ClassSums.zero(groups, extractor.outputs["logits"]) if groups else None
    self.length = extractor.outputs["pool"]
    self.pieces: list[tuple[np.ndarray, np.ndarray]] = []
    self.written = 0

  @classmethod
  def opened(cls, extractor: Extractor, wanted: Wanted, folder: str | None, key: Mapping[str, Any]) -> "Sums":
    """The sums that a folder holds under this key; new ones where it holds none, or others.

    Args:
      extractor: whose features they are of.
      wanted: what to keep.
      folder: of `save`; None for nowhere.
      key: all that decides the numbers, as JSON takes it.
    """
    key = {**key, "wanted": _digest(wanted)}
    state = cls(extractor, wanted)
    if folder is None or not os.path.exists(path := os.path.join(folder, "state.npz")):
      return state
    try:
      with np.load(path) as file:
        if json.loads(str(file["key"])) != json.loads(json.dumps(key)):
          return state
        state.done = int(file["done"])
        for name in wanted.sums:
          state.sums[name] = Statistics(state.done, file[f"{name}/mean"], file[f"{name}/scatter"])
        if state.classes is not None:
          state.classes = ClassSums(*(file[f"classes/{part}"] for part in ("count", "p", "entropy")))
        for number in range(int(file["written"])):
          with np.load(os.path.join(folder, f"rows-{number:06d}.npz")) as rows:
            state.pieces.append((rows["index"], rows["rows"]))
        state.written = len(state.pieces)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):  # not whole: from the beginning
      return cls(extractor, wanted)
    return state

  def add(self, first: int, found: Mapping[str, np.ndarray]) -> None:
    """Adds features by name, [n, ...], of images `first` to `first + n - 1`."""
    wanted = self.wanted
    number = len(next(iter(found.values())))
    for name in wanted.sums:
      new = statistics(found[name])
      self.sums[name] = merge(self.sums[name], new) if name in self.sums else new
    if self.classes is not None and wanted.groups is not None:
      self.classes.add(found["logits"], wanted.groups[first : first + number])
    if wanted.rows is not None:
      chosen = np.flatnonzero(wanted.rows[first : first + number])
      if len(chosen):
        self.pieces.append((first + chosen, found["pool"][chosen]))
    self.done = first + number

  def save(self, folder: str, key: Mapping[str, Any]) -> None:
    """Writes them to a folder: the sums anew, and the rows that came since the last time."""
    key = {**key, "wanted": _digest(self.wanted)}
    os.makedirs(folder, exist_ok=True)
    if len(self.pieces) > self.written:
      new = self.pieces[self.written :]
      joined = (np.concatenate([piece[0] for piece in new]), np.concatenate([piece[1] for piece in new]))
      self.pieces[self.written :] = [joined]
      _write(os.path.join(folder, f"rows-{self.written:06d}.npz"), index=joined[0], rows=joined[1])
      self.written += 1
    arrays: dict[str, Any] = {"key": np.array(json.dumps(key)), "done": self.done, "written": self.written}
    for name, one in self.sums.items():
      arrays |= {f"{name}/mean": one.mean, f"{name}/scatter": one.scatter}
    if self.classes is not None:
      arrays |= {f"classes/{part}": getattr(self.classes, part) for part in ("count", "p", "entropy")}
    _write(os.path.join(folder, "state.npz"), **arrays)

  def features(self, folder: str | None) -> Features:
    """What was kept; the folder goes."""
    empty = (np.zeros(0, int), np.zeros((0, self.length), np.float32))
    index, rows = (np.concatenate([empty[part], *(piece[part] for piece in self.pieces)]) for part in (0, 1))
    if folder is not None and os.path.exists(os.path.join(folder, "state.npz")):
      shutil.rmtree(folder)
    return Features(self.done, self.sums, index, rows, self.classes)


def _digest(wanted):
  """A digest of what is wanted."""
  text = json.dumps(wanted.sums).encode()
  for array in (wanted.rows, wanted.groups):
    text += b"-" if array is None else np.ascontiguousarray(array).tobytes()
  return hashlib.sha256(text).hexdigest()


def _write(path, **arrays):
  """An npz beside its place, then renamed."""
  with open(path + ".tmp", "wb") as file:
    np.savez(file, **arrays)
  os.replace(path + ".tmp", path)
