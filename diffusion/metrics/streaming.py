"""Features of any number of images, batch by batch on all devices: sums that do not grow, and chosen rows.

Means and covariances, and the sums of the Inception score, are added up in float64 in chunks of a fixed
length, so the result has the same bits wherever a run was stopped and went on. Rows of features are kept for
those images alone that a metric compares one by one.
"""

import dataclasses
import functools
import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from diffusion.metrics import resizing
from diffusion.metrics.extractors.extractor import Extractor
from diffusion.metrics.sums import Features, Sums, Wanted

CHUNK = 256
"""Images that are added up at once."""

SAVED_EVERY = 60.0
"""Seconds between two records of how far it came."""


class Images(Protocol):
  """Images by index, all of one size."""

  @property
  def count(self) -> int:
    """How many there are."""
    ...

  @property
  def said(self) -> Mapping[str, Any]:
    """What and where they are, as JSON types: for the record, and to know them again."""
    ...

  def read(self, first: int, count: int) -> np.ndarray:
    """Grey levels [count, H, W, 3], uint8, of images `first` to `first + count - 1`."""
    ...


@dataclasses.dataclass(frozen=True)
class ArrayImages:
  """Images of an array in memory, [N, H, W, 3] uint8.

  >>> ArrayImages(np.zeros((5, 8, 8, 3), np.uint8)).read(3, 2).shape
  (2, 8, 8, 3)
  """

  array: np.ndarray
  name: str = "an array"

  @property
  def count(self) -> int:
    """How many there are."""
    return len(self.array)

  @property
  def said(self) -> Mapping[str, Any]:
    """A digest of the numbers."""
    return {
      "images": self.name,
      "sha256": hashlib.sha256(np.ascontiguousarray(self.array).tobytes()).hexdigest(),
    }

  def read(self, first: int, count: int) -> np.ndarray:
    """Images `first` to `first + count - 1`."""
    return self.array[first : first + count]


@functools.partial(jax.jit, static_argnames=("apply", "side", "resize", "clip", "centre", "outputs"))
def features_of(
  params: Any,
  images: jax.Array,
  *,
  apply: Callable[..., dict[str, jax.Array]],
  side: int,
  resize: str,
  clip: bool,
  centre: float,
  outputs: tuple[str, ...],
) -> dict[str, jax.Array]:
  """Features [B, ...] by name of grey levels [B, H, W, 3] uint8, resized first."""
  x = resizing.resize(images, resize, side)
  x = jnp.clip(x, 0, 255) if clip else x
  with jax.default_matmul_precision("highest"):  # float32 throughout, where a device would take less
    found = apply(params, x, centre)
  return {name: found[name] for name in outputs}


def extract(
  images: Images,
  extractor: Extractor,
  wanted: Wanted,
  *,
  resize: str,
  clip: bool = False,
  centre: float = 128.0,
  batch: int = 32,
  place: Callable[[np.ndarray], jax.Array] | None = None,
  whole: Callable[[Any], Any] | None = None,
  folder: str | None = None,
  progress: Callable[[int], Any] | None = None,
) -> Features:
  """Features of all images.

  Args:
    images: where they come from.
    extractor: the network.
    wanted: what to keep.
    resize, clip, centre: of the protocol.
    batch: images that the network sees at once; the last batch is filled up.
    place: puts a [batch, ...] array on the devices.
    whole: puts parameters on the devices.
    folder: where to note how far it came, to go on from there; it is removed at the end. None for nowhere.
    progress: called with a number of images that are done.

  Raises:
    ValueError: no images, images that are not [n, H, W, 3] uint8, a feature that is no number.
  """
  count = images.count
  if count < 1:
    raise ValueError("there are no images to take features of")
  run = functools.partial(
    features_of,
    (whole or (lambda tree: jax.tree.map(jnp.asarray, tree)))(extractor.params),
    apply=extractor.apply,
    side=extractor.side,
    resize=resize,
    clip=clip,
    centre=centre,
    outputs=wanted.outputs,
  )
  key = {"images": dict(images.said), "count": count, "sha256": extractor.sha256, "batch": batch}
  key |= {"resize": resize, "clip": clip, "centre": centre, "extractor": extractor.name}
  state = Sums.opened(extractor, wanted, folder, key)
  if progress is not None and state.done:
    progress(state.done)
  saved = time.monotonic()
  for first, found in _chunks(images, state.done, run, batch, place or jnp.asarray, extractor.outputs):
    number = len(found[wanted.outputs[0]])
    state.add(first, found)
    if progress is not None:
      progress(number)
    if folder is not None and time.monotonic() - saved > SAVED_EVERY and state.done < count:
      state.save(folder, key)
      saved = time.monotonic()
  return state.features(folder)


def _chunks(images, start, run, batch, place, lengths) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
  """(first index, features by name) of each chunk; the devices work while the host adds one up."""

  def asked(first):
    number = min(CHUNK, images.count - first)
    grey = np.asarray(images.read(first, number))
    if grey.ndim != 4 or grey.shape[0] != number or grey.shape[3] != 3 or grey.dtype != np.uint8:
      raise ValueError(
        f"images {first} to {first + number - 1} came as {grey.dtype} {list(grey.shape)}: they must be uint8 "
        f"[{number}, H, W, 3]"
      )
    parts = []
    for at in range(0, number, batch):
      part = grey[at : at + batch]
      full = np.concatenate([part, np.repeat(part[-1:], batch - len(part), axis=0)])
      parts.append(run(place(full)))
    return first, number, parts

  def got(first, number, parts):
    whole = jax.device_get(parts)
    found = {name: np.concatenate([part[name] for part in whole])[:number] for name in whole[0]}
    for name, array in found.items():
      if array.shape[1:] != (lengths[name],):
        raise ValueError(f"the extractor gives {array.shape[1:]} for {name!r}, and says {lengths[name]}")
    return first, found

  before = None
  for first in range(start, images.count, CHUNK):
    now = asked(first)
    if before is not None:
      yield got(*before)
    before = now
  if before is not None:
    yield got(*before)
