"""What objectives of whole numbers share: the draw of a batch, and the cross-entropy of its values."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from diffusion.losses.base import Draw, example_keys, split_keys
from diffusion.math.precision import at_least_single
from diffusion.processes.values import check_values


def drawn_values(process: Any, who: str) -> Callable[..., Draw]:
  """draw(key, batch, t, state) of data and of the noise of a discrete process.

  The batch is a dict with 'x' [B, ...] int below K and, if conditional, 'cond'. Raises ValueError for
  another, and for values that the process has not where the batch is no traced array.
  """

  def draw(key, batch, t, state):
    del state
    if not isinstance(batch, dict) or "x" not in batch:
      raise ValueError(
        f"{who} takes a batch that is a dict with 'x' [B, ...], got "
        f"{sorted(batch) if isinstance(batch, dict) else type(batch).__name__}"
      )
    x0 = batch["x"]
    check_values(process, x0)
    network_key, key = jax.random.split(key)
    noise_keys, keys = split_keys(example_keys(key, batch), 2)
    noise = process.noise(noise_keys, x0)
    return Draw(t=t, x0=x0, noise=noise, cond=batch.get("cond"), keys=keys, key=network_key)

  return draw


def check_masks(process: Any, who: str) -> None:
  """Raises ValueError unless the process ends in masks."""
  if process is None or process.ends[1] != "mask":
    raise ValueError(
      f"{who} needs a process that ends in masks, such as processes.masked(16, (64,)), got "
      f"{type(process).__name__}"
    )


def log_p_of(logits: jax.Array, x0: jax.Array) -> jax.Array:
  """log p(x_0) in nats of each coordinate, in at least float32: logits [B, ..., K], x0 [B, ...] -> [B, ...].

  >>> log_p_of(jnp.zeros((1, 2, 4)), jnp.array([[3, 0]])).round(3).tolist()
  [[-1.386..., -1.386...]]
  """
  log_p = jax.nn.log_softmax(logits.astype(at_least_single(logits.dtype)), axis=-1)
  return jnp.take_along_axis(log_p, x0[..., None], axis=-1)[..., 0]


def of_model(collections: Any) -> Any:
  """The updated collections of the role 'model' as `terms` takes them."""
  return None if collections is None else {"model": collections}


def check_chain(process: Any, who: str) -> None:
  """Raises ValueError unless it is a discrete process that is a Markov chain in t."""
  if process is None or process.kind != "discrete" or not process.markov:
    raise ValueError(
      f"{who} needs a discrete process that is a Markov chain in t, such as "
      f"processes.uniform_resample(16, (64,)), got {type(process).__name__}"
    )


def check_jumps(process: Any, who: str) -> None:
  """Raises ValueError unless it is a discrete process with jump rates in continuous time."""
  if process is None or process.kind != "discrete" or not process.jumps:
    raise ValueError(
      f"{who} needs a discrete process with jump rates in continuous time, such as "
      f"processes.uniform_resample(16, (64,)), got {type(process).__name__}"
    )


def check_path(process: Any, who: str, mixes: bool = False) -> None:
  """Raises ValueError unless it is a discrete process; with `mixes`, unless it is a mixture path too."""
  if process is None or process.kind != "discrete" or (mixes and not process.mixes):
    path = " under which a coordinate keeps its value or is drawn anew" if mixes else ""
    raise ValueError(
      f"{who} needs a discrete process{path}, such as processes.masked(16, (64,)) or "
      f"processes.uniform_resample(16, (64,)), got {type(process).__name__}"
    )
