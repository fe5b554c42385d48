"""Arrays go one by one to where they should lie, each device its own part."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec, SingleDeviceSharding

from diffusion import weights
from diffusion.config.errors import UserError
from diffusion.weights.formats import mapped
from tests.weights.recorded_pairs import FOLDER, FORMATS, expected, same


@pytest.fixture
def file(tmp_path):
  arrays = {
    "rows": np.arange(64.0, dtype=np.float32).reshape(16, 4),
    "half": np.arange(8).astype(ml_dtypes.bfloat16),
    "double": np.linspace(0, 1, 4),
    "count": np.array([3, 2**40]),
    "small": np.array([3, -4]),
  }
  path = str(tmp_path / "a.safetensors")
  weights.write_safetensors(path, arrays)
  return weights.read(path), arrays


def test_each_device_has_its_part(file):
  contents, arrays = file
  mesh = jax.make_mesh((4, 2), ("data", "model"))
  split = {"rows": PartitionSpec("data", "model"), "half": PartitionSpec()}
  found = contents.load(split, place=lambda name: NamedSharding(mesh, split[name]))
  assert found["rows"].sharding.shard_shape((16, 4)) == (4, 2)
  for name, array in found.items():
    assert same(np.asarray(array), arrays[name]), name
    for shard in array.addressable_shards:
      assert same(np.asarray(shard.data), arrays[name][shard.index]), name


def test_a_part_is_read_once_however_many_devices_hold_it(file):
  contents, _ = file
  read = []
  whole = contents.arrays["rows"]
  counted = weights.StoredArray(
    whole.shape, whole.dtype, lambda index: read.append(index) or whole.read(index)
  )
  mesh = jax.make_mesh((4, 2), ("data", "model"))
  place = NamedSharding(mesh, PartitionSpec("data"))
  weights.Contents("a", "own", {"rows": counted}, {}).load(place=lambda name: place)
  assert len(read) == 4


def test_dtypes_are_those_of_jax_where_it_is_given_to_jax(file):
  contents, arrays = file
  place = lambda name: SingleDeviceSharding(jax.devices()[1])
  found = contents.load(["double", "small"], place)
  assert found["double"].dtype == jnp.float32 and found["small"].dtype == jnp.int32
  np.testing.assert_array_equal(found["double"], arrays["double"].astype(np.float32))
  assert found["small"].devices() == {jax.devices()[1]}
  assert contents.load(["double"])["double"].dtype == np.float64
  with pytest.raises(UserError, match="count in .* holds whole numbers that int32 cannot"):
    contents.load(["count"], place)
  with jax.enable_x64(True):
    assert contents.load(["count"], place)["count"][1] == 2**40


def test_a_name_that_is_not_there_is_said(file):
  with pytest.raises(UserError, match="holds no array 'row': there are 5"):
    file[0].load(["row"])


@pytest.mark.parametrize("name", ["zip.pt", "stream.pt", "flax.msgpack", "edm.pkl", "sharded"])
def test_every_format_goes_to_many_devices(name):
  """Whatever its strides and pieces are, the first axis that eight devices share divides."""
  mesh = jax.make_mesh((8,), ("data",))
  contents, want = weights.read(str(FOLDER / name)), expected(name)
  names = [key for key, array in want.items() if array.dtype.kind not in "uib" and array.size]

  def place(key):
    axes = [axis for axis, size in enumerate(want[key].shape) if size % 8 == 0]
    return NamedSharding(mesh, PartitionSpec(*([None] * axes[0] + ["data"] if axes else [])))

  for key, array in contents.load(names, place).items():
    canonical = want[key].astype(jax.dtypes.canonicalize_dtype(want[key].dtype))
    assert same(np.asarray(array), canonical), key


@pytest.mark.parametrize("name", FORMATS)
def test_arrays_are_gathered_in_pieces(name, monkeypatch):
  """As large ones are: here a piece has 16 bytes."""
  monkeypatch.setattr(mapped, "PIECE", 16)
  contents = weights.read(str(FOLDER / name))
  for key, array in expected(name).items():
    assert same(contents.arrays[key].read(), array), key


@pytest.mark.parametrize("kind", ["<f4", ">f4", ">i2", ">c8"])
@pytest.mark.parametrize("seed", range(5))
def test_strides_and_byte_orders_are_those_of_numpy(kind, seed):
  """Random views of random numbers against NumPy's own."""
  generator = np.random.default_rng(seed)
  numbers = generator.integers(0, 1000, 400).astype(kind)
  source = mapped.Source("a", b"abc" + numbers.tobytes())
  for _ in range(20):
    shape = tuple(generator.integers(1, 4, generator.integers(0, 4)).tolist())
    strides = tuple(generator.integers(0, 30, len(shape)).tolist())
    first = int(generator.integers(0, 100))
    found = mapped.array(
      *(source, 3 + first * numbers.itemsize, shape, np.dtype(kind).newbyteorder("=")),
      strides=strides,
      big_endian=kind[0] == ">",
    )
    steps = tuple(step * numbers.itemsize for step in strides)
    want = np.ndarray(shape, kind, numbers.data, first * numbers.itemsize, steps)
    assert found.read().dtype == np.dtype(kind).newbyteorder("=")
    np.testing.assert_array_equal(found.read(), want)


def test_bfloat16_of_a_big_endian_machine():
  numbers = np.arange(5).astype(ml_dtypes.bfloat16)
  source = mapped.Source("a", numbers.view("u2").astype(">u2").tobytes())
  found = mapped.array(source, 0, (5,), numbers.dtype, big_endian=True)
  assert same(found.read(), numbers)
