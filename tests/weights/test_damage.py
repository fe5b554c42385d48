"""Files that are cut short or have a wrong byte give one sentence or arrays, and take little memory."""

import shutil
import tracemalloc

import numpy as np
import pytest

from diffusion import weights
from diffusion.config.errors import UserError
from tests.weights.recorded_pairs import FOLDER, FORMATS

FILES = [name for name in FORMATS if name != "sharded"]
ALIKE = ("edm2.pkl", "module.pt", "numpy2.pkl", "numpy4.pkl")
"""Files of a format that another of them has too."""

EVERY = pytest.mark.parametrize(
  "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in ALIKE)) for name in FILES]
)
TRIES = {"edm.pkl": 40, "edm2.pkl": 60}
"""For each kind of damage; files that take longer to read have fewer than 150."""

MEMORY = 8 * 2**20
"""Bytes that a damaged file of less than 60 kB may take; the largest array that repeats itself has 1 MiB."""


def outcome(path):
  """'refused' or 'read'; any error but ours comes through."""
  try:
    contents = weights.read(str(path))
    for array in contents.arrays.values():
      assert array.read().shape == array.shape
  except UserError as error:
    assert str(error).startswith(str(path))
    assert "\n" not in str(error) and len(str(error)) < 1000
    return "refused"
  return "read"


def watched(path):
  tracemalloc.reset_peak()
  before = tracemalloc.get_traced_memory()[0]
  found = outcome(path)
  assert tracemalloc.get_traced_memory()[1] - before < MEMORY
  return found


@pytest.fixture(scope="module", autouse=True)
def tracing():
  tracemalloc.start()
  yield
  tracemalloc.stop()


@EVERY
def test_a_file_that_is_cut_short_is_refused(name, tmp_path):
  data = (FOLDER / name).read_bytes()
  path = tmp_path / name
  for length in np.random.default_rng(0).integers(1, len(data), TRIES.get(name, 150)).tolist():
    path.write_bytes(data[:length])
    assert watched(path) == "refused", length


@EVERY
def test_a_file_with_a_wrong_byte_is_refused_or_read(name, tmp_path):
  data = (FOLDER / name).read_bytes()
  path = tmp_path / name
  generator = np.random.default_rng(1)
  tries = TRIES.get(name, 150) // 2
  # Half of the bytes from the beginning, where headers are, and half from everywhere.
  places = np.concatenate([
    generator.integers(0, min(len(data), 400), tries), generator.integers(0, len(data), tries)
  ])  # fmt: skip
  for place in places.tolist():
    wrong = bytearray(data)
    wrong[place] ^= int(generator.integers(1, 256))
    path.write_bytes(wrong)
    watched(path)


def test_a_wrong_byte_among_the_numbers_of_a_zip_is_seen(tmp_path):
  """PyTorch writes a CRC-32 of each storage and does not look at it."""
  data = bytearray((FOLDER / "module.pt").read_bytes())
  weight = weights.read(str(FOLDER / "module.pt")).arrays["0.weight"].read().tobytes()
  data[data.index(weight) + 3] ^= 1
  path = tmp_path / "module.pt"
  path.write_bytes(data)
  contents = weights.read(str(path))
  with pytest.raises(UserError, match=r"CRC-32 differs\): fetch the file again"):
    contents.load(["0.weight"])


@pytest.mark.parametrize("name", ["model.safetensors.index.json", "config.json"])
def test_a_wrong_byte_in_an_index_or_a_config_is_refused_or_read(name, tmp_path):
  folder = tmp_path / "sharded"
  shutil.copytree(FOLDER / "sharded", folder)
  data = (folder / name).read_bytes()
  generator = np.random.default_rng(3)
  for place in generator.integers(0, len(data), 150).tolist():
    wrong = bytearray(data)
    wrong[place] ^= int(generator.integers(1, 256))
    (folder / name).write_bytes(wrong)
    try:
      weights.read(str(folder)).load()
    except UserError as error:
      assert str(folder) in str(error)


def test_shards_that_are_cut_short_are_refused(tmp_path):
  shutil.copytree(FOLDER / "sharded", tmp_path / "sharded")
  for file in (tmp_path / "sharded").glob("*.safetensors*"):
    data = file.read_bytes()
    for length in np.random.default_rng(2).integers(1, len(data), 20).tolist():
      file.write_bytes(data[:length])
      with pytest.raises(UserError):
        weights.read(str(tmp_path / "sharded"))
    file.write_bytes(data)
