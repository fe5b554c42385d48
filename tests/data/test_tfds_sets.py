"""TFDS data sets by name: read without TensorFlow, and a missing one answered with how to mend it."""

import json
import pathlib

import numpy as np
import pytest
from PIL import Image

from diffusion.config.errors import UserError
from diffusion.data import images, load, tfds, uci_digits


@pytest.mark.slow
def test_a_prepared_set_is_read_by_its_name_alone(folder):
  dataset, digits = tfds("uci_digits", data_dir=folder, levels=17), uci_digits.digits(folder)
  for part in ("train", "held_out"):
    ours, theirs = (load(getattr(one, part)) for one in (dataset, digits))
    np.testing.assert_array_equal(ours["x"], theirs["x"])
    np.testing.assert_array_equal(ours["label"], theirs["label"])
  assert dataset.num_classes == 10 and dataset.scaling == digits.scaling


def test_splits_can_be_chosen_and_images_resized(folder):
  dataset = tfds(
    "uci_digits",
    data_dir=folder,
    train_split="train[:100]",
    held_out_split="train[100:150]",
    image_size=16,
    channels=3,
    levels=17,
  )
  assert (len(dataset.train), len(dataset.held_out), dataset.shape) == (100, 50, (16, 16, 3))
  assert load(dataset.train)["x"].max() == 16  # resizing does not leave the levels


@pytest.mark.parametrize(
  "options, sentence",
  [
    (dict(train_split="training"), "no split 'training'.*train"),
    (dict(x_key="picture"), "features.*image"),
    (dict(num_classes=3), "10 classes"),
  ],
)
def test_wrong_arguments_are_explained(folder, options, sentence):
  with pytest.raises(UserError, match=sentence):
    tfds("uci_digits", data_dir=folder, **options)


def test_an_unknown_name_is_explained(tmp_path):
  with pytest.raises(UserError, match="check the name"):
    tfds("no_such_set", data_dir=str(tmp_path))


def test_a_set_that_is_not_prepared_is_answered_with_the_command(tmp_path):
  with pytest.raises(UserError, match="download_and_prepare.*path="):
    tfds("mnist", data_dir=str(tmp_path))


def test_a_set_in_a_format_that_needs_tensorflow_is_explained(folder, tmp_path):
  version = tmp_path / "uci_digits" / "1.0.0"
  version.mkdir(parents=True)
  source = f"{folder}/uci_digits/1.0.0"
  info = json.loads(pathlib.Path(source, "dataset_info.json").read_text())
  (version / "dataset_info.json").write_text(json.dumps(info | {"fileFormat": "tfrecord"}))
  (version / "features.json").write_text(pathlib.Path(source, "features.json").read_text())
  with pytest.raises(UserError, match="tfrecord.*without TensorFlow"):
    tfds("uci_digits", data_dir=str(tmp_path))


def test_a_path_reads_files_instead(tmp_path):
  for name in ("cat", "dog"):
    (tmp_path / name).mkdir()
    for number in range(5):
      Image.fromarray(np.full((4, 4, 3), 10 * number, np.uint8)).save(tmp_path / name / f"{number}.png")
  dataset, files = (
    tfds("cifar10", str(tmp_path), image_size=4, channels=3, num_classes=2),
    images(str(tmp_path)),
  )
  np.testing.assert_array_equal(load(dataset.train)["x"], load(files.train)["x"])
  assert dataset.class_names == ("cat", "dog")
