"""Autoregression in an order of chance, whose mean over orders bounds the negative log-likelihood."""

import math
from typing import Any

import jax.numpy as jnp

from diffusion.losses.base import Objective, placed_at, terms
from diffusion.losses.whole_numbers import check_masks, drawn_values, log_p_of, of_model
from diffusion.math.precision import sum_rows
from diffusion.processes.hiding import hide


def any_order_autoregression(process: Any) -> Objective:
  """The cross-entropy of all that comes later in one order of chance, seen from one position of chance.

  An order of the D coordinates and a position are drawn. The coordinates before it are seen, the n others are
  masked, and the value is D / n times the sum of -log p(x_d | what is seen) over the masked ones, in nats
  (arXiv:2110.02037, eq. 4 and algorithm 2). Its expectation is an upper bound of -log p(x_0) for a
  model that fills in one coordinate at a time; at the exact posterior it is the entropy of the data.

  For a model that takes no account of the time this is `masked_cross_entropy` over all times: the same
  expectation and gradient, with n spread evenly in place of binomially around each time's mean. A model that
  is told the time is told one at which so many coordinates would be masked.

  The position follows from the time of the draw, uniform where that is uniform over the process's own times:
  n = 1 + floor(D (t - t_min) / (t_max - t_min)), so that stratified times spread n evenly over a batch.

  Args:
    process: from `processes.masked`.

  batch: a dict with 'x' [B, ...] int below K and, if conditional, 'cond'. The model is asked for 'logits'
  [B, ..., K] at x_t.

  Raises:
    ValueError: a process without masks, a batch without 'x' or of another shape or kind of number.

  >>> from diffusion import denoisers, losses, processes
  >>> objective = losses.any_order_autoregression(processes.masked(2, (4,)))
  >>> even = denoisers.from_functions(logits=lambda params, x, t, cond: jnp.zeros((*x.shape, 2)))
  >>> draw = losses.Draw(t=jnp.array([0.1, 0.9]), x0=jnp.zeros((2, 4), int), noise=jnp.zeros((2, 4)))
  >>> objective({"model": even}, draw).interior.round(3).tolist()  # log(2) of each coordinate
  [2.773..., 2.773...]
  """
  name = "any_order_autoregression"
  check_masks(process, name)
  size = math.prod(process.shape)

  def place(roles, draw):
    del roles
    part = (draw.t - process.t_min) / (process.t_max - process.t_min)
    count = jnp.clip(1 + jnp.floor(part * size).astype(jnp.int32), 1, size)
    x_t, t = hide(process, draw.x0, draw.noise, count)
    return placed_at(draw.replace(t=t.astype(draw.t.dtype)), x_t)

  def evaluate(roles, placed, params, state, clock):
    prediction = roles["model"](placed.x_t, placed.t, placed.cond, views=("logits",), key=placed.key)
    hidden = placed.x_t == process.mask
    nats = sum_rows(jnp.where(hidden, -log_p_of(prediction.logits, placed.x0), 0.0))
    count = sum_rows(hidden.astype(nats.dtype))
    return terms(
      size * nats / count,
      metrics={"nats_per_mask": nats / count},
      collections=of_model(prediction.collections),
    )

  return Objective(
    name=name,
    draw=drawn_values(process, name),
    place=place,
    evaluate=evaluate,
    process=process,
    needs={"model": {"logits": name}},
    interval=(process.t_min, process.t_max),
  )
