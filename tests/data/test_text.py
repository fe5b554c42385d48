"""Text as data: vocabularies, files, windows, and the corpora that papers measure on."""

import hashlib
import pathlib
import sys
import zipfile

import numpy as np
import pytest

from diffusion import data
from diffusion.config.errors import UserError
from diffusion.data import vocabulary
from diffusion.data.text_files import Windows

FILES = {f"{name}.txt": f"{name} " * 9 + "\u00e9\r\n" for name in ("one", "two", "six", "ten", "red", "sky")}


@pytest.fixture
def folder(tmp_path):
  for name, text in FILES.items():
    (tmp_path / name).write_bytes(text.encode())
  (tmp_path / "skipped").mkdir()
  (tmp_path / "skipped" / "one.txt").write_text("never read")
  return tmp_path


def read(folder, **changes):
  options = {"root": str(folder), "leave_out": ("skipped/*",), "length": 8, "stride": 3, "held_out": 0.5}
  return data.text_files(("**/*.txt",), **{**options, **changes})


def test_characters_go_to_numbers_and_back():
  letters = data.Characters("ba\n")
  assert letters.encode("ab\nz").tolist() == [1, 0, 2, 3] and letters.size == 4
  assert letters.decode([1, 0, 3]) == "ab\N{REPLACEMENT CHARACTER}" and letters.lacks("ab~") == "~"
  every = data.Characters(vocabulary.PRINTABLE)
  assert every.size == 97 and every.decode(np.arange(96)) == vocabulary.PRINTABLE
  assert every.encode("".join(map(chr, range(256))) + "\U0001f600").max() == 96
  with pytest.raises(UserError, match="has 'z'"):
    data.Characters("ab", other=False).encode("az")
  with pytest.raises(UserError, match="once"):
    data.Characters("aba")
  with pytest.raises(ValueError, match="and 4 characters"):
    letters.decode([4])


def test_files_are_split_by_a_hash_of_their_names(folder):
  found = read(folder)
  share = lambda name: int(hashlib.sha256(name.encode()).hexdigest()[:16], 16) / 2**64
  text = dict.fromkeys((False, True), "")
  for name in sorted(FILES):
    text[share(name) < 0.5] += FILES[name].replace("\r\n", "\n").replace("\u00e9", "\ufffd") + "\n"
  decode = found.scaling.vocabulary.decode
  assert decode(found.train.values) == text[False] and decode(found.held_out.values) == text[True]
  # The share of one file does not depend on the others.
  (folder / next(name for name in sorted(FILES) if share(name) >= 0.5)).unlink()
  assert decode(read(folder).held_out.values) == text[True]
  assert "never" not in text[False] + text[True] and (found.scaling.levels, found.shape) == (97, (8,))


def test_windows_are_pieces_of_the_text_and_an_epoch_has_each_once(folder):
  found = read(folder)
  values = found.train.values
  count = (len(values) - 8) // 3 + 1
  assert len(found.train) == count and len(found.held_out) == len(found.held_out.values) // 8
  stream = data.stream(found, batch_size=count, seed=4, num_threads=0)
  batch = next(stream)["x"]
  assert batch.dtype == np.int32 and set(next(data.stream(found, 4, 0, num_threads=0))) == {"x"}
  windows = np.stack([values[3 * i : 3 * i + 8] for i in range(count)])
  assert sorted(map(tuple, batch)) == sorted(map(tuple, windows.astype(np.int32)))
  np.testing.assert_array_equal(found.train[2]["x"], windows[2])
  later = next(data.stream(found, batch_size=5, seed=4, start=count - 5, num_threads=0))["x"]
  np.testing.assert_array_equal(later, batch[-5:])
  with pytest.raises(IndexError):
    found.train[count]


