"""Velocity matching: the slope of a path between data and noise, or between two data sets."""

from typing import Any

import jax
import jax.numpy as jnp

from diffusion.losses.base import Draw, Objective, example_keys, split_keys, terms
from diffusion.math.precision import at_least_single, sum_rows


def velocity_matching(process: Any, *, per_dimension: bool = False) -> Objective:
  """Velocity matching: ||v(x_t) - dx_t/dt||^2, summed over dimensions.

  It is the loss of flow matching, rectified flow and stochastic interpolants (arXiv:2210.02747, eq. 14;
  2209.03003, eq. 1; 2303.08797, eq. 2.13). The minimiser is E[dx_t/dt | x_t].

  The flow of that velocity carries the one end of the process to the other. Where the noise between two
  data sets leaves zero like a root, as on `processes.linear(bridge=0.5)`, dx_t/dt has no bound at the ends:
  keep times away from them, with `uniform_times(1e-3, 0.999)`.

  Args:
    process: a path such as `processes.linear()`, or a Gaussian process.
    per_dimension: whether to divide by the number of dimensions.

  batch: a dict with 'x' [B, ...] and, where both ends are data, 'x1' [B, ...] at t_max, paired row by row:
  independent draws, or a coupling. 'cond' if conditional. The model is asked for 'velocity'.

  Raises:
    ValueError: a process without velocity, a batch that lacks an end, ends of two shapes.

  >>> from diffusion import denoisers, losses, processes
  >>> objective = losses.velocity_matching(processes.linear())
  >>> still = denoisers.from_functions(velocity=lambda params, x, t, cond: 0.0 * x)
  >>> batch = {"x": jnp.zeros((1, 2)), "x1": jnp.ones((1, 2))}
  >>> draw = objective.draw(jax.random.key(0), batch, jnp.full(1, 0.5), {})
  >>> objective({"model": still}, draw).interior.tolist()
  [2.0]
  """
  name = "velocity_matching"
  if process is None or "velocity" not in process.views:
    raise ValueError(
      f"{name} needs a process that has a velocity, such as processes.linear() or "
      f"processes.rectified_flow(), got {type(process).__name__}"
    )
  ends = _ends(process)

  def draw(key, batch, t, state):
    del state
    found = _data(batch, ends, process.name, name)
    like = next(iter(found.values()))
    network_key, key = jax.random.split(key)
    noise_keys, keys = split_keys(example_keys(key, batch), 2)
    noise = process.noise(noise_keys, like)
    drawn = Draw(t=t, noise=noise, cond=batch.get("cond"), keys=keys, key=network_key)
    return drawn.replace(**found)

  def evaluate(roles, placed, params, state, clock):
    prediction = roles["model"](placed.x_t, placed.t, placed.cond, views=("velocity",), key=placed.key)
    wide = at_least_single(prediction.velocity.dtype)
    x0, noise, x1 = (
      None if end is None else end.astype(wide) for end in (placed.x0, placed.noise, placed.x1)
    )
    target = process.targets(x0, noise, placed.t, x1)["velocity"]
    square = jnp.square(prediction.velocity.astype(wide) - target.astype(wide))
    total, size = sum_rows(square), square[0].size
    collections = None if prediction.collections is None else {"model": prediction.collections}
    return terms(
      total / size if per_dimension else total,
      metrics={"velocity_mse": total / size},
      collections=collections,
    )

  return Objective(
    name=name, draw=draw, evaluate=evaluate, process=process, needs={"model": {"velocity": name}}
  )


def _ends(process) -> dict[str, str]:
  """{place in a draw: array of the batch} of the ends that are data; the only one is 'x'."""
  places = [place for place, end in zip(("x0", "x1"), process.ends) if end == "data"]
  return dict(zip(places, ("x", "x1")))


def _data(batch, ends, process_name, who) -> dict[str, jax.Array]:
  """The data of a batch by their places. Raises ValueError for another form."""
  missing = [array for array in ends.values() if not isinstance(batch, dict) or array not in batch]
  if missing:
    raise ValueError(
      f"{who} on {process_name} takes a batch that is a dict with {' and '.join(map(repr, ends.values()))}, "
      f"each [B, ...], got {sorted(batch) if isinstance(batch, dict) else type(batch).__name__}"
    )
  found = {place: batch[array] for place, array in ends.items()}
  shapes = {value.shape for value in found.values()}
  if len(shapes) > 1:
    raise ValueError(
      f"the two ends of {process_name} are paired row by row, got shapes {found['x0'].shape} and "
      f"{found['x1'].shape}: draw as many of one as of the other"
    )
  return found
