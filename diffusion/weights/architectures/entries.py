"""The arrays of a published network, taken one by one by their names until none is left."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import numpy as np

from diffusion.config.errors import UserError

Options = TypeVar("Options")


class Entries:
  """Arrays by dotted name, each to be taken once; `finish` says what did not fit.

  Weights are in PyTorch's order, outputs first, and come out in Flax's, float32.

  >>> entries = Entries({"up.weight": np.ones((3, 2)), "up.bias": np.zeros(3)}, "a network")
  >>> entries.dense("up", 2, 3)["kernel"].shape
  (2, 3)
  >>> entries.finish()
  """

  def __init__(self, arrays: Mapping[str, Any], who: str) -> None:
    """The arrays of a file, and what messages call the network that they should be."""
    self._arrays, self._who, self._taken = arrays, who, set()
    self._missing: list[str] = []
    self._differing: list[str] = []

  def take(self, name: str, *shape: int) -> np.ndarray:
    """The array of a name in float32; zeros of its shape where it is missing or of another shape."""
    self._taken.add(name)
    if name not in self._arrays:
      self._missing.append(name)
      return np.zeros(shape, np.float32)
    found = np.asarray(self._arrays[name])
    if found.shape != shape:
      self._differing.append(f"{name} {found.shape} instead of {shape}")
      return np.zeros(shape, np.float32)
    return found.astype(np.float32)

  def constant(self, name: str, value: np.ndarray) -> None:
    """Takes an array that must have this value: the taps of a filter."""
    found = self.take(name, *value.shape)
    known = name not in self._missing and not any(one.startswith(f"{name} ") for one in self._differing)
    if known and not np.allclose(found, value, rtol=1e-3):  # a file in half precision
      self._differing.append(f"{name} of other values than the options say")

  def dense(self, name: str, inputs: int, outputs: int, bias: bool = True) -> dict[str, np.ndarray]:
    """{kernel [in, out], bias}."""
    kernel = np.ascontiguousarray(self.take(f"{name}.weight", outputs, inputs).T)
    return {"kernel": kernel} | ({"bias": self.take(f"{name}.bias", outputs)} if bias else {})

  def conv(
    self, name: str, inputs: int, outputs: int, size: int = 3, bias: bool = True
  ) -> dict[str, np.ndarray]:
    """{kernel [size, size, in, out], bias}."""
    weight = self.take(f"{name}.weight", outputs, inputs, size, size)
    kernel = np.ascontiguousarray(weight.transpose(2, 3, 1, 0))
    return {"kernel": kernel} | ({"bias": self.take(f"{name}.bias", outputs)} if bias else {})

  def pointwise(self, name: str, inputs: int, outputs: int) -> dict[str, np.ndarray]:
    """{kernel [in, out], bias} of a 1x1 convolution."""
    found = self.conv(name, inputs, outputs, size=1)
    return found | {"kernel": found["kernel"][0, 0]}

  def norm(self, name: str, channels: int) -> dict[str, np.ndarray]:
    """{scale, bias}."""
    return {"scale": self.take(f"{name}.weight", channels), "bias": self.take(f"{name}.bias", channels)}

  def finish(self) -> None:
    """Raises UserError if an array was missing, had another shape, or is left."""
    left = [name for name in self._arrays if name not in self._taken]
    wrong = [
      f"{len(names)} {what}: {_some(names)}"
      for what, names in (
        ("missing", self._missing),
        ("unknown", left),
        ("that differ", self._differing),
      )
      if names
    ]
    if wrong:
      raise UserError(
        f"these arrays are not those of {self._who}: {'; '.join(wrong)}; give the options that the file was "
        "made with, and all of its arrays"
      )


def options_of(options: type[Options], given: Mapping[str, Any], ignored: Iterable[str] = ()) -> Options:
  """The dataclass of options from keyword arguments in a file, lists as tuples.

  Raises UserError for a name that it does not have, and for one that it needs.
  """
  fields = {field.name: field for field in dataclasses.fields(options)}  # pyright: ignore[reportArgumentType]
  wanted = {name: value for name, value in given.items() if name not in set(ignored)}
  unknown = [name for name in wanted if name not in fields]
  needed = [
    name for name, field in fields.items() if field.default is dataclasses.MISSING and name not in wanted
  ]
  if unknown or needed:
    raise UserError(
      f"{options.__name__} has {f'no {_some(unknown)}' if unknown else f'to be told {_some(needed)}'}: its "
      f"options are {', '.join(fields)}"
    )
  return options(**{name: tuple(v) if isinstance(v, list | tuple) else v for name, v in wanted.items()})


def _some(names: list[str]) -> str:
  return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
