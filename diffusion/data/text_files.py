"""Text by characters, out of files: those of Python's own library, which every machine has, or others."""

import fnmatch
import hashlib
import os
import pathlib
import sysconfig
from collections.abc import Mapping, Sequence

import numpy as np

from diffusion.config.errors import UserError
from diffusion.data.dataset import Dataset
from diffusion.data.scaling import Text
from diffusion.data.sources import Record
from diffusion.data.vocabulary import PRINTABLE, Characters, Vocabulary

STDLIB = "stdlib"
"""What names the folder of the standard library of the Python that runs."""


class Windows:
  """A source of equal pieces of one long text: record i is the `length` values from i * stride on.

  >>> windows = Windows(np.arange(10), 4, 3)
  >>> len(windows), windows[2]["x"].tolist(), windows.gather([0, 1])["x"].tolist()
  (3, [6, 7, 8, 9], [[0, 1, 2, 3], [3, 4, 5, 6]])
  """

  def __init__(self, values: np.ndarray, length: int, stride: int) -> None:
    self.values, self.length, self.stride = values, length, stride

  def __len__(self) -> int:
    return max(0, (len(self.values) - self.length) // self.stride + 1)

  def __getitem__(self, index: int) -> Record:
    if not 0 <= index < len(self):
      raise IndexError(index)
    return {name: array[0] for name, array in self.gather([index]).items()}

  def gather(self, indices: Sequence[int] | np.ndarray) -> Record:
    """Records as stacked arrays; text has no classes, and its labels are -1."""
    starts = np.asarray(indices, np.int64) * self.stride
    x = self.values[starts[:, None] + np.arange(self.length)[None, :]]
    return {"x": x, "label": np.full(len(starts), -1, np.int32)}


def text_files(
  patterns: Sequence[str] = ("**/*.py",),
  *,
  root: str = STDLIB,
  leave_out: Sequence[str] = ("site-packages/*", "dist-packages/*"),
  length: int = 128,
  stride: int = 0,
  characters: str = PRINTABLE,
  held_out: float = 0.05,
  sha256: str = "",
  name: str = "",
) -> Dataset:
  """Windows of the text of files, by characters.

  Files are taken in the order of their names and put one after another, a new line between two. A file is
  held out where the hash of its name says so, so that what is held out does not depend on the other files.
  Training windows begin at every `stride`-th character and may hold the end of a file and the beginning of
  the next; held-out ones do not overlap.

  Args:
    patterns: of the files, relative to the root, such as '**/*.py' for those of all folders.
    root: a folder; 'stdlib' is that of the standard library of the Python that runs.
    leave_out: patterns of relative names that are left out, in which * stands for / too.
    length: characters of a window.
    stride: characters between the beginnings of training windows; 0 for an eighth of the length.
    characters: the vocabulary: the new line and printable ASCII by default. Any other character becomes one
      more value, the last, which is written U+FFFD.
    held_out: share of the files held out: those whose SHA-256 of the name, as a fraction, is below it.
    sha256: what the digest of the text must be; '' for any.
    name: for messages; default the root.
  Returns:
    `Dataset` with `Text`, whose `digest` is the SHA-256 of training and held-out text as values.
  Raises:
    UserError: no files, a text shorter than a window, or another digest than the one asked for.

  >>> import tempfile
  >>> folder = pathlib.Path(tempfile.mkdtemp())
  >>> for number in range(8):
  ...   _ = (folder / f"{number}.txt").write_text("abcdefgh" * (number + 1))
  >>> text = text_files(("*.txt",), root=str(folder), length=16, stride=4, held_out=0.3)
  >>> text.scaling.vocabulary.decode(text.train[1]["x"]), text.scaling.levels
  ('efgh\\nabcdefghabc', 97)
  """
  folder = pathlib.Path(sysconfig.get_paths()["stdlib"] if root == STDLIB else os.path.expanduser(root))
  names = sorted(_names(folder, patterns, leave_out))
  if not names:
    raise UserError(f"no file below {folder} has a name like {', '.join(patterns)}: check path and patterns")
  vocabulary = Characters(characters)
  parts: dict[bool, list[np.ndarray]] = {False: [], True: []}
  for one in names:
    text = (folder / one).read_bytes().decode("utf-8", "replace").replace("\r\n", "\n")
    parts[_share(one) < held_out].append(vocabulary.encode(text + "\n"))
  train, rest = (np.concatenate(found) if found else vocabulary.encode("") for found in parts.values())
  return of_values(
    name or root,
    train,
    rest,
    vocabulary,
    length=length,
    stride=stride,
    sha256=sha256,
    split=f"{len(parts[True])} of {len(names)} files, by a hash of their names, are held out",
  )


def of_values(
  name: str,
  train: np.ndarray,
  held_out: np.ndarray,
  vocabulary: Vocabulary,
  *,
  length: int,
  stride: int = 0,
  sha256: str = "",
  split: str,
) -> Dataset:
  """A `Dataset` of windows of two long texts, given as values of a vocabulary.

  Args:
    name: for messages.
    train, held_out: values [n].
    vocabulary: what they are of.
    length, stride, sha256: see `text_files`.
    split: one sentence saying what is held out.
  Raises:
    UserError: a text shorter than a window, or another digest.
  """
  if length < 2 or stride < 0:
    raise UserError(
      f"length={length} and stride={stride}: a window has two values or more, a stride none below"
    )
  if len(train) < length or len(held_out) < length:
    raise UserError(
      f"{name} has {len(train):,} values to train on and {len(held_out):,} held out, and a window has "
      f"{length}: take a smaller length, more files, or another share held out"
    )
  digest = digest_of({"train": train, "held_out": held_out})
  if sha256 and sha256 != digest:
    raise UserError(
      f"the text of {name} has the SHA-256 {digest} and sha256={sha256} was asked for: results on it are not "
      "comparable (another version of the files?); leave out sha256 to take it all the same"
    )
  return Dataset(
    name=name,
    train=Windows(train, length, stride or max(1, length // 8)),
    held_out=Windows(held_out, length, length),
    shape=(length,),
    num_classes=0,
    class_names=(),
    scaling=Text(vocabulary),
    split=f"{split}: {len(train):,} {vocabulary.unit}s to train on and {len(held_out):,} held out",
    digest=digest,
  )


def digest_of(texts: Mapping[str, np.ndarray]) -> str:
  """The SHA-256 of texts given as values, with their names and lengths."""
  found = hashlib.sha256()
  for name, values in texts.items():
    found.update(f"{name} {len(values)} {values.dtype.itemsize}\n".encode())
    for start in range(0, len(values), 2**24):  # a file mapped into memory is not read as a whole
      found.update(values[start : start + 2**24].tobytes())
  return found.hexdigest()


def _names(folder, patterns, leave_out):
  """The names, relative to the folder and with /, of files that a pattern names and none leaves out."""
  for path in {path for pattern in patterns for path in folder.glob(pattern)}:
    name = path.relative_to(folder).as_posix()
    if path.is_file() and not any(fnmatch.fnmatch(name, pattern) for pattern in leave_out):
      yield name


def _share(name):
  """A number in [0, 1) that is a hash of the name."""
  return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64
