"""The variational bound of a discrete process with steps (D3PM, arXiv:2107.03006)."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from diffusion.losses.base import Objective, placed_at, terms
from diffusion.losses.chain_bounds import certain
from diffusion.losses.whole_numbers import check_chain, drawn_values, log_p_of, of_model
from diffusion.math.divergence import generalised_kl
from diffusion.math.precision import sum_rows


def d3pm_bound(process: Any, steps: int | ArrayLike, *, auxiliary: float = 0.0) -> Objective:
  """The variational bound of a model with so many steps, drawn at one of them, in nats.

  The bound is the sum over steps s < t of KL(q(x_s | x_t, x_0) || p(x_s | x_t)) (arXiv:2107.03006, eq. 1),
  of which one is drawn and taken T times. The model's step is the mean of q(x_s | x_t, x_0) over its
  p(x_0 | x_t) (there, eq. 4). The last step leads to the data, and its divergence is -log p(x_0 | x_1), the
  paper's L_0. L_T, the divergence of the end of the noise from where sampling starts, knows no model and is
  left out; `likelihood.categorical_elbo` has it.

  Coordinates of one step are drawn apart from each other. So the bound of the exact posterior is the entropy
  of the data plus, for each step, how much the coordinates of x_s tell of each other given x_t; of
  one coordinate it is the entropy, for any steps.

  Args:
    process: a discrete process that is a Markov chain in t.
    steps: T, for equal steps from 0 to t_max, or T + 1 increasing times, the first of them the data's.
    auxiliary: the weight of the cross-entropy -log p(x_0 | x_t) at the same step, summed over coordinates,
      which is added (there, eq. 5; 0.01 and 0.001 in the paper). With it the value is no bound.

  The step follows from the time of the draw: number 1 + floor(T (t - t_min) / (t_max - t_min)), so that
  stratified times take all alike.

  batch: a dict with 'x' [B, ...] int below K and, if conditional, 'cond'. The model is asked for 'logits' and
  'probabilities' [B, ..., K].

  Raises ValueError for a process that is no such chain, steps that do not increase from the data within its
  times, a negative weight, or a batch without 'x' or of values that the process has not.

  >>> from diffusion import losses, processes
  >>> objective = losses.d3pm_bound(processes.uniform_resample(4), 8, auxiliary=0.01)
  >>> draw = losses.Draw(t=jnp.array([0.02, 0.3]), x0=jnp.zeros((2, 1), int), noise=dict(
  ...   uniform=jnp.ones((2, 1)), value=jnp.zeros((2, 1), int)))
  >>> placed = objective.place({}, draw)
  >>> placed.targets["s"].tolist(), placed.t.tolist()
  ([0.0, 0.25], [0.125, 0.375])
  """
  name = "d3pm_bound"
  check_chain(process, name)
  grid = step_grid(process, steps, name)
  if not auxiliary >= 0:
    raise ValueError(f"{name} takes a weight auxiliary >= 0 of the cross-entropy, got {auxiliary}")
  count = len(grid) - 1

  def place(roles, draw):
    del roles
    part = (draw.t - process.t_min) / (process.t_max - process.t_min)
    step = jnp.clip(jnp.floor(part * count).astype(jnp.int32), 0, count - 1)
    times = jnp.asarray(grid, draw.t.dtype)
    s, t = times[step], times[step + 1]
    x_t = process.corrupt(draw.x0, draw.noise, t).astype(draw.x0.dtype)
    return placed_at(draw.replace(t=t, targets={"s": s}), x_t)

  def evaluate(roles, placed, params, state, clock):
    views = ("logits", "probabilities")
    prediction = roles["model"](placed.x_t, placed.t, placed.cond, views=views, key=placed.key)
    nats = step_kl(process, placed.x0, placed.x_t, placed.targets["s"], placed.t, prediction.probabilities)
    metrics = {"nats_of_step": nats}
    value = count * nats
    if auxiliary:
      cross_entropy = -log_p_of(prediction.logits, placed.x0)
      metrics["cross_entropy"] = sum_rows(cross_entropy)
      value = value + auxiliary * metrics["cross_entropy"]
    return terms(value, metrics=metrics, collections=of_model(prediction.collections))

  return Objective(
    name=name,
    draw=drawn_values(process, name),
    place=place,
    evaluate=evaluate,
    process=process,
    needs={"model": {"logits": name, "probabilities": name}},
    interval=(process.t_min, process.t_max),
  )


def step_kl(
  process: Any, x0: jax.Array, x_t: jax.Array, s: jax.Array, t: jax.Array, probabilities: jax.Array
) -> jax.Array:
  """KL(q(x_s | x_t, x_0) || p(x_s | x_t)) in nats, summed over coordinates: [B].

  Args:
    process: a discrete process that is a Markov chain in t.
    x0, x_t: [B, ...] int.
    s, t: [B], s < t.
    probabilities: the model's p(x_0 = k | x_t): [B, ..., K].
  """
  truth = process.posterior(certain(process, x0, probabilities.dtype), x_t, s, t)
  model = process.posterior(probabilities, x_t, s, t)
  return sum_rows(generalised_kl(truth.astype(model.dtype), model))


def step_grid(process: Any, steps: int | ArrayLike, who: str) -> np.ndarray:
  """T + 1 increasing times from the data at 0 to the process's last, in float64.

  Args:
    process: a discrete process.
    steps: T, for its default grid, or the times themselves.
    who: asks, for the message.

  Raises ValueError for times that do not increase from 0 within the process's.

  >>> from diffusion import processes
  >>> step_grid(processes.masked(2, (1,)), 4, "d3pm_bound").tolist()
  [0.0, 0.25, 0.5, 0.75, 1.0]
  """
  given = np.asarray(steps)
  grid = process.default_grid(given.item())[::-1] if given.ndim == 0 else given.astype(np.float64)
  last = float(process.t_max)
  if grid.ndim != 1 or len(grid) < 2 or grid[0] != 0.0 or np.any(np.diff(grid) <= 0) or grid[-1] > last:
    raise ValueError(
      f"{who} takes a number of steps, or times that increase from 0, the data, up to {last:g} at most, got "
      f"{given.tolist()}"
    )
  return grid
