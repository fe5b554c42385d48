"""TFDS builder of the UCI handwritten digits that scikit-learn ships.

Importing this file imports TFDS (not TensorFlow).
"""

from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from diffusion.data import order

HELD_OUT = 0.2


class UciDigits(tfds.core.GeneratorBasedBuilder):
  """1,797 grey images of handwritten digits, 8x8 with values 0..16, in a fixed stratified split.

  The split's parts are 'train' (1,438) and 'test' (359).

  The split is `order.split(1797, 0.2, labels)`: in each class the fifth with the smallest hashes of their
  place in scikit-learn's list. Records keep scikit-learn's order.
  """

  VERSION: Any = tfds.core.Version("1.0.0")

  def _info(self):
    return tfds.core.DatasetInfo(
      builder=self,
      description="Optical recognition of handwritten digits, 8x8, as shipped with scikit-learn.",
      homepage="https://archive.ics.uci.edu/dataset/80",
      features=tfds.features.FeaturesDict(
        {
          "image": tfds.features.Tensor(shape=(8, 8, 1), dtype=np.uint8),
          "label": tfds.features.ClassLabel(num_classes=10),
        }
      ),
      supervised_keys=("image", "label"),
      disable_shuffling=True,
    )

  def _split_generators(self, dl_manager):
    del dl_manager  # nothing to download
    from sklearn.datasets import load_digits

    bunch: Any = load_digits()  # a pair of arrays where asked for one
    train, test = order.split(len(bunch.target), HELD_OUT, bunch.target)
    return {"train": self._generate_examples(bunch, train), "test": self._generate_examples(bunch, test)}

  def _generate_examples(self, bunch, indices):
    for index in indices:
      image = bunch.images[index].astype(np.uint8)[..., None]
      yield int(index), {"image": image, "label": int(bunch.target[index])}
