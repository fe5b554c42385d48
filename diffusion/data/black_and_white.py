"""Grey images in black and white: each pixel drawn with its grey as a probability, or cut at a threshold."""

import dataclasses

import numpy as np

from diffusion.config.errors import UserError
from diffusion.data import random_streams, sources
from diffusion.data.dataset import Dataset
from diffusion.data.scaling import Categories
from diffusion.data.sources import Record, Source


class Drawn:
  """A source whose pixels are 1 with probability v / (levels - 1), drawn once for each record, else 0."""

  def __init__(self, source: Source, levels: int, seed: int) -> None:
    self.source, self.levels, self.seed = source, levels, seed

  def __len__(self) -> int:
    return len(self.source)

  def __getitem__(self, index: int) -> Record:
    record = self.source[index]
    return {**record, "x": self._drawn(np.asarray(record["x"])[None], [index])[0]}

  def gather(self, indices: np.ndarray) -> Record:
    """Records as stacked arrays."""
    found = sources.gather(self.source, indices)
    return {**found, "x": self._drawn(found["x"], indices)}

  def _drawn(self, x, indices):
    numbers = [random_streams.uniform(self.seed, "binary", int(i), 1, x.shape[1:])[0] for i in indices]
    return (np.stack(numbers) * (self.levels - 1) < x).astype(np.uint8)


class Cut:
  """A source whose pixels are 1 where the other's are `threshold` or more, else 0."""

  def __init__(self, source: Source, threshold: float) -> None:
    self.source, self.threshold = source, threshold

  def __len__(self) -> int:
    return len(self.source)

  def __getitem__(self, index: int) -> Record:
    record = self.source[index]
    return {**record, "x": (np.asarray(record["x"]) >= self.threshold).astype(np.uint8)}

  def gather(self, indices: np.ndarray) -> Record:
    """Records as stacked arrays."""
    found = sources.gather(self.source, indices)
    return {**found, "x": (found["x"] >= self.threshold).astype(np.uint8)}


def black_and_white(images: Dataset, *, threshold: float = 0, seed: int = 0) -> Dataset:
  """Images of grey levels with two values, categories 0 and 1.

  Without a threshold a pixel of value v is 1 with probability v / (levels - 1), as in the binarised MNIST of
  the literature (Salakhutdinov and Murray 2008); here once for each image, in training too, where others draw
  anew in each epoch. Held-out images have the same law either way.

  Args:
    images: of whole-numbered levels; in a config a section with a factory.
    threshold: grey levels from this one on are 1; 0 to draw.
    seed: of the draws.
  Returns:
    `Dataset` with `Categories(2)`.
  Raises:
    UserError: images that have no levels.

  >>> from diffusion import data
  >>> greys = [dict(x=np.full((1, 2, 1), v, np.uint8)) for v in (0, 16, 16)]
  >>> grey = data.describe("greys", greys, greys[:1], split="none", levels=17)
  >>> found = black_and_white(grey)
  >>> [found.train[i]["x"].ravel().tolist() for i in range(3)], found.scaling.levels
  ([[0, 0], [1, 1], [1, 1]], 2)
  """
  levels = images.scaling.levels
  if levels is None or images.scaling.vocabulary is not None:
    raise UserError(f"black_and_white takes images of whole-numbered levels, and {images.name} has none")
  make = (lambda part, _: Cut(part, threshold)) if threshold else (lambda part, s: Drawn(part, levels, s))
  return dataclasses.replace(
    images,
    train=make(images.train, 2 * seed),
    held_out=make(images.held_out, 2 * seed + 1),
    scaling=Categories(2),
  )
