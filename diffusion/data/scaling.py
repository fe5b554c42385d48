"""Scaling between stored numbers and model numbers.

Dequantisation, scaling and their log-determinant, stated here and only here.

Levels (pixels with values v = 0 .. L-1):

  dequantization='uniform'   u = (v + n) / L, n uniform in (0, 1)        density models need it
  dequantization='none'      u = v / (L - 1)                             the ends are 0 and 1 exactly
  centered=False             x = u          in [0, 1]
  centered=True              x = 2 u - 1    in [-1, 1]

  dequantization='categories'  x = v         whole numbers, for models of p(v) itself

What each scaling states besides `to_model` and `to_data`: `dtype` (of model values), `uses_noise`, `levels`
(how many stored values there are, None for numbers of any range), `likelihood` (what a density is measured
in: 'bits_per_dim', 'nats_per_dim', or '' where it says nothing), `shown_range` and `model_range` (the stored
and the model values that a picture draws black and white), `vocabulary` (what the numbers are in text, None
where they are none) and `unit` (what one number is of, 'dim', 'character' or 'token').

For a density model, bits/dim of the stored pixels is -log2 p(x) / D + bits_offset with bits_offset = -log2
|dx/dv| (Theis et al., arXiv:1511.01844, section 3.1): 8 bits in [0, 1] and 7 in [-1, 1] for 256 levels,
log2(17) in [0, 1] for the digits.
"""

import dataclasses
import math
from typing import Any, ClassVar, TypeAlias

import numpy as np

from diffusion.data.vocabulary import Vocabulary


@dataclasses.dataclass(frozen=True)
class Scaling:
  """Scaling of pixels with `levels` values, 2 to 65536.

  See the head of this file. Raises ValueError for anything else.

  >>> scaling = Scaling(256, centered=True)
  >>> scaling.to_model(np.array([0, 255], np.uint8)).tolist()
  [-1.0, 1.0]
  >>> scaling.to_data(np.array([-1.0, 0.98, 7.0])).tolist()
  [0, 252, 255]
  >>> Scaling(256, centered=True, dequantization="uniform").bits_offset
  7.0
  """

  levels: int = 256
  centered: bool = True
  dequantization: str = "none"

  dtype: ClassVar[np.dtype] = np.dtype(np.float32)
  likelihood: ClassVar[str] = "bits_per_dim"
  vocabulary: ClassVar[None] = None
  unit: ClassVar[str] = "dim"

  def __post_init__(self) -> None:
    if not 2 <= self.levels <= 65536:
      raise ValueError(f"levels={self.levels}, but a pixel has from 2 to 65536 values")
    if self.dequantization not in ("uniform", "none"):
      raise ValueError(
        f"dequantization={self.dequantization!r} is not known: choose 'uniform' or 'none', or 'categories' "
        "in config.data"
      )

  @property
  def uses_noise(self) -> bool:
    """Whether `to_model` takes noise."""
    return self.dequantization == "uniform"

  def to_model(self, x: Any, noise: Any = None) -> np.ndarray:
    """Stored values to model values.

    Args:
      x: integers [...] in 0 .. levels-1.
      noise: numbers in [0, 1) shaped like x, for uniform dequantisation; None puts the value in the middle of
        its bin.
    Returns:
      float32 [...] in [0, 1] or [-1, 1].
    """
    v = np.array(x, dtype=np.float32)  # a copy, then in place: this is the hot loop of the pipeline
    if self.uses_noise:
      v += np.float32(0.5) if noise is None else self._inside(noise)
      v /= np.float32(self.levels)
    else:
      v /= np.float32(self.levels - 1)
    if self.centered:
      v *= np.float32(2)
      v -= np.float32(1)
    return v

  def to_data(self, x: Any, xp: Any = np) -> np.ndarray:
    """The stored values nearest to model values.

    x: float [...], any range; xp: numpy, or jax.numpy within a program. Stored values are clipped integers
    [...], uint8 up to 256 levels.
    """
    x = xp.asarray(x, dtype=np.float32)
    unit = (x + 1) / 2 if self.centered else x
    values = xp.floor(unit * self.levels) if self.uses_noise else xp.round(unit * (self.levels - 1))
    return xp.clip(values, 0, self.levels - 1).astype(np.uint8 if self.levels <= 256 else np.uint16)

  def shown_range(self, data: np.ndarray) -> tuple[float, float]:
    """(black, white) in stored values: all levels, whatever `data` holds."""
    del data
    return 0.0, self.levels - 1.0

  def model_range(self, data: np.ndarray) -> tuple[float, float]:
    """(black, white) in model values."""
    del data
    return (-1.0 if self.centered else 0.0), 1.0

  def dequantized(self) -> "Scaling":
    """The same scaling with uniform dequantisation, under which a likelihood of stored pixels is meant."""
    return dataclasses.replace(self, dequantization="uniform")

  @property
  def log_det(self) -> float:
    """log |dx/dv| of one dimension, in nats."""
    steps = self.levels if self.uses_noise else self.levels - 1
    return math.log((2 if self.centered else 1) / steps)

  @property
  def bits_offset(self) -> float:
    """What to add to -log2 p(x) / D for bits/dim of the stored values; ValueError without dequantisation."""
    if not self.uses_noise:
      raise ValueError(
        "bits/dim of whole-numbered pixels needs dequantisation noise: without it a density can grow without "
        "bound. Use scaling.dequantized() for the evaluation, or dequantization='uniform'"
      )
    return math.log2(self.levels) - (1 if self.centered else 0)

  def _inside(self, noise):
    """Noise rounded so that v + n is exact in float32.

    It is rounded to the middles of a grid fine enough to matter nowhere and coarse enough that v + n is
    exact. Without this 255 + (1 - 2^-24) would round to 256, the next bin.
    """
    cells = np.float32(2 ** (23 - math.ceil(math.log2(self.levels))))
    inside = np.multiply(noise, cells, dtype=np.float32)
    np.floor(inside, out=inside)
    inside += np.float32(0.5)
    inside /= cells
    return inside