def test_the_digest_is_of_the_text_and_can_be_asked_for(folder):
  digest = read(folder).digest
  assert digest == read(folder, sha256=digest, length=4).digest  # the windows take no part
  assert digest != read(folder, held_out=0.3).digest
  (folder / "ten.txt").write_text("ten ten")
  with pytest.raises(UserError, match=f"SHA-256 .* and sha256={digest}"):
    read(folder, sha256=digest)


def test_what_cannot_be_read_is_refused(folder):
  with pytest.raises(UserError, match="no file below .* like \\*.rst"):
    data.text_files(("*.rst",), root=str(folder))
  with pytest.raises(UserError, match="a window has 500"):
    read(folder, length=500)
  with pytest.raises(UserError, match="two values or more"):
    read(folder, length=1)


def test_the_standard_library_is_there():
  """One of its packages, of the Python that runs."""
  found = data.text_files(("json/*.py",), held_out=0.3, length=64)
  source = pathlib.Path(sys.modules["json"].__file__).read_text()
  assert source[:60] in found.scaling.vocabulary.decode(
    np.concatenate([found.train.values, found.held_out.values])
  )


def test_text8_is_split_90_5_5(tmp_path):
  text = "".join(np.random.default_rng(0).choice(list(vocabulary_of_text8()), 2000))
  (tmp_path / "text8").write_text(text)
  with zipfile.ZipFile(tmp_path / "text8.zip", "w") as archive:
    archive.writestr("text8", text)
  test, valid, packed = (
    data.text8(str(tmp_path / name), length=20, held_out=part)
    for name, part in (("text8", "test"), ("text8", "validation"), ("text8.zip", "test"))
  )
  decode = test.scaling.vocabulary.decode
  assert decode(test.train.values) == text[:1800] and decode(test.held_out.values) == text[1900:]
  assert decode(valid.held_out.values) == text[1800:1900] and test.scaling.levels == 27
  assert packed.digest == test.digest != valid.digest
  (tmp_path / "other").write_text("Capital letters are not in text8")
  for name, held_out, message in (
    ("other", "test", "has 'C'"),
    ("none", "test", "cannot be read"),
    ("text8", "all", "no part"),
  ):
    with pytest.raises(UserError, match=message):
      data.text8(str(tmp_path / name), held_out=held_out)


def vocabulary_of_text8():
  return " abcdefghijklmnopqrstuvwxyz"


def test_lm1b_is_word_pieces_of_sentences(tmp_path):
  pytest.importorskip("tokenizers")
  pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "cat", "##s", "sat", "."]
  (tmp_path / "vocab.txt").write_text("\n".join(pieces) + "\n")
  train, rest = (tmp_path / f"{part}-monolingual.tokenized.shuffled" for part in ("training", "heldout"))
  train.mkdir(), rest.mkdir()
  (train / "news.en-00001-of-00100").write_text("The cats sat .\nThe cat .\n")
  (train / "news.en-00002-of-00100").write_text("Sat dog\n")
  (rest / "news.en.heldout-00000-of-00050").write_text("cat cat\n")
  (rest / "news.en.heldout-00001-of-00050").write_text("the the the\n")
  read = lambda **options: data.lm1b(str(tmp_path), length=3, **options)
  found = read(cache=str(tmp_path / "cache"))
  words = lambda values: [pieces[value] for value in values]
  assert " ".join(words(found.train.values)) == "the cat ##s sat . [SEP] the cat . [SEP] sat [UNK] [SEP]"
  assert words(found.held_out.values) == ["cat", "cat", "[SEP]"]
  assert found.scaling.unit == "token" and found.scaling.levels == 9
  assert found.scaling.vocabulary.lacks("the dog sat") == "dog"
  again = read(cache=str(tmp_path / "cache"))
  assert again.digest == found.digest and len(list((tmp_path / "cache").iterdir())) == 2
  next(rest.glob("*")).unlink(), next(rest.glob("*")).unlink()
  with pytest.raises(UserError, match="One Billion Word Benchmark"):
    read()


def test_windows_longer_than_the_text_are_none():
  assert len(Windows(np.arange(3), 4, 1)) == 0
