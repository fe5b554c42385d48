"""Folders and zips of images: classes, splits, exact pixels, and mistakes answered in a sentence."""

import io
import pickle
import zipfile

import numpy as np
import pytest
from PIL import Image

from diffusion.config.errors import UserError
from diffusion.data import image_size, images, load, stream
from diffusion.data.archives import Zip


def picture(seed, shape=(6, 5, 3)):
  return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def encoded(array, format="PNG"):
  file = io.BytesIO()
  Image.fromarray(array[..., 0] if array.shape[2] == 1 else array).save(file, format)
  return file.getvalue()


def tree(prefix="", count=4, classes=("cat", "dog"), first=0):
  """dict from file name to array."""
  return {
    f"{prefix}{name}/{i:03d}.png": picture(first + 100 * k + i)
    for k, name in enumerate(classes)
    for i in range(count)
  }


def write(path, files, compression=zipfile.ZIP_STORED):
  """Into a zip if path ends so, else into folders."""
  if path.suffix == ".zip":
    with zipfile.ZipFile(path, "w", compression) as file:
      for name, array in files.items():
        file.writestr(name, encoded(array))
      file.writestr("__MACOSX/cat/._001.png", b"not an image")
      file.writestr("README.txt", b"nor this")
  else:
    for name, array in files.items():
      (path / name).parent.mkdir(parents=True, exist_ok=True)
      (path / name).write_bytes(encoded(array))
  return str(path)


def contents(source):
  records = load(source)
  return sorted((x.tobytes(), label) for x, label in zip(records["x"], records["label"].tolist()))


def expected(files, classes=("cat", "dog")):
  return sorted((array.tobytes(), classes.index(name.split("/")[-2])) for name, array in files.items())