@dataclasses.dataclass(frozen=True)
class Categories:
  """Values that are categories 0 .. levels-1 and stay whole numbers, int32 for the model.

  >>> Categories(17).to_model(np.array([0, 16], np.uint8))
  array([ 0, 16], dtype=int32)
  """

  levels: int

  dtype: ClassVar[np.dtype] = np.dtype(np.int32)
  uses_noise: ClassVar[bool] = False
  likelihood: ClassVar[str] = ""
  vocabulary: ClassVar[None] = None
  unit: ClassVar[str] = "dim"

  def __post_init__(self) -> None:
    if not 2 <= self.levels <= 65536:
      raise ValueError(f"levels={self.levels}, but there are from 2 to 65536 categories")

  def to_model(self, x: Any, noise: Any = None) -> np.ndarray:
    """Stored categories [...] as int32; `noise` is not used."""
    return np.asarray(x).astype(np.int32)

  def to_data(self, x: Any, xp: Any = np) -> np.ndarray:
    """int [...] as the smallest unsigned type that holds them; xp: numpy, or jax.numpy within a program."""
    return xp.asarray(x).astype(np.uint8 if self.levels <= 256 else np.uint16)

  def shown_range(self, data: np.ndarray) -> tuple[float, float]:
    """(black, white) in stored values: the first and the last category."""
    del data
    return 0.0, self.levels - 1.0

  def model_range(self, data: np.ndarray) -> tuple[float, float]:
    """The same: the model sees them as stored."""
    return self.shown_range(data)


@dataclasses.dataclass(frozen=True)
class Text:
  """Values that stand for pieces of text, 0 .. vocabulary.size - 1, and stay whole numbers, int32.

  Attributes:
    vocabulary: between the numbers and text (`data.vocabulary.Vocabulary`).

  >>> from diffusion.data.vocabulary import Characters
  >>> scaling = Text(Characters("abc"))
  >>> scaling.levels, scaling.unit, scaling.vocabulary.decode(scaling.to_data(np.array([2, 0, 1])))
  (4, 'character', 'cab')
  """

  vocabulary: Vocabulary

  dtype: ClassVar[np.dtype] = np.dtype(np.int32)
  uses_noise: ClassVar[bool] = False
  likelihood: ClassVar[str] = ""

  def __post_init__(self) -> None:
    if not 2 <= self.vocabulary.size <= 65536:
      raise ValueError(f"a vocabulary of {self.vocabulary.size}, but there are from 2 to 65536 values")

  @property
  def levels(self) -> int:
    """How many values there are."""
    return self.vocabulary.size

  @property
  def unit(self) -> str:
    """'character' or 'token'."""
    return self.vocabulary.unit

  def to_model(self, x: Any, noise: Any = None) -> np.ndarray:
    """Stored values [...] as int32; `noise` is not used."""
    return np.asarray(x).astype(np.int32)

  def to_data(self, x: Any, xp: Any = np) -> np.ndarray:
    """int [...] as the smallest unsigned type that holds them; xp: numpy, or jax.numpy within a program."""
    return xp.asarray(x).astype(np.uint8 if self.levels <= 256 else np.uint16)

  def shown_range(self, data: np.ndarray) -> tuple[float, float]:
    """(black, white) in stored values: the first and the last value."""
    del data
    return 0.0, self.levels - 1.0

  def model_range(self, data: np.ndarray) -> tuple[float, float]:
    """The same: the model sees them as stored."""
    return self.shown_range(data)


