"""Data sets and the stream of batches made from them.

A config names one of the factories by its dotted path and gives its arguments; each returns a `Dataset`:

  data.digits()                       the 8x8 handwritten digits of scikit-learn;
                                      data.binary_digits() in black and white,
                                      data.color_digits() in random hues
  data.tfds("cifar10", ...)           any TFDS data set, read without TensorFlow
  data.images(path, ...)              a folder or a zip of JPEG or PNG files
  data.npz(path), data.idx(path)      arrays in a file
  data.black_and_white(images)        grey images of these with two values
  data.toy2d("checkerboard", ...)     two-dimensional toy sets
  data.text_files(patterns)           text by characters: Python's own library, or files of one's own;
                                      data.text8(path), data.lm1b(path)
  data.two_sets(first, second)        two of these as pairs, for a process from one to the other

Data of one's own: any sequence of dict(x=array, label=int) is a source, Grain's among them; `describe` makes
a `Dataset` of two of them, and a config may name a function of one's own module that returns it. Records may
hold further arrays: those that `condition` names go to `batch["cond"]`, the one that `pair` names to
`batch["x1"]`.

>>> import numpy as np
>>> records = [dict(x=np.full((2, 6, 1), 10 * k, np.uint8), label=k % 2) for k in range(8)]
>>> mine = describe("mine", records[:6], records[6:], split="the last two", class_names=("even", "odd"))
>>> batch = next(stream(mine, batch_size=4, seed=0, num_threads=0))
>>> batch["x"].shape, batch["cond"]["label"].shape
((4, 2, 6, 1), (4,))
>>> records = [record | dict(small=record["x"][:, ::2]) for record in records]
>>> mine = describe("mine", records, [], split="none held out", condition=("small",))
>>> mine.batch_shapes["cond"]
{'small': ArraySpec(shape=(2, 3, 1), dtype=dtype('float32'))}

Nothing heavy (Grain, TFDS, Pillow, scikit-learn) is imported before it is needed.
"""

from types import ModuleType

from diffusion import lazy
from diffusion.data.array_files import idx, npz
from diffusion.data.asked import (
  classes_in_turn,
  conditions_of_records,
  records_of,
  starts_of_records,
  stored_conditions,
  stored_starts,
)
from diffusion.data.binary_digits import binary_digits
from diffusion.data.black_and_white import black_and_white
from diffusion.data.dataset import Dataset, describe
from diffusion.data.image_files import images
from diffusion.data.named import ArraySpec, NamedArray
from diffusion.data.painted_digits import color_digits
from diffusion.data.pipeline import Stream, stream
from diffusion.data.scaling import Categories, Scaling, Standardize, Text, WholeNumbers
from diffusion.data.sources import Arrays, load
from diffusion.data.text_corpora import lm1b, text8
from diffusion.data.text_files import text_files
from diffusion.data.tfds_sets import tfds
from diffusion.data.toy_sets import TOY2D, toy2d
from diffusion.data.two_sets import two_sets
from diffusion.data.uci_digits import digits
from diffusion.data.vocabulary import Characters, WordPieces


def __getattr__(name: str) -> ModuleType:
  return lazy.load(__name__, name)