KINDS = {
  "folder": ("set", None),
  "stored zip": ("set.zip", zipfile.ZIP_STORED),
  "deflated zip": ("set.zip", zipfile.ZIP_DEFLATED),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("above", ["", "a/b/"])
def test_train_and_test_folders_are_the_split_and_the_inner_folders_the_classes(tmp_path, kind, above):
  name, compression = KINDS[kind]
  train, test = tree(f"{above}train/"), tree(f"{above}test/", count=2, first=1000)
  dataset = images(write(tmp_path / name, train | test, compression))
  assert contents(dataset.train) == expected(train) and contents(dataset.held_out) == expected(test)
  assert dataset.class_names == ("cat", "dog") and dataset.num_classes == 2 and dataset.shape == (6, 5, 3)


@pytest.mark.parametrize("kind", KINDS)
def test_one_collection_is_split_by_class_and_always_the_same_way(tmp_path, kind):
  name, compression = KINDS[kind]
  files = tree(count=10)
  path = write(tmp_path / name, files, compression)
  dataset, again = images(path, held_out=0.3), images(path, held_out=0.3)
  assert np.bincount(load(dataset.held_out)["label"]).tolist() == [3, 3]
  assert sorted(contents(dataset.train) + contents(dataset.held_out)) == expected(files)
  assert contents(again.held_out) == contents(dataset.held_out)


def test_two_zips_in_a_folder_are_training_and_test(tmp_path):
  train, test = tree("train/"), tree("test/", count=1, first=1000)
  write(tmp_path / "small_train.zip", train)
  write(tmp_path / "small_test.zip", test)
  dataset = images(str(tmp_path))
  assert contents(dataset.train) == expected(train) and contents(dataset.held_out) == expected(test)


def test_a_held_out_path_of_ones_own(tmp_path):
  train, test = tree(), tree(count=1, first=1000)
  dataset = images(write(tmp_path / "a", train), held_out_path=write(tmp_path / "b.zip", test))
  assert contents(dataset.train) == expected(train) and contents(dataset.held_out) == expected(test)


def test_images_without_folders_have_no_classes(tmp_path):
  path = write(tmp_path / "flat", {f"{i}.png": picture(i) for i in range(10)})
  dataset = images(path)
  assert dataset.num_classes == 0 and len(dataset.train) == 9 and set(next(stream(dataset, 4, 0))) == {"x"}


def test_jpeg_grey_and_transparent_files_are_read_as_asked(tmp_path):
  (tmp_path / "a").mkdir()
  smooth = np.broadcast_to(np.arange(0, 160, 10, dtype=np.uint8)[:, None, None], (16, 16, 3))
  (tmp_path / "a" / "0.jpg").write_bytes(encoded(smooth, "JPEG"))
  (tmp_path / "a" / "1.png").write_bytes(encoded(smooth[..., :1]))
  (tmp_path / "a" / "2.png").write_bytes(encoded(np.concatenate([smooth, smooth[..., :1]], -1)))
  for channels in (1, 3):
    x = load(images(str(tmp_path), channels=channels, held_out=0.0).train)["x"]
    assert x.shape == (3, 16, 16, channels)
    assert np.abs(x.astype(int) - smooth[..., :channels]).max() <= 3  # JPEG's loss


def test_mixed_sizes_are_explained_and_image_size_mends_them(tmp_path):
  path = write(
    tmp_path / "set", {"a/0.png": picture(0), "a/1.png": picture(1, (8, 12, 3)), "b/2.png": picture(2)}
  )
  with pytest.raises(UserError, match="image_size"):
    images(path)
  assert images(path, image_size=4, held_out=0).shape == (4, 4, 3)
  assert images(path, image_size=(4, 8), held_out=0).shape == (4, 8, 3)


def test_fitting_crops_the_centre_and_keeps_a_mean():
  wide = np.zeros((4, 12, 1), np.uint8)
  wide[:, 4:8] = 200
  assert (image_size.fit(wide, (4, 4)) == 200).all()
  assert (image_size.fit(np.full((9, 7, 3), 77, np.uint8), (4, 6)) == 77).all()


def test_random_flips_of_a_data_set_reach_its_stream(tmp_path):
  path = write(tmp_path / "set", tree(count=8))
  plain, flipped = (images(path, random_flip=flip, held_out=0) for flip in (False, True))
  a, b = (next(stream(dataset, 16, 0))["x"] for dataset in (plain, flipped))
  mirrored = (b == a[:, :, ::-1]).all((1, 2, 3))
  assert ((b == a).all((1, 2, 3)) ^ mirrored).all() and 0 < mirrored.sum() < 16


def test_a_zip_reads_the_same_after_pickling(tmp_path):
  archive = Zip(write(tmp_path / "set.zip", tree()))
  before = [archive.read(i) for i in range(len(archive.names))]
  copy = pickle.loads(pickle.dumps(archive))
  assert [copy.read(i) for i in range(len(copy.names))] == before


@pytest.mark.slow
def test_worker_processes_give_the_same_stream(tmp_path):
  dataset = images(write(tmp_path / "set.zip", tree(count=8)), random_flip=True)
  plain, workers = stream(dataset, 8, 5, num_threads=0), stream(dataset, 8, 5, num_workers=2, prefetch=1)
  for _ in range(3):
    np.testing.assert_array_equal(next(plain)["x"], next(workers)["x"])
  workers.close()


@pytest.mark.parametrize(
  "make, sentence",
  [
    (lambda folder: str(folder / "nowhere"), "no file or folder"),
    (lambda folder: str(folder), "holds no images"),
    (lambda folder: write(folder / "empty.zip", {}), "holds no images"),
  ],
)
def test_a_path_without_images_is_explained(tmp_path, make, sentence):
  with pytest.raises(UserError, match=sentence):
    images(make(tmp_path))


def test_a_truncated_zip_is_explained(tmp_path):
  path = tmp_path / "set.zip"
  write(path, tree())
  path.write_bytes(path.read_bytes()[:-40])
  with pytest.raises(UserError, match="truncated"):
    images(str(path))


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_damaged_member_is_named(tmp_path, compression):
  path = tmp_path / "set.zip"
  write(path, tree(count=1), compression)
  raw = bytearray(path.read_bytes())
  raw[80] ^= 0xFF  # inside the first member's data
  path.write_bytes(raw)
  with pytest.raises(UserError, match=r"cat/000.png in .* is damaged"):
    images(str(path))


def test_a_damaged_image_met_by_the_stream_is_named(tmp_path):
  path = write(tmp_path / "set", tree(count=200))
  dataset = images(path, held_out=0)
  (tmp_path / "set" / "cat" / "001.png").write_bytes(b"oops")
  batches = stream(dataset, 400, 0)
  with pytest.raises(UserError, match="cat/001.png"):
    next(batches)


def test_held_out_classes_must_be_known(tmp_path):
  path = write(tmp_path / "set", tree("train/") | tree("test/", classes=("cat", "cow")))
  with pytest.raises(UserError, match="'cow'"):
    images(path)


def test_several_zips_need_a_choice(tmp_path):
  for name in ("one.zip", "two.zip"):
    write(tmp_path / name, tree())
  with pytest.raises(UserError, match="one.zip, two.zip"):
    images(str(tmp_path))
