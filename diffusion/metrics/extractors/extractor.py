"""What every extractor of features is: parameters, a function of grey levels, and a digest of its file."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax


@dataclasses.dataclass(frozen=True)
class Extractor:
  """A network that turns images into features.

  Attributes:
    kind: 'inception', 'dinov2' or a name of your own; protocols ask for extractors by it.
    name: which of its kind, for people: 'dinov2_vitl14'.
    side: pixels of a side of what it sees.
    outputs: length of each of its outputs by name; 'pool' is what distances are measured in.
    params: pytree of arrays.
    apply: (params, grey levels [B, side, side, 3] in 0 to 255, centre) -> dict of [B, length] in float32.
      `centre` is the grey level that a protocol takes for zero and divides by, 128 or 127.5; an extractor
      with a range of its own ignores it.
    sha256: digest of the file of weights.
    path: of that file.
    resize: how images come to its side, a name of `resizing.KINDS`; '' where the protocol says it.

  >>> mean = lambda params, x, centre: {"pool": x.mean(axis=(1, 2))}
  >>> Extractor("mean", "mean", 8, {"pool": 3}, {}, mean).outputs["pool"]
  3
  """

  kind: str
  name: str
  side: int
  outputs: Mapping[str, int]
  params: Any
  apply: Callable[[Any, jax.Array, float], dict[str, jax.Array]]
  sha256: str = ""
  path: str = ""
  resize: str = ""
