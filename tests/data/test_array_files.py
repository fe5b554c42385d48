"""NPZ and IDX files: exact contents, splits, and mistakes answered in a sentence."""

import gzip
import struct

import numpy as np
import pytest

from diffusion.config.errors import UserError
from diffusion.data import idx, load, npz, stream
from diffusion.data.array_files import IDX_TYPES, read_idx


def idx_bytes(array, code=0x08):
  header = bytes([0, 0, code, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
  return header + array.astype(IDX_TYPES[code]).tobytes()


def write_idx(path, array, **options):
  content = idx_bytes(array, **options)
  path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
  return str(path)


def digits(count, seed=0):
  rng = np.random.default_rng(seed)
  return rng.integers(0, 256, (count, 5, 4), dtype=np.uint8), rng.permutation(np.arange(count) % 10)


def contents(*sources):
  records = [load(source) for source in sources]
  return sorted((x.tobytes(), int(label)) for part in records for x, label in zip(part["x"], part["label"]))


def expected(x, label):
  return sorted((one.tobytes(), int(number)) for one, number in zip(x, label))


@pytest.mark.parametrize("code", IDX_TYPES)
def test_every_idx_type_is_read_exactly(tmp_path, code):
  array = np.arange(24).reshape(2, 3, 4) % 100
  read = read_idx(write_idx(tmp_path / "a", array, code=code))
  np.testing.assert_array_equal(read, array)
  assert read.dtype.isnative


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_both_pairs_of_idx_files_are_training_and_test(tmp_path, ending):
  train, test = digits(60), digits(20, seed=1)
  for prefix, (x, label) in (("train", train), ("t10k", test)):
    write_idx(tmp_path / f"{prefix}-images-idx3-ubyte{ending}", x)
    write_idx(tmp_path / f"{prefix}-labels-idx1-ubyte{ending}", label)
  dataset = idx(str(tmp_path))
  assert contents(dataset.train) == expected(*train) and contents(dataset.held_out) == expected(*test)
  assert dataset.shape == (5, 4, 1) and dataset.num_classes == 10


def test_a_single_idx_pair_is_split_by_class(tmp_path):
  x, label = digits(200)
  write_idx(tmp_path / "t10k-images-idx3-ubyte.gz", x)
  write_idx(tmp_path / "t10k-labels-idx1-ubyte.gz", label)
  dataset = idx(str(tmp_path), held_out=0.1)
  assert contents(dataset.train, dataset.held_out) == expected(x, label)
  assert np.bincount(load(dataset.held_out)["label"]).tolist() == [2] * 10
  assert "180 training and 20 held-out" in dataset.split


def test_idx_files_may_be_named_one_by_one_and_resized(tmp_path):
  x, label = digits(50)
  images, labels = write_idx(tmp_path / "x", x), write_idx(tmp_path / "y", label)
  assert contents(*(lambda d: (d.train, d.held_out))(idx(images=images, labels=labels))) == expected(x, label)
  dataset = idx(images=images, image_size=8, channels=3)
  assert dataset.shape == (8, 8, 3) and dataset.num_classes == 0


@pytest.mark.parametrize(
  "spoil, sentence",
  [
    (lambda content: content[:-1], "truncated"),
    (lambda content: content[:9], "truncated"),
    (lambda content: b"\1" + content[1:], "not an IDX file"),
    (lambda content: gzip.compress(content)[:-20], "not an IDX file"),
  ],
)
def test_damaged_idx_files_are_explained(tmp_path, spoil, sentence):
  (tmp_path / "x").write_bytes(spoil(idx_bytes(digits(30)[0])))
  with pytest.raises(UserError, match=sentence):
    idx(images=str(tmp_path / "x"))


def test_a_truncated_gzip_is_explained(tmp_path):
  (tmp_path / "x.gz").write_bytes(gzip.compress(idx_bytes(digits(30)[0]))[:-20])
  with pytest.raises(UserError, match="truncated"):
    idx(images=str(tmp_path / "x.gz"))


def test_missing_idx_files_are_explained(tmp_path):
  with pytest.raises(UserError, match="no folder"):
    idx(str(tmp_path / "nowhere"))
  with pytest.raises(UserError, match="holds no IDX files"):
    idx(str(tmp_path))
  with pytest.raises(UserError, match="no file at"):
    idx(images=str(tmp_path / "x"))


def test_idx_labels_of_another_length_are_explained(tmp_path):
  images, labels = write_idx(tmp_path / "x", digits(30)[0]), write_idx(tmp_path / "y", digits(29)[1])
  with pytest.raises(UserError, match="30 records"):
    idx(images=images, labels=labels)


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 3)])
def test_npz_images_of_any_shape(tmp_path, shape):
  rng = np.random.default_rng(0)
  x, label = rng.integers(0, 256, (40, *shape), dtype=np.uint8), np.arange(40) % 4
  np.savez(tmp_path / "a.npz", x=x, label=label)
  dataset = npz(str(tmp_path / "a.npz"))
  assert contents(dataset.train, dataset.held_out) == expected(x, label)
  assert dataset.shape == (*shape, 1)[:3] and dataset.num_classes == 4 and len(dataset.held_out) == 4


