"""Vocabularies: which whole number stands for which piece of text, and back."""

import dataclasses
import functools
from collections.abc import Iterable
from typing import Any, Protocol

import numpy as np

from diffusion.config.errors import UserError

PRINTABLE = "\n" + "".join(map(chr, range(32, 127)))
"""The new line and the 95 printable characters of ASCII."""

OTHER = "\N{REPLACEMENT CHARACTER}"
"""How a value that stands for any character outside a vocabulary is written."""


class Vocabulary(Protocol):
  """Between text and whole numbers from 0 to `size` - 1.

  Attributes:
    unit: what one number is, 'character' or 'token'.
    size: how many numbers there are.
  """

  @property
  def unit(self) -> str: ...

  @property
  def size(self) -> int: ...

  def encode(self, text: str) -> np.ndarray:
    """The numbers [n] of a text; what has none of its own becomes what stands for the others."""
    ...

  def decode(self, values: Any) -> str:
    """The text of numbers [n]."""
    ...

  def lacks(self, text: str) -> str:
    """The first piece of a text that has no number of its own; '' where there is none."""
    ...


@dataclasses.dataclass(frozen=True)
class Characters:
  """A number for each of some characters, and one more for all others unless `other` is False.

  Attributes:
    symbols: the characters, in the order of their numbers.
    other: whether the last number stands for any other character, written as U+FFFD.

  Raises UserError for no characters, or one that is there twice.

  >>> letters = Characters("abc")
  >>> letters.encode("cab!").tolist(), letters.decode([0, 1, 3]) == "ab" + OTHER, letters.lacks("ab!")
  ([2, 0, 1, 3], True, '!')
  """

  symbols: str
  other: bool = True

  def __post_init__(self) -> None:
    if len(set(self.symbols)) != len(self.symbols) or not self.symbols or OTHER in self.symbols:
      raise UserError(
        f"the characters {self.symbols!r} are no vocabulary: name each once, and not U+FFFD, which stands "
        "for all others"
      )

  @property
  def unit(self) -> str:
    """'character'."""
    return "character"

  @property
  def size(self) -> int:
    """Characters, and the one for the others."""
    return len(self.symbols) + self.other

  def encode(self, text: str) -> np.ndarray:
    """The numbers [n] of a text, uint8 or uint16.

    Raises UserError for another character where none stands for the others.
    """
    if not self.other and self.lacks(text):
      raise UserError(f"the text has {self.lacks(text)!r}, and its vocabulary is {self.symbols!r} alone")
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    order, known = _sorted_codes(self.symbols)
    places = np.minimum(np.searchsorted(known, codes), len(known) - 1)
    found = np.where(known[places] == codes, order[places], len(self.symbols))
    return found.astype(np.uint8 if self.size <= 256 else np.uint16)

  def decode(self, values: Any) -> str:
    """The text of numbers [n]. Raises ValueError for a number that it does not have."""
    values = np.asarray(values)
    if values.size and not 0 <= int(values.min()) <= int(values.max()) < self.size:
      raise ValueError(f"there are values from {values.min()} to {values.max()} and {self.size} characters")
    return "".join((self.symbols + OTHER)[int(value)] for value in values)

  def lacks(self, text: str) -> str:
    """The first character of a text that has no number of its own; '' where there is none."""
    return next((one for one in text if one not in self.symbols), "")


@functools.lru_cache(maxsize=8)
def _sorted_codes(symbols):
  """(the number of each character, its code) by rising code."""
  codes = np.array([ord(one) for one in symbols], np.uint32)
  order = np.argsort(codes)
  return order, codes[order]


@dataclasses.dataclass(frozen=True)
class WordPieces:
  """The word pieces of BERT in lower case, of its file `vocab.txt`: 30,522 of bert-base-uncased.

  It needs the package tokenizers. Sentences are parted by the piece [SEP].

  Attributes:
    path: of the file, one piece a line.

  Raises UserError for a file that is not there, or that lacks [UNK] or [SEP].
  """

  path: str

  def __post_init__(self) -> None:
    missing = {"[UNK]", "[SEP]"} - set(self._tokenizer.get_vocab())
    if missing:
      raise UserError(f"{self.path} lacks the piece {min(missing)}: it is no vocabulary of BERT")

  @functools.cached_property
  def _tokenizer(self) -> Any:
    try:
      from tokenizers import BertWordPieceTokenizer
    except ImportError:
      raise UserError("word pieces need the package tokenizers: pip install tokenizers") from None
    try:
      return BertWordPieceTokenizer(self.path, lowercase=True)
    except Exception as error:  # the package raises a bare Exception
      raise UserError(
        f"{self.path} cannot be read as a vocabulary of BERT ({error}): check the path"
      ) from None

  @property
  def unit(self) -> str:
    """'token'."""
    return "token"

  @property
  def size(self) -> int:
    """Word pieces."""
    return self._tokenizer.get_vocab_size()

  @property
  def separator(self) -> int:
    """The number of [SEP]."""
    return self._tokenizer.token_to_id("[SEP]")

  def encode(self, text: str) -> np.ndarray:
    """The numbers [n] of a text without [CLS] and [SEP], uint16."""
    return np.array(self._tokenizer.encode(text, add_special_tokens=False).ids, np.uint16)

  def encode_sentences(self, sentences: Iterable[str]) -> np.ndarray:
    """The numbers [n] of sentences one after another, [SEP] after each, uint16."""
    found = self._tokenizer.encode_batch(list(sentences), add_special_tokens=False)
    parts = [np.array([*one.ids, self.separator], np.uint16) for one in found]
    return np.concatenate(parts) if parts else np.zeros(0, np.uint16)

  def decode(self, values: Any) -> str:
    """The text of numbers [n], special pieces among it."""
    return self._tokenizer.decode([int(value) for value in values], skip_special_tokens=False)

  def lacks(self, text: str) -> str:
    """The first word of a text that is no sequence of pieces; '' where there is none."""
    unknown = self._tokenizer.token_to_id("[UNK]")
    found = self._tokenizer.encode(text, add_special_tokens=False)
    return next((text[a:b] for one, (a, b) in zip(found.ids, found.offsets) if one == unknown), "")