@dataclasses.dataclass(frozen=True)
class WholeNumbers:
  """Whole numbers of any range that go to the model as they are: tokens, classes, counts; int32.

  >>> WholeNumbers().to_model(np.array([-1, 70_000]))
  array([   -1, 70000], dtype=int32)
  """

  dtype: ClassVar[np.dtype] = np.dtype(np.int32)
  uses_noise: ClassVar[bool] = False
  levels: ClassVar[None] = None
  likelihood: ClassVar[str] = ""
  vocabulary: ClassVar[None] = None
  unit: ClassVar[str] = "dim"

  def to_model(self, x: np.ndarray, noise: np.ndarray | None = None) -> np.ndarray:
    """Stored numbers [...] as int32; `noise` is not used."""
    del noise
    return np.asarray(x).astype(np.int32)

  def to_data(self, x: np.ndarray, xp: Any = np) -> np.ndarray:
    """int32 [...], as they are; xp: numpy, or jax.numpy within a program."""
    return xp.asarray(x).astype(np.int32)

  def shown_range(self, data: np.ndarray) -> tuple[float, float]:
    """(black, white): the least and the largest of `data`."""
    return _ends(data)

  def model_range(self, data: np.ndarray) -> tuple[float, float]:
    """The same: the model sees them as stored."""
    return self.shown_range(data)


@dataclasses.dataclass(frozen=True)
class Standardize:
  """Scaling of real-valued data by one mean and one standard deviation.

  Both are scalars for all coordinates (the convention of DDIB, arXiv:2203.08382).

  Attributes:
    mean, std: in the units of the data.
    stored: type of stored values, 'float32' or 'float64': the wider one where an offset is so large beside
      the deviation that float32 would not hold both. The mean is taken off before anything is rounded.

  >>> scaling = Standardize(mean=1.0, std=2.0)
  >>> scaling.to_model(np.array([1.0, 3.0])).tolist(), scaling.to_data(np.array([0.0, 1.0])).tolist()
  ([0.0, 1.0], [1.0, 3.0])
  >>> Standardize(1e9, 1.0, "float64").to_model(np.array([1e9 + 0.5])).tolist()
  [0.5]
  """

  mean: float = 0.0
  std: float = 1.0
  stored: str = "float32"

  dtype: ClassVar[np.dtype] = np.dtype(np.float32)
  uses_noise: ClassVar[bool] = False
  levels: ClassVar[None] = None
  likelihood: ClassVar[str] = "nats_per_dim"
  vocabulary: ClassVar[None] = None
  unit: ClassVar[str] = "dim"

  def to_model(self, x: Any, noise: Any = None) -> np.ndarray:
    """Data [...] to float32 model values (x - mean) / std; `noise` is not used."""
    x = np.asarray(x)
    if abs(self.mean) > self.std:  # in float32 the mean itself is rounded, by more than the result may be
      x = x.astype(np.float64)
    return ((x - self.mean) / self.std).astype(np.float32)

  def to_data(self, x: Any, xp: Any = np) -> np.ndarray:
    """Model values [...] to data values, of the type `stored`; xp: numpy, or jax.numpy within a program."""
    x = xp.asarray(x)
    x = x.astype(np.float64) if self.stored == "float64" else x
    return (x * self.std + self.mean).astype(self.stored)

  def shown_range(self, data: np.ndarray) -> tuple[float, float]:
    """(black, white) in stored values: the least and the largest of `data`."""
    return _ends(data)

  def model_range(self, data: np.ndarray) -> tuple[float, float]:
    """(black, white) in model values."""
    low, high = _ends(data)
    return (low - self.mean) / self.std, (high - self.mean) / self.std

  def dequantized(self) -> "Standardize":
    """Itself: real-valued data have nothing to dequantise."""
    return self

  @property
  def log_det(self) -> float:
    """log |d model / d data| of one dimension, in nats."""
    return -math.log(self.std)

  @property
  def bits_offset(self) -> float:
    """What to add to -log2 p(model value) / D for the same in data units."""
    return math.log2(self.std)


def _ends(data):
  """(low, high) of finite numbers, never equal."""
  values = np.asarray(data, np.float64)
  values = values[np.isfinite(values)]
  if not values.size:
    return -1.0, 1.0
  low, high = float(values.min()), float(values.max())
  return (low, high) if high > low else (low - 0.5 * max(abs(low), 1.0), high + 0.5 * max(abs(low), 1.0))


AnyScaling: TypeAlias = Scaling | Categories | Text | Standardize
"""How stored values become what a model sees."""
