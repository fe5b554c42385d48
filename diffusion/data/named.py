"""Arrays of a record besides x: what the model is told (conditions), and the other half of a pair.

In a batch the label and every condition stand in `batch["cond"]` by name, the other half of a pair in
`batch["x1"]`. How each is scaled is stated once, here: images [h, w, C] of unsigned whole numbers as pixels
are, other whole numbers (tokens, classes) not at all, real numbers by one mean and one deviation of their
own. The other half of a pair lies in the space of x and is scaled as x is.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from diffusion.config.errors import UserError
from diffusion.data.scaling import Scaling, Standardize, WholeNumbers
from diffusion.data.sources import Source, load


@dataclasses.dataclass(frozen=True)
class ArraySpec:
  """Shape of one example's array and its type in a batch."""

  shape: tuple[int, ...]
  dtype: np.dtype


@dataclasses.dataclass(frozen=True)
class NamedArray:
  """An array that records hold by name.

  Attributes:
    name: in the records, and in `batch["cond"]` if it is a condition.
    shape: of one record's array.
    scaling: between stored and model values, see `diffusion.data.scaling`.
    kept: whether files of samples keep it beside them: an embedding is made again from what it is of.
  """

  name: str
  shape: tuple[int, ...]
  scaling: Any
  kept: bool = True

  @property
  def spec(self) -> ArraySpec:
    """Shape and type in a batch."""
    return ArraySpec(self.shape, self.scaling.dtype)


def condition(name: str, source: Source, levels: int = 256, centered: bool = True) -> NamedArray:
  """The array `name` of a source's records as a condition.

  Args:
    name: of the array.
    source: training records.
    levels, centered: of pixels, for whole numbers [h, w, C].
  Raises:
    UserError: records without it, or of a type that is no number.

  >>> records = [dict(x=np.zeros(2), tokens=np.array([5, 9]))] * 2
  >>> condition("tokens", records).spec
  ArraySpec(shape=(2,), dtype=dtype('int32'))
  """
  first = find(name, source)
  kind = first.dtype.kind
  if kind in "iub":
    scaling = Scaling(levels, centered) if kind == "u" and first.ndim == 3 else WholeNumbers()
  elif kind == "f":
    scaling = standardize(load(source)[name])
  else:
    raise UserError(f"the array '{name}' has the type {first.dtype}: save whole numbers or real numbers")
  return NamedArray(name, first.shape, scaling)


def other_half(name: str, source: Source, like: Any) -> NamedArray:
  """The array `name` of a source's records as the other half of a pair, scaled as x is (`like`).

  Raises:
    UserError: records without it, or whole numbers beside real ones.
  """
  first, x = find(name, source), find("x", source)
  if (first.dtype.kind == "f") != (x.dtype.kind == "f"):
    raise UserError(
      f"x has the type {x.dtype} and the other half of its pair, '{name}', {first.dtype}: save both as whole "
      "or both as real numbers"
    )
  return NamedArray(name, first.shape, like)


def find(name: str, source: Source) -> np.ndarray:
  """The array `name` of the first record; UserError where there is none."""
  record = source[0]
  if name not in record:
    raise UserError(f"the records have the arrays {', '.join(sorted(record))}, but none called {name!r}")
  return np.asarray(record[name])


def names(given: str | Sequence[str] | None) -> tuple[str, ...]:
  """Names from a sequence, from one text with commas, or from nothing.

  >>> names("label, tokens"), names(None)
  (('label', 'tokens'), ())
  """
  if isinstance(given, str):
    return tuple(name.strip() for name in given.split(",") if name.strip())
  return tuple(given or ())


def standardize(x: np.ndarray) -> Standardize:
  """`Standardize` by the mean and the deviation of all numbers of an array, both taken in float64."""
  x = np.asarray(x)
  wide = np.asarray(x, np.float64)
  return Standardize(
    float(wide.mean()), float(wide.std()) or 1.0, "float64" if x.dtype == np.float64 else "float32"
  )


def narrowed(x: np.ndarray) -> np.ndarray:
  """Real numbers as float32, or as float64 where float32 moves them by more than 1e-5 of their deviation.

  Half of the 2^-24 of the largest number is the most that rounding moves one.

  >>> narrowed(np.array([0.0, 1.0])).dtype, narrowed(1e9 + np.array([0.0, 1.0])).dtype
  (dtype('float32'), dtype('float64'))
  """
  if x.dtype.itemsize <= 4 or not x.size:
    return x.astype(np.float32)
  largest, deviation = float(np.abs(x).max()), float(x.std())
  return x.astype(np.float64 if largest * 2.0**-24 > 1e-5 * deviation > 0 else np.float32)


def encode(
  records: Mapping[str, np.ndarray],
  scaling: Any,
  *,
  num_classes: int = 0,
  conditions: Sequence[NamedArray] = (),
  pair: NamedArray | None = None,
  noise: np.ndarray | None = None,
) -> dict[str, Any]:
  """Stacked records as the batch that a loss takes.

  Args:
    records: dict(x=[n, ...], label=[n], ...) of stored values, as `sources.gather` returns.
    scaling: of x; None leaves x as stored, as float32.
    num_classes: 0 leaves the labels out.
    conditions, pair: the named arrays that the batch holds.
    noise: [n, ...] in [0, 1) for uniform dequantisation of x; the other half of a pair gets none.
  Returns:
    dict(x=[n, ...]), with cond={name: [n, ...]} where there are conditions and x1=[n, ...] where there is a
    pair.
  """
  x = records["x"]
  batch: dict[str, Any] = {"x": x.astype(np.float32) if scaling is None else scaling.to_model(x, noise)}
  cond = {"label": records["label"].astype(np.int32)} if num_classes else {}
  cond |= {one.name: one.scaling.to_model(records[one.name]) for one in conditions}
  if pair is not None:
    batch["x1"] = pair.scaling.to_model(records[pair.name])
  return batch | ({"cond": cond} if cond else {})
