"""Random directions with E v v^T = I, drawn with the noise.

Sliced and finite-difference objectives project on them.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffusion.losses.base import Draw, Placed, example_keys, split_keys
from diffusion.losses.denoising import denoising_score_matching
from diffusion.math.directional import KINDS, random_directions
from diffusion.processes.contract import is_gaussian


def check_kind(kind: str, who: str, num: int = 1) -> None:
  """Raises ValueError for a kind or a number of directions that does not exist."""
  if kind not in KINDS:
    raise ValueError(f"{who} has no directions {kind!r}: choose one of {', '.join(KINDS)}")
  if not isinstance(num, int) or num < 1:
    raise ValueError(f"{who} projects on num_slices=1 or more directions an example, got {num!r}")


def check_process(process: Any, who: str) -> None:
  """Raises ValueError for what is neither a Gaussian process nor None."""
  if process is not None and not is_gaussian(process):
    raise ValueError(
      f"{who} acts on x_t of a Gaussian process such as processes.vp_linear(), or on clean data with "
      f"process=None; got {type(process).__name__}"
    )


def noised(process: Any, who: str) -> Callable[..., Draw]:
  """The draw of x_t: with the noise of `denoising_score_matching`, or clean data for process None.

  Returns draw(key, batch, t, state).
  """
  check_process(process, who)
  if process is not None:
    return denoising_score_matching(process).draw

  def draw(key, batch, t, state):
    del state
    if not isinstance(batch, dict) or "x" not in batch:
      raise ValueError(
        f"{who} takes a batch that is a dict with 'x' [B, ...], got "
        f"{sorted(batch) if isinstance(batch, dict) else type(batch).__name__}"
      )
    network_key, key = jax.random.split(key)
    return Draw(
      t=t,
      x0=batch["x"],
      cond=batch.get("cond"),
      keys=example_keys(key, batch),
      key=network_key,
    )

  return draw


def with_directions(process: Any, who: str, kind: str, num: int) -> Callable[..., Draw]:
  """The draw of x_t with targets['direction'] [B, num, ...], row i from key i alone."""
  check_kind(kind, who, num)
  inner = noised(process, who)

  def draw(key, batch, t, state):
    drawn = inner(key, batch, t, state)
    own, keys = split_keys(drawn.keys, 2)
    shape, dtype = (num, *drawn.x0.shape[1:]), drawn.x0.dtype
    v = jax.vmap(lambda k: random_directions(k, shape, kind, dtype))(own)
    return drawn.replace(keys=keys, targets={"direction": v})

  return draw


def noise_level(process: Any, placed: Placed) -> jax.Array:
  """sigma(t) [B] in the dtype of x_t, and one for clean data: the unit in which a direction is measured."""
  if process is None:
    return jnp.ones(placed.x_t.shape[0], placed.x_t.dtype)
  return process.marginal(placed.t).sigma.astype(placed.x_t.dtype)


def constant(process: Any, placed: Placed) -> float:
  """The constant of score matching: D for x_t of a process, 0 for clean data.

  D makes the value that of denoising score matching in expectation.
  """
  return 0.0 if process is None else float(np.prod(placed.x_t.shape[1:]))


def predicted_noise(
  process: Any, roles: Mapping[str, Any], placed: Placed
) -> Callable[[jax.Array], tuple[jax.Array, Any]]:
  """The function x -> (sigma times the model's score at the placed t and cond, updated collections)."""
  model, sigma = roles["model"], noise_level(process, placed)
  scale = sigma.reshape(-1, *[1] * (placed.x_t.ndim - 1))

  def function(x):
    # Straight from the network where it can be: sigma times a score loses the digits of a large eps.
    view = "eps" if process is not None and "eps" in model.views else "score"
    prediction = model(x, placed.t, placed.cond, views=(view,), key=placed.key)
    value = -prediction.eps if view == "eps" else scale * prediction.score
    return value, prediction.collections

  return function
