"""What a file of weights holds, before its numbers are read; and reading them to where they should lie."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np

from diffusion.config.errors import UserError


@dataclasses.dataclass(frozen=True)
class StoredArray:
  """One array of a file: its shape and dtype are known, its numbers are not yet read.

  Attributes:
    shape: of the array.
    dtype: as it is in the file, in this machine's byte order; bfloat16 and float8 are those of `ml_dtypes`.
    fetch: index (of slices, as NumPy takes it) -> that part as a new NumPy array.

  >>> numbers = np.arange(6, dtype=np.float32).reshape(2, 3)
  >>> one = StoredArray(numbers.shape, numbers.dtype, numbers.__getitem__)
  >>> one.nbytes, one.read((slice(1, 2),))
  (24, array([[3., 4., 5.]], dtype=float32))
  """

  shape: tuple[int, ...]
  dtype: np.dtype
  fetch: Callable[[tuple[slice, ...]], np.ndarray] = dataclasses.field(repr=False, compare=False)

  @property
  def nbytes(self) -> int:
    """Bytes of the whole array in memory."""
    return math.prod(self.shape) * self.dtype.itemsize

  def read(self, index: tuple[slice, ...] = ()) -> np.ndarray:
    """The numbers, or those of a part: one slice for each of the first axes.

    Raises UserError where the file no longer is as it was when it was opened.
    """
    return self.fetch(index)


@dataclasses.dataclass(frozen=True)
class Contents:
  """What a file, or a folder of files, holds.

  Attributes:
    path: of the file or folder.
    format: name of the format, as `diffusion.weights` lists them.
    arrays: each array by its dotted name: 'conv_in.weight', 'ema.model.map_layer0.weight'.
    notes: all else, as plain data. 'metadata': what the format itself has beside arrays. 'config': the
      config.json in the same folder. 'tree': numbers, texts and lists between the arrays; a module of EDM or
      EDM2 is there as `formats.pickled` says.
    batch: reads many arrays in one pass, in formats that have such a way; None reads them one by one.
  """

  path: str
  format: str
  arrays: Mapping[str, StoredArray]
  notes: Mapping[str, Any]
  batch: Callable[[Mapping[str, Any]], dict[str, Any]] | None = dataclasses.field(default=None, repr=False)

  def load(
    self, names: Iterable[str] | None = None, place: Callable[[str], jax.sharding.Sharding] | None = None
  ) -> dict[str, Any]:
    """The arrays by name, one by one: beside them, the host holds no more than a piece of one.

    Args:
      names: which; all of them if None.
      place: name -> where it should lie. Each device is given its own part and no other, in the dtype that
        JAX has for the file's (float32 for float64 unless 64 bits are switched on). None for NumPy arrays in
        the file's own dtype.
    Raises:
      UserError: for a name that is not there, a damaged array, or whole numbers that JAX's dtype cannot hold.
    """
    wanted = list(self.arrays) if names is None else list(names)
    for name in wanted:
      if name not in self.arrays:
        raise UserError(
          f"{self.path} holds no array {name!r}: there are {len(self.arrays)}, {_some(self.arrays)}; name "
          "one of them"
        )
    places = {name: None if place is None else place(name) for name in wanted}
    found: dict[str, Any] = {}
    if self.batch is not None:
      kept = lambda name: places[name] is None or self._dtype(name) == self.arrays[name].dtype
      found = self.batch({name: places[name] for name in wanted if kept(name)})
    return {name: found[name] if name in found else self._one(name, where) for name, where in places.items()}

  def _dtype(self, name):
    """What JAX makes of the dtype of an array."""
    return jax.dtypes.canonicalize_dtype(self.arrays[name].dtype)

  def _one(self, name, where):
    array = self.arrays[name]
    if where is None:
      return array.read()
    dtype, parts = self._dtype(name), {}

    def part(index):
      key = tuple((one.start, one.stop) for one in index)
      if key not in parts:  # devices that hold the same part share one reading
        parts[key] = self._cast(name, array.read(tuple(index)), dtype)
      return parts[key]

    return jax.make_array_from_callback(array.shape, where, part)

  def _cast(self, name, numbers, dtype):
    if numbers.dtype == dtype:
      return numbers
    cast = numbers.astype(dtype)
    if numbers.dtype.kind in "iu" and not np.array_equal(cast, numbers):
      raise UserError(
        f"{name} in {self.path} holds whole numbers that {dtype} cannot: leave it out of names=..., or "
        "switch on jax_enable_x64"
      )
    return cast


def _some(names: Iterable[str]) -> str:
  found = list(names)
  return ", ".join(found[:4]) + (", ..." if len(found) > 4 else "")
