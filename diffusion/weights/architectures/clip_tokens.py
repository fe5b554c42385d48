"""Tokens of texts as transformers' CLIPTokenizer makes them, by the library tokenizers.

It is imported where it is used: `pip install 'jax-diffusion[text]'`.
"""

import dataclasses
import json
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from diffusion.config.errors import UserError
from diffusion.weights.formats import mapped

BEGIN, END = "<|startoftext|>", "<|endoftext|>"
NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
"""Tokens with a name of their own in a tokenizer's config, in the order in which transformers adds them."""

DEFAULTS = {"bos_token": BEGIN, "eos_token": END, "unk_token": END, "pad_token": END}

WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
"""What a text is split into: the special tokens, English endings, words, single digits and other signs."""


@dataclasses.dataclass(frozen=True, eq=False)
class Tokenizer:
  """Texts -> tokens [B, length] int32: begin, the text, end, and the token of padding up to the length.

  A text is made lower case and composed (NFC), each run of white space is one space, words are cut by
  byte-pair encoding, and a text that is too long is cut before its end token.

  Special tokens in a text are taken as such, and the token of padding is one of them. Stable Diffusion 2 pads
  with '!', so that each '!' in a prompt is the padding there; OpenCLIP, with which its encoder was trained,
  has tokens of '!', '!!' and so on in its place.

  Attributes:
    backend: the tokenizer of the library tokenizers.
    pad: the token of padding.
    length: of a row.
  """

  backend: Any
  pad: int
  length: int

  @property
  def largest(self) -> int:
    """The largest token that there is."""
    return max(self.backend.get_vocab(True).values())

  def __call__(self, prompts: Sequence[str]) -> np.ndarray:
    """The tokens of texts, [B, length] int32.

    Raises TypeError for what is no list or tuple of texts, ValueError for an empty one.
    """
    if not isinstance(prompts, list | tuple):
      raise TypeError(f"prompts are a list of texts, got {type(prompts).__name__}: put one text in brackets")
    for one in prompts:
      if not isinstance(one, str):
        raise TypeError(f"prompts are a list of texts, got {type(one).__name__} in it: give '' for no text")
    if not prompts:
      raise ValueError("prompts are a list of at least one text, got none: give [''] for no text")
    rows = np.full((len(prompts), self.length), self.pad, np.int32)
    for row, found in zip(rows, self.backend.encode_batch(list(prompts))):
      row[: len(found.ids)] = found.ids
    return rows


def beside(folder: str) -> str:
  """The folder of the tokenizer of a text encoder in a pipeline."""
  return os.path.join(os.path.dirname(os.path.abspath(folder)), "tokenizer")


def tokenizer(folder: str, length: int = 77) -> Tokenizer:
  """The tokenizer of a folder with tokenizer.json, or with vocab.json and merges.txt.

  Args:
    folder: it may have a tokenizer_config.json, and a special_tokens_map.json for what that leaves open.
    length: tokens of a row; fewer if the config's model_max_length says so.

  Raises UserError where the library tokenizers is not installed, for files that are missing or damaged, and
  for special tokens that are not in the vocabulary.

  >>> import pathlib, tempfile
  >>> folder = pathlib.Path(tempfile.mkdtemp())
  >>> vocabulary = {"a</w>": 0, "<|startoftext|>": 1, "<|endoftext|>": 2}
  >>> _ = (folder / "vocab.json").write_text(json.dumps(vocabulary))
  >>> _ = (folder / "merges.txt").write_text("#version: 0.2")
  >>> tokenizer(str(folder), 5)(["A  a", ""]).tolist()
  [[1, 0, 0, 2, 2], [1, 2, 2, 2, 2]]
  """
  try:
    import tokenizers
  except ImportError as error:
    raise UserError(
      f"prompts become tokens by the library tokenizers, which cannot be imported ({error}): pip install "
      "'jax-diffusion[text]'"
    ) from error
  vocabulary, merges, listed = _vocabulary(folder)
  with mapped.sound(os.path.join(folder, "tokenizer_config.json"), "a tokenizer's config"):
    config = dict(_json(folder, "tokenizer_config.json") or {})
    length = min(length, int(config.get("model_max_length", length)))
    if length < 2:
      raise mapped.Damaged(f"model_max_length {length} leaves no place for begin and end")
  with mapped.sound(folder, "the special tokens of a tokenizer"):
    named, added, known = _special(folder, config, listed, tokenizers.AddedToken)
  begin, end, unknown, pad = (_content(named[name]) for name in DEFAULTS)
  for name, one in zip(DEFAULTS, (begin, end, unknown, pad)):
    if one not in vocabulary and one not in known:
      raise UserError(
        f"the {name} of {folder} is {one!r}, which its vocabulary has not: give the files of one tokenizer"
      )
  try:
    model = tokenizers.models.BPE(
      vocabulary,
      merges,
      continuing_subword_prefix="",
      end_of_word_suffix="</w>",
      fuse_unk=False,
      unk_token=unknown,
    )
  except Exception as error:  # of the library's own class, which is Exception itself
    raise UserError(
      f"the vocabulary and the merges of {folder} do not go together ({error}): give the files of one "
      "tokenizer"
    ) from error
  backend = tokenizers.Tokenizer(model)
  backend.normalizer = tokenizers.normalizers.Sequence(
    [
      tokenizers.normalizers.NFC(),
      tokenizers.normalizers.Replace(tokenizers.Regex(r"\s+"), " "),
      tokenizers.normalizers.Lowercase(),
    ]
  )
  backend.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
    [
      tokenizers.pre_tokenizers.Split(tokenizers.Regex(WORDS), behavior="removed", invert=True),
      tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False),
    ]
  )
  backend.add_tokens(added)
  number: Any = backend.token_to_id
  backend.post_processor = tokenizers.processors.RobertaProcessing(
    (end, number(end)), (begin, number(begin)), trim_offsets=False, add_prefix_space=False
  )
  backend.enable_truncation(length)
  return Tokenizer(backend, number(pad), length)


