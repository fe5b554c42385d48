"""Samples of text: what they are told to keep, and the file that they are written to."""

import hashlib
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from diffusion.config.errors import UserError
from diffusion.run.opened import Opened

HOLE = "_"
"""What marks a place to be filled in --infill, unless --hole says another."""

SHOWN = 8
"""Samples that a command prints."""


def of(dataset: Any, stored: np.ndarray) -> list[str]:
  """The texts of samples [n, L] in stored values, of a data set of text."""
  return [dataset.scaling.vocabulary.decode(row) for row in stored]


def write(path: str, texts: Sequence[str], first: int) -> None:
  """Writes texts to a file, each below a line with its index; the file is there whole or not at all.

  Args:
    path: of the file.
    texts: of the samples.
    first: index of the first one.
  """
  with open(path + ".tmp", "w", encoding="utf-8") as file:
    file.write(listed(texts, first))
  os.replace(path + ".tmp", path)


def listed(texts: Sequence[str], first: int) -> str:
  """Texts below each other, each below a line with its index.

  >>> print(listed(["ab", "cd"], 7), end="")
  --- sample 7 ---
  ab
  --- sample 8 ---
  cd
  """
  return "".join(f"--- sample {first + row} ---\n{text}\n" for row, text in enumerate(texts))


def given(args: Any, opened: Opened) -> Callable[[np.ndarray], np.ndarray] | None:
  """What samples start from where --prompt or --infill give text: a function from indices [n] to x [n, L].

  A sample begins with a prompt (several take turns), the text of --infill follows, and the holes in it and
  all that comes after are masks, which the solver takes out; what is given stays. None where nothing is
  given.

  Args:
    args: the parsed command line of sample.py.
    opened: the model.

  Raises:
    UserError: a run whose data are no text or whose process has no masks, a character outside the vocabulary,
      a text longer than a sample.
  """
  asked = asked_for(args)
  if not asked:
    if args.hole is not None:
      raise UserError("--hole says what marks the holes of --infill: add it, or leave out --hole")
    return None
  flag = min(asked)
  dataset, process = opened.parts.dataset, opened.parts.process
  vocabulary = dataset.scaling.vocabulary
  if vocabulary is None:
    raise UserError(
      f"--{flag} gives a part of a text, and what {opened.title} samples is no text: leave it out"
    )
  if process.ends[1] != "mask":
    raise UserError(
      f"--{flag} fills in what is masked, and the process '{process.name}' has no masks: sample a run of "
      "processes.masked"
    )
  hole = HOLE if args.hole is None else args.hole
  if len(hole) != 1:
    raise UserError(f"--hole={hole} must be one character")
  rows = []
  for prompt in args.prompt or [""]:
    values = [_values(vocabulary, prompt, "prompt")]
    for index, piece in enumerate(_pieces(args.infill or "", hole)):
      filled = index % 2 == 0
      values.append(_values(vocabulary, piece, "infill") if filled else np.full(len(piece), process.mask))
    row = np.concatenate(values).astype(np.int32)
    if len(row) > dataset.shape[0]:
      raise UserError(
        f"{' and '.join(f'--{name}' for name in sorted(asked))} give {len(row)} {vocabulary.unit}s, and a "
        f"sample of {opened.title} has {dataset.shape[0]}: give a shorter text"
      )
    rows.append(np.append(row, np.full(dataset.shape[0] - len(row), process.mask, np.int32)))
  table = np.stack(rows)
  return lambda index: table[np.asarray(index) % len(table)]


def asked_for(args: Any) -> dict[str, Any]:
  """The flags of a command line that give text to a run, by name.

  A published model has prompts of its own. Raises UserError for --infill of one.
  """
  if args.weights is not None:
    if args.infill is not None:
      raise UserError(f"--infill is of a run of text, and --weights={args.weights} is none: leave it out")
    return {}
  found = {"prompt": args.prompt, "infill": args.infill}
  return {name: value for name, value in found.items() if value is not None}


def mark(args: Any) -> list[str]:
  """What tells a file of samples with given text from others: a short hash of it, or nothing."""
  asked = asked_for(args)
  if not asked:
    return []
  return ["given" + hashlib.sha256(repr([sorted(asked.items()), args.hole]).encode()).hexdigest()[:8]]


def _pieces(text, hole):
  """A text cut where holes begin and end: text, holes, text, and so on."""
  found = [""]
  for one in text:
    if (one == hole) == (len(found) % 2 == 1):
      found.append("")
    found[-1] += one
  return found


def _values(vocabulary, text, flag):
  """The values of a text given by a flag; UserError for what the vocabulary lacks."""
  lacking = vocabulary.lacks(text)
  if lacking:
    raise UserError(
      f"--{flag} holds {lacking!r}, which is not among the {vocabulary.size} {vocabulary.unit}s of the run: "
      "leave it out"
    )
  return vocabulary.encode(text)
