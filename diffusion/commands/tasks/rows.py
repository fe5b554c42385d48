"""Results by the batch: row (image i, draw k) depends on (seed, i, k) alone, whatever the batch size."""

import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax.typing import ArrayLike

from diffusion.commands.sample import bar
from diffusion.config.errors import UserError
from diffusion.data.scaling import AnyScaling
from diffusion.processes.base import GaussianProcess

NOISE, SOLVER, MEASUREMENT = range(3)
"""Purposes of keys: the start, the solver, the noise of a measurement."""


@functools.partial(jax.jit, static_argnames="purpose")
def keys(seed: ArrayLike, image: jax.Array, draw: jax.Array, purpose: int) -> jax.Array:
  """Typed keys [B] of images [B] and draws [B]."""
  base = jax.random.fold_in(jax.random.key(seed), purpose)
  return jax.vmap(lambda i, k: jax.random.fold_in(jax.random.fold_in(base, i), k))(image, draw)


@functools.partial(jax.jit, static_argnames="shape")
def prior(process: GaussianProcess, own: jax.Array, shape: tuple[int, ...]) -> jax.Array:
  """Starting noise [B, *shape] from keys [B]."""
  return process.prior(own, shape)


def run(
  function: Callable[..., Any],
  images: int,
  draws: int,
  batch: int,
  place: Callable[[jax.Array], jax.Array],
  quiet: bool,
  index: np.ndarray | None = None,
) -> tuple[tuple[np.ndarray, ...], float]:
  """Calls a function for batches of rows and puts the results together.

  Args:
    function: (position of the image [B], index of the image [B], draw [B]) -> array [B, ...] or a tuple of
      them. Rows beyond the last are the last again, so that every call has one shape.
    images, draws: how many; there is a row for each pair.
    batch: rows a call.
    place: puts a [B, ...] array on the devices.
    quiet: no progress bar.
    index: [images] numbers of the images, their positions by default.

  Returns:
    (tuple of arrays [images, draws, ...] on the host, seconds).

  Raises:
    UserError: results that are not finite.
  """
  index = np.arange(images) if index is None else index
  count, found, begun = images * draws, [], time.perf_counter()
  with bar(count, quiet) as shown:
    for start in range(0, count, batch):
      row = np.minimum(start + np.arange(batch), count - 1)
      position, draw = row // draws, row % draws
      try:
        out = function(*(place(jnp.asarray(part, jnp.int32)) for part in (position, index[position], draw)))
      except ValueError as error:  # parts that do not fit each other, before anything is compiled
        raise UserError(str(error)) from error
      out = out if isinstance(out, tuple) else (out,)
      found.append([np.asarray(part)[: count - start] for part in out])
      bad = next((part for part in found[-1] if not np.all(np.isfinite(part))), None)
      if bad is not None:
        first = int(np.argmin(np.isfinite(bad.reshape(len(bad), -1)).all(axis=1)))
        raise UserError(
          f"the result for image {index[position[first]]}, draw {draw[first]}, is not finite: take more "
          "steps, another method or less guidance"
        )
      shown.update(min(batch, count - start))
  joined = tuple(np.concatenate(parts) for parts in zip(*found))
  return tuple(part.reshape(images, draws, *part.shape[1:]) for part in joined), time.perf_counter() - begun


def in_data_values(scaling: AnyScaling, x: npt.ArrayLike) -> np.ndarray:
  """Model values as numbers in the data's range, not rounded: the affine map that `to_model` inverts.

  >>> from diffusion.data.scaling import Scaling
  >>> in_data_values(Scaling(17), np.array([-1.0, 1.0])).tolist()
  [0.0, 16.0]
  """
  return (np.asarray(x, np.float64) - float(scaling.to_model(np.zeros(1))[0])) / unit(scaling)


def unit(scaling: AnyScaling) -> float:
  """How many model units one step of the data's values is.

  >>> from diffusion.data.scaling import Scaling
  >>> unit(Scaling(17))
  0.125
  """
  return float(np.diff(scaling.to_model(np.array([0.0, 1.0])))[0])