def _vocabulary(folder):
  """({token: number}, [(left, right)], tokens that tokenizer.json adds)."""
  whole = _json(folder, "tokenizer.json")
  if whole is not None:
    with mapped.sound(os.path.join(folder, "tokenizer.json"), "a tokenizer"):
      pairs = [
        tuple(one.split(" ")) if isinstance(one, str) else tuple(one) for one in whole["model"]["merges"]
      ]
      return whole["model"]["vocab"], pairs, whole["added_tokens"]
  vocabulary, merges = _json(folder, "vocab.json"), os.path.join(folder, "merges.txt")
  if vocabulary is None or not os.path.isfile(merges):
    raise UserError(
      f"{folder} has no tokenizer.json and not both of vocab.json and merges.txt: put the files of the "
      "tokenizer there"
    )
  with mapped.sound(merges, "a list of merges"), open(merges, encoding="utf-8") as file:
    lines = [line for line in file.read().split("\n") if line and not line.startswith("#version")]
    pairs = [(left, right) for left, right in (line.split(" ") for line in lines)]
  return vocabulary, pairs, []


def _special(folder, config, listed, make):
  """({name: token}, tokens to add in their order, texts of those with a number), as transformers does it."""
  config, numbered = dict(config), {}
  if "added_tokens_decoder" in config:
    numbered = {int(number): _token(one, make) for number, one in config["added_tokens_decoder"].items()}
  else:
    for name, value in (_json(folder, "special_tokens_map.json") or {}).items():
      config[name] = _token(value, make, special=True)
    for content, number in (_json(folder, "added_tokens.json") or {}).items():
      special = content in [_content(config[name]) for name in NAMED if config.get(name)]
      numbered[number] = make(content, normalized=not special, special=special)
    for one in listed:
      numbered[one["id"]] = _token(one, make)
  named = {name: _token(config.get(name, DEFAULTS.get(name)), make) for name in NAMED}
  by_content = {token.content: token for token in numbered.values()}
  named = {name: by_content.get(_content(token), token) for name, token in named.items()}
  added = [token for _, token in sorted(numbered.items())]
  contents = [token.content for token in added]
  for token in named.values():
    if token is not None and _content(token) not in contents and token not in added:
      added.append(token)
  for one in added:
    if not isinstance(one, str) and one.content in map(_content, named.values()):
      one.special = True
  return named, [make(one, special=True) if isinstance(one, str) else one for one in added], set(by_content)


def _token(value, make, special=None):
  """A token of a config: a text as it is, an entry with flags as the library's AddedToken."""
  if not isinstance(value, dict):
    return value
  flags = ("lstrip", "rstrip", "single_word", "normalized", "special")
  given = {name: value[name] for name in flags if name in value}
  return make(value["content"], **given | ({} if special is None else {"special": special}))


def _content(token):
  return token if isinstance(token, str | None) else token.content


def _json(folder, name):
  """The contents of a file of the folder; None if there is none."""
  path = os.path.join(folder, name)
  if not os.path.isfile(path):
    return None
  with mapped.sound(path, "a tokenizer's file"), open(path, encoding="utf-8") as file:
    return json.load(file)