def test_npz_vectors_and_signals_are_standardised(tmp_path):
  for shape in ((7,), (30, 2)):
    x = 5 + 3 * np.random.default_rng(0).standard_normal((64, *shape))
    np.savez(tmp_path / "a.npz", samples=x)
    dataset = npz(str(tmp_path / "a.npz"), x_key="samples", held_out=0)
    batch = next(stream(dataset, 64, 0))["x"]
    assert batch.shape == (64, *shape) and abs(batch.mean()) < 1e-4 and abs(batch.std() - 1) < 1e-4


def test_npz_may_bring_its_own_held_out_part(tmp_path):
  (x, label), (y, other) = digits(30), digits(10, seed=1)
  np.savez(tmp_path / "a.npz", x=x, label=label, x_held_out=y, label_held_out=other)
  dataset = npz(str(tmp_path / "a.npz"))
  assert contents(dataset.train) == expected(x, label) and contents(dataset.held_out) == expected(y, other)


@pytest.mark.parametrize(
  "arrays, options, sentence",
  [
    (dict(y=np.zeros(3)), {}, "none called 'x'"),
    (dict(x=np.full((9, 2, 2), 20, np.uint8)), dict(levels=17), "levels=17"),
    (dict(x=np.full((9, 2, 2), -1)), {}, "levels=256"),
    (dict(x=np.array([[np.nan], [1.0]])), {}, "not finite"),
    (dict(x=np.zeros((9, 2)), label=np.zeros(9)), {}, "whole numbers"),
    (dict(x=np.zeros((9, 2)), label=np.zeros(8, int)), {}, "9 records"),
    (dict(x=np.array(["a"])), {}, "type"),
    (dict(x=np.zeros((0, 2))), {}, "no training records"),
    (dict(x=np.zeros((9, 2))), dict(random_flip=True), "mirrors images"),
    (dict(x=np.zeros((9, 2))), dict(held_out=1.5), "share held out"),
  ],
)
def test_npz_mistakes_are_explained(tmp_path, arrays, options, sentence):
  np.savez(tmp_path / "a.npz", **arrays)
  with pytest.raises(UserError, match=sentence):
    npz(str(tmp_path / "a.npz"), **options)


def test_damaged_npz_files_are_explained(tmp_path):
  path = tmp_path / "a.npz"
  with pytest.raises(UserError, match="no file at"):
    npz(str(path))
  np.savez(path, x=np.zeros((30, 4)))
  path.write_bytes(path.read_bytes()[:-30])
  with pytest.raises(UserError, match="cannot be read as NPZ"):
    npz(str(path))
  np.savez(path, x=np.array([{}], dtype=object))
  with pytest.raises(UserError, match="Python objects"):
    npz(str(path))
