"""Scaling between stored numbers and model numbers.

Dequantisation, scaling and their log-determinant, stated here and only here.

Levels (pixels with values v = 0 .. L-1):

  dequantization='uniform'   u = (v + n) / L, n uniform in (0, 1)        density models need it
  dequantization='none'      u = v / (L - 1)                             the ends are 0 and 1 exactly
  centered=False             x = u          in [0, 1]
  centered=True              x = 2 u - 1    in [-1, 1]

  dequantization='categories'  x = v         whole numbers, for models of p(v) itself

For a density model, bits/dim of the stored pixels is -log2 p(x) / D + bits_offset with bits_offset = -log2
|dx/dv| (Theis et al., arXiv:1511.01844, section 3.1): 8 bits in [0, 1] and 7 in [-1, 1] for 256 levels,
log2(17) in [0, 1] for the digits.
"""

import dataclasses
import math
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike


@dataclasses.dataclass(frozen=True)
class Scaling:
  """Scaling of pixels with `levels` values (2 to 65536); see the head of this file. ValueError for anything
  else.

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

  dtype = np.dtype(np.float32)

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

  def to_model(self, x: ArrayLike, noise: ArrayLike | None = None) -> np.ndarray:
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

  def to_data(self, x: ArrayLike) -> np.ndarray:
    """Model values (float [...], any range) to the nearest stored values: clipped integers [...] (uint8 up to
    256 levels)."""
    x = np.asarray(x, dtype=np.float32)
    unit = (x + 1) / 2 if self.centered else x
    values = np.floor(unit * self.levels) if self.uses_noise else np.round(unit * (self.levels - 1))
    return np.clip(values, 0, self.levels - 1).astype(np.uint8 if self.levels <= 256 else np.uint16)

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
        "bound."
        " Use scaling.dequantized() for the evaluation, or dequantization='uniform'"
      )
    return math.log2(self.levels) - (1 if self.centered else 0)

  def _inside(self, noise):
    """Round noise to the middles of a grid fine enough to matter nowhere and coarse enough that v + n is
    exact in float32.

    Without this 255 + (1 - 2^-24) would round to 256, the next bin.
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

  dtype = np.dtype(np.int32)
  uses_noise = False

  def __post_init__(self) -> None:
    if not 2 <= self.levels <= 65536:
      raise ValueError(f"levels={self.levels}, but there are from 2 to 65536 categories")

  def to_model(self, x: ArrayLike, noise: ArrayLike | None = None) -> np.ndarray:
    """Stored categories [...] as int32; `noise` is not used."""
    return np.asarray(x).astype(np.int32)

  def to_data(self, x: ArrayLike) -> np.ndarray:
    """int [...] as the smallest unsigned type that holds them."""
    return np.asarray(x).astype(np.uint8 if self.levels <= 256 else np.uint16)


@dataclasses.dataclass(frozen=True)
class Standardize:
  """Real-valued data: one scalar mean and one scalar deviation for all coordinates (the convention of DDIB,
  arXiv:2203.08382).

  >>> scaling = Standardize(mean=1.0, std=2.0)
  >>> scaling.to_model(np.array([1.0, 3.0])).tolist(), scaling.to_data(np.array([0.0, 1.0])).tolist()
  ([0.0, 1.0], [1.0, 3.0])
  """

  mean: float = 0.0
  std: float = 1.0

  dtype = np.dtype(np.float32)
  uses_noise = False

  def to_model(self, x: ArrayLike, noise: ArrayLike | None = None) -> np.ndarray:
    """Data [...] to float32 model values (x - mean) / std; `noise` is not used."""
    return ((np.asarray(x) - self.mean) / self.std).astype(np.float32)

  def to_data(self, x: ArrayLike) -> np.ndarray:
    """Model values [...] to float32 data values."""
    return (np.asarray(x) * self.std + self.mean).astype(np.float32)

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


AnyScaling: TypeAlias = Scaling | Categories | Standardize
"""Between stored values and those of the model, whatever the data are."""
