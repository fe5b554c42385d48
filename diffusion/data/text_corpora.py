"""The corpora that language models by diffusion are measured on, from their own files: text8 and LM1B."""

import hashlib
import os
import pathlib
import zipfile

import numpy as np

from diffusion.config.errors import UserError
from diffusion.data.dataset import Dataset
from diffusion.data.text_files import of_values
from diffusion.data.vocabulary import Characters, WordPieces

TEXT8 = " abcdefghijklmnopqrstuvwxyz"
"""The 27 characters of text8."""

PARTS = ("validation", "test")
"""What of text8 may be held out."""


def text8(
  path: str, *, length: int = 256, stride: int = 0, held_out: str = "test", sha256: str = ""
) -> Dataset:
  """text8, 100 million characters of Wikipedia: the first 90 % to train on, then 5 % validation and 5 % test.

  Args:
    path: the file `text8`, or `text8.zip` as it is handed out.
    length, stride, sha256: see `text_files`.
    held_out: 'test', which published numbers are of, or 'validation'.
  Returns:
    `Dataset` by characters, 27 of them.
  Raises:
    UserError: a file that is not there, or that holds other characters.
  """
  if held_out not in PARTS:
    raise UserError(f"held_out={held_out!r} is no part of text8: choose {' or '.join(PARTS)}")
  path = os.path.expanduser(path)
  try:
    if path.endswith(".zip"):
      with zipfile.ZipFile(path) as archive:
        text = archive.read("text8")
    else:
      text = pathlib.Path(path).read_bytes()
  except (OSError, KeyError, zipfile.BadZipFile) as error:
    raise UserError(f"{path} cannot be read as text8 ({error}): give the file text8 or text8.zip") from None
  vocabulary = Characters(TEXT8, other=False)
  values = vocabulary.encode(text.decode("ascii", "replace").rstrip("\n"))
  first, second = len(values) * 90 // 100, len(values) * 95 // 100
  ends = {"validation": (first, second), "test": (second, len(values))}[held_out]
  return of_values(
    "text8",
    values[:first],
    values[slice(*ends)],
    vocabulary,
    length=length,
    stride=stride,
    sha256=sha256,
    split=f"the first 90 % to train on, and of the last 10 % the half for {held_out}",
  )


def lm1b(
  path: str, vocabulary: str = "", *, length: int = 128, stride: int = 0, cache: str = "", sha256: str = ""
) -> Dataset:
  """The One Billion Word Benchmark in BERT's word pieces, sentence after sentence with [SEP] behind each.

  Windows are packed: they go over the ends of sentences, and none is filled up.

  Args:
    path: the folder `1-billion-word-language-modeling-benchmark-r13output`, with the folders
      `training-monolingual.tokenized.shuffled` and `heldout-monolingual.tokenized.shuffled`. Of the second
      the first file is held out.
    vocabulary: BERT's `vocab.txt`; default that in `path`.
    length, stride, sha256: see `text_files`.
    cache: folder that keeps the word pieces, an hour's work, for the next time; '' for none.
  Returns:
    `Dataset` by word pieces.
  Raises:
    UserError: files that are not there, or the package tokenizers missing.
  """
  folder = pathlib.Path(os.path.expanduser(path))
  pieces = WordPieces(os.path.expanduser(vocabulary) or str(folder / "vocab.txt"))
  train = sorted((folder / "training-monolingual.tokenized.shuffled").glob("news.en-*"))
  rest = sorted((folder / "heldout-monolingual.tokenized.shuffled").glob("news.en.heldout-*"))[:1]
  if not train or not rest:
    raise UserError(
      f"{folder} is not the One Billion Word Benchmark: it needs training-monolingual.tokenized.shuffled/"
      "news.en-* and heldout-monolingual.tokenized.shuffled/news.en.heldout-*"
    )
  parts = [_pieces(files, pieces, os.path.expanduser(cache)) for files in (train, rest)]
  return of_values(
    "lm1b",
    parts[0],
    parts[1],
    pieces,
    length=length,
    stride=stride,
    sha256=sha256,
    split="the benchmark's own training part, and the first of its 50 held-out files",
  )


def _pieces(files, pieces, cache):
  """The word pieces [n] of files, kept in a folder if there is one."""
  what = [pieces.path, str(pieces.size), *(f"{file.name} {file.stat().st_size}" for file in files)]
  kept = os.path.join(cache, f"pieces_{hashlib.sha256(repr(what).encode()).hexdigest()[:16]}.npy")
  if cache and os.path.exists(kept):
    return np.load(kept, mmap_mode="r")
  found = []
  for file in files:
    with open(file, encoding="utf-8") as lines:
      found.append(pieces.encode_sentences(line.strip() for line in lines))
  values = np.concatenate(found)
  if cache:
    os.makedirs(cache, exist_ok=True)
    with open(f"{kept}.{os.getpid()}.tmp", "wb") as file:
      np.save(file, values)
    os.replace(f"{kept}.{os.getpid()}.tmp", kept)
  return values
