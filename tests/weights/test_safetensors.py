"""safetensors: written as the original writes it, read back bit for bit, refused where it does not fit."""

import json
import shutil
import struct

import jax
import ml_dtypes
import numpy as np
import pytest

from diffusion import weights
from diffusion.config.errors import UserError
from diffusion.weights.formats import dtypes
from tests.weights.recorded_pairs import FOLDER, expected, same


def test_the_bytes_are_those_of_the_original_library(tmp_path):
  path = str(tmp_path / "again.safetensors")
  weights.write_safetensors(path, expected("one.safetensors"), {"format": "pt"})
  with open(path, "rb") as ours, open(FOLDER / "one.safetensors", "rb") as theirs:
    assert ours.read() == theirs.read()


@pytest.mark.parametrize("text", dtypes.SAFETENSORS)
def test_round_trip_of_every_dtype(text, tmp_path):
  dtype = dtypes.SAFETENSORS[text]
  generator = np.random.default_rng(0)
  bits = generator.integers(0, 2 if text == "BOOL" else 256, (6, 4 * dtype.itemsize), np.uint8)
  array = bits.view(dtype)
  path = str(tmp_path / "a.safetensors")
  given = {"whole": array, "turned": array.T, "part": array[::2, 1:3], "one": array[0, 0], "none": array[:0]}
  weights.write_safetensors(path, given)
  found = weights.read(path)
  assert found.notes == {"metadata": {}}
  for name, want in given.items():
    assert same(found.arrays[name].read(), np.asarray(want)), name


def test_arrays_of_jax_are_written(tmp_path):
  path = str(tmp_path / "a.safetensors")
  weights.write_safetensors(path, {"w": jax.numpy.arange(6, dtype=jax.numpy.bfloat16).reshape(2, 3)})
  want = np.arange(6).reshape(2, 3).astype(ml_dtypes.bfloat16)
  assert same(weights.read(path).load()["w"], want)


def test_what_cannot_be_written_leaves_nothing(tmp_path):
  path = tmp_path / "a.safetensors"
  with pytest.raises(ValueError, match="complex128 cannot be written as safetensors"):
    weights.write_safetensors(str(path), {"a": np.ones(2), "w": np.ones(2, complex)})
  assert not list(tmp_path.iterdir())


def write(path, header, data=b""):
  text = header if type(header) is bytes else json.dumps(header).encode()
  path.write_bytes(struct.pack("<Q", len(text)) + text + data)
  return str(path)


def entry(start, end, shape=(2,), dtype="F32"):
  return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}


BAD = {
  "overlap": (
    {"a": entry(0, 8), "b": entry(4, 12)},
    12,
    "b starts at byte 4, where the one before it ends at 8",
  ),
  "gap": ({"a": entry(0, 8), "b": entry(12, 20)}, 20, "b starts at byte 12"),
  "outside": ({"a": entry(0, 8), "b": entry(8, 16)}, 12, r"b lies at \[8, 16\] of 12 bytes"),
  "left over": ({"a": entry(0, 8)}, 12, "end at byte 8 of 12"),
  "shape": ({"a": entry(0, 8, (3,))}, 8, "wants bytes"),
  "small": ({"a": entry(0, 8, (1,))}, 8, "needs 4 bytes and has 8"),
  "huge": ({"a": entry(0, 8, (2**40, 2**40))}, 8, "wants bytes"),
  "negative": ({"a": entry(0, 8, (-2,))}, 8, "-2 stands where a size should"),
  "dtype": ({"a": entry(0, 8, (16,), "F4")}, 8, "holds a of the dtype F4; known are BOOL"),
  "metadata": ({"__metadata__": {"a": 1}}, 0, "__metadata__ is no table of texts"),
  "twice": (b'{"a":1,"a":2}', 0, "the name a stands twice"),
  "nested": (b"[" * 5000, 0, "safetensors"),
  "list": (b"{}x", 0, "safetensors"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_header_that_does_not_fit_is_refused(case, tmp_path):
  header, length, words = BAD[case]
  if case == "nested":
    header = b'{"a":' + header
  path = write(tmp_path / "a.safetensors", header, bytes(length))
  with pytest.raises(UserError, match=words) as error:
    weights.read(path)
  assert path in str(error.value) and "\n" not in str(error.value)


def sharded(tmp_path):
  shutil.copytree(FOLDER / "sharded", tmp_path / "model")
  index = tmp_path / "model" / "model.safetensors.index.json"
  return index, json.loads(index.read_text())


def test_an_index_names_only_shards_beside_it(tmp_path):
  index, parsed = sharded(tmp_path)
  parsed["weight_map"]["base"] = "../../etc/passwd"
  index.write_text(json.dumps(parsed))
  with pytest.raises(UserError, match="names the shard ../../etc/passwd, and shards lie beside it"):
    weights.read(str(tmp_path / "model"))


@pytest.mark.parametrize("change", ["extra", "missing"])
def test_an_index_and_its_shards_hold_the_same_names(change, tmp_path):
  index, parsed = sharded(tmp_path)
  if change == "extra":
    parsed["weight_map"]["other"] = parsed["weight_map"]["base"]
  else:
    del parsed["weight_map"]["half"]
  index.write_text(json.dumps(parsed))
  with pytest.raises(UserError, match="(other|half) is in only one of .* and its shard model-00001-of-00002"):
    weights.read(str(tmp_path / "model"))


def test_metadata_of_an_index_is_a_table(tmp_path):
  index, parsed = sharded(tmp_path)
  index.write_text(json.dumps(parsed | {"metadata": [1]}))
  with pytest.raises(UserError, match="its metadata is no table"):
    weights.read(str(tmp_path / "model"))


def test_a_missing_shard_is_named(tmp_path):
  sharded(tmp_path)
  (tmp_path / "model" / "model-00002-of-00002.safetensors").unlink()
  with pytest.raises(UserError, match="model-00002-of-00002.safetensors cannot be opened"):
    weights.read(str(tmp_path / "model"))


def test_the_other_byte_order_is_turned(tmp_path):
  path = str(tmp_path / "a.safetensors")
  weights.write_safetensors(path, {"w": np.arange(3, dtype=">f4")})
  assert same(weights.read(path).load()["w"], np.arange(3, dtype=np.float32))


def test_an_older_file_stays_where_a_new_one_fails(tmp_path):
  path = str(tmp_path / "a.safetensors")
  weights.write_safetensors(path, {"w": np.ones(2)})

  class Fails:
    dtype, shape = np.dtype(np.float32), (2,)

    def __array__(self, *args, **kwargs):
      raise RuntimeError("gone")

  with pytest.raises(RuntimeError, match="gone"):
    weights.write_safetensors(path, {"w": Fails()})
  assert [one.name for one in tmp_path.iterdir()] == ["a.safetensors"] and len(weights.read(path).arrays) == 1
