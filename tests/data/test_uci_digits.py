"""The digits: prepared once, without TensorFlow, and exactly scikit-learn's."""

import os

import numpy as np
import pytest

from diffusion import data
from diffusion.config.errors import UserError
from diffusion.data import uci_digits


@pytest.mark.slow
@pytest.mark.slow
def test_two_that_prepare_at_once_leave_one_whole_copy_and_nothing_beside_it(folder):
  assert os.listdir(folder) == [uci_digits.NAME]


def test_the_two_splits_are_scikit_learns_digits(folder):
  from sklearn.datasets import load_digits

  dataset, bunch = data.digits(folder), load_digits()
  train, held_out = data.load(dataset.train), data.load(dataset.held_out)
  assert (len(dataset.train), len(dataset.held_out)) == (1438, 359)
  together = np.concatenate([train["x"], held_out["x"]])[..., 0]
  rows = lambda x, y: sorted(zip(map(bytes, x.astype(np.uint8)), y.tolist()))
  assert rows(together, np.concatenate([train["label"], held_out["label"]])) == rows(
    bunch.images, bunch.target
  )


def test_the_split_is_stratified(folder):
  dataset = data.digits(folder)
  everyone = sum(np.bincount(data.load(part)["label"]) for part in (dataset.train, dataset.held_out))
  held_out = np.bincount(data.load(dataset.held_out)["label"])
  np.testing.assert_array_less(np.abs(held_out - everyone / 5), 0.51)


def test_a_damaged_copy_is_explained(tmp_path):
  (tmp_path / uci_digits.NAME / "1.0.0").mkdir(parents=True)
  with pytest.raises(UserError, match="delete that folder"):
    data.digits(str(tmp_path))


def test_a_folder_that_cannot_be_written_is_explained(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(UserError, match="data_dir"):
    data.digits(str(tmp_path / "file" / "below"))


@pytest.mark.parametrize(
  "wrong, sentence",
  [
    (dict(image_size=16), "image_size"),
    (dict(channels=3), "channels=1"),
    (dict(num_classes=7), "num_classes=10"),
    (dict(dequantization="gaussian"), "'uniform' or 'none'"),
    (dict(augment="no.such.function"), "no module for 'no.such.function'"),
  ],
)
def test_wrong_arguments_are_explained(folder, wrong, sentence):
  with pytest.raises(UserError, match=sentence):
    data.digits(folder, **wrong)


def test_labels_can_be_left_out(folder):
  dataset = data.digits(folder, num_classes=0)
  assert dataset.num_classes == 0 and "cond" not in next(data.stream(dataset, 8, 0))
