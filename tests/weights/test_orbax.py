"""Orbax's folders, those of a run among them, in the same terms as files."""

import os

import jax
import ml_dtypes
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from diffusion import weights
from diffusion.config.errors import UserError
from tests.weights.recorded_pairs import same

ocp = pytest.importorskip("orbax.checkpoint")

TREE = {
  "params": {
    "first": {"kernel": np.arange(32, dtype=np.float32).reshape(8, 4)},
    "list": [np.ones(2, np.int32)],
  },
  "half": np.arange(3).astype(ml_dtypes.bfloat16),
  "double": np.linspace(0, 1, 8),
  "step": 3,
  "name": "a text",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  path = str(tmp_path_factory.mktemp("orbax") / "saved")
  ocp.PyTreeCheckpointer().save(path, TREE)
  return path


def test_arrays_and_texts_by_their_names(folder):
  contents = weights.read(folder)
  assert contents.format == "orbax" and contents.notes == {"tree": {"name": "a text"}}
  want = {
    "params.first.kernel": TREE["params"]["first"]["kernel"],
    "params.list.0": TREE["params"]["list"][0],
    "half": TREE["half"],
    "double": TREE["double"],
    "step": np.array(3),
  }
  found = contents.load()
  assert set(found) == set(want)
  for name, array in want.items():
    assert same(found[name], array), name
    assert (contents.arrays[name].shape, contents.arrays[name].dtype) == (array.shape, array.dtype)
  assert same(contents.arrays["double"].read((slice(2, 5),)), TREE["double"][2:5])


def test_arrays_go_to_many_devices(folder):
  mesh = jax.make_mesh((8,), ("data",))
  place = NamedSharding(mesh, PartitionSpec("data"))
  found = weights.read(folder).load(["params.first.kernel", "double"], lambda name: place)
  for name, want in (("params.first.kernel", TREE["params"]["first"]["kernel"]), ("double", TREE["double"])):
    assert found[name].sharding == place and found[name].dtype == np.float32
    np.testing.assert_array_equal(found[name], want.astype(np.float32))


def test_names_that_are_one_when_joined_are_refused(tmp_path):
  path = str(tmp_path / "saved")
  ocp.PyTreeCheckpointer().save(path, {"enc.w": np.ones(2), "enc": {"w": np.zeros(2)}})
  with pytest.raises(UserError, match=r"two arrays of the name enc\.w"):
    weights.read(path)


def test_a_folder_that_lost_a_file_is_one_sentence(tmp_path):
  path = str(tmp_path / "saved")
  ocp.PyTreeCheckpointer().save(path, {"w": np.ones(2)})
  with open(os.path.join(path, "_METADATA"), "w") as file:
    file.write("{")
  with pytest.raises(UserError, match="cannot be read as a checkpoint of Orbax") as error:
    weights.read(path)
  assert "\n" not in str(error.value)


def test_the_one_folder_within_is_found(tmp_path):
  path = str(tmp_path / "saved")
  ocp.PyTreeCheckpointer().save(os.path.join(path, "default"), {"w": np.ones(2)})
  assert list(weights.read(path).arrays) == ["w"]
