"""The cross-entropy of masked coordinates, whose integral over time bounds the negative log-likelihood."""

from typing import Any

import jax.numpy as jnp

from diffusion.losses.base import Objective, terms
from diffusion.losses.whole_numbers import check_masks, drawn_values, log_p_of, of_model
from diffusion.math.precision import sum_rows


def masked_cross_entropy(process: Any) -> Objective:
  """The cross-entropy of the masked coordinates, times -alpha'(t) / (1 - alpha(t)).

  The value is in nats (arXiv:2406.07524, eq. 8-10).

  Its integral over t from 0 to 1 is an upper bound of -log p(x_0) for a model that fills masks in one at a
  time, and its expectation under the true posterior is the entropy of the data. Under uniform times the
  mean of the loss is that integral, less what lies below the process's t_min.

  Args:
    process: from `processes.masked`.

  batch: a dict with 'x' [B, ...] int below K and, if conditional, 'cond'. The model is asked for 'logits'
  [B, ..., K] at x_t, of which the masked coordinates count.

  Raises:
    ValueError: a process without masks, a batch without 'x' or of another shape or kind of number.

  >>> from diffusion import denoisers, losses, processes
  >>> objective = losses.masked_cross_entropy(processes.masked(2, (1,)))
  >>> even = denoisers.from_functions(logits=lambda params, x, t, cond: jnp.zeros((*x.shape, 2)))
  >>> draw = losses.Draw(t=jnp.full(1, 0.5), x0=jnp.array([[1]]), noise=jnp.zeros((1, 1)))
  >>> objective({"model": even}, draw).interior.round(3).tolist()                  # log(2) / 0.5
  [1.386...]
  """
  name = "masked_cross_entropy"
  check_masks(process, name)

  def evaluate(roles, placed, params, state, clock):
    prediction = roles["model"](placed.x_t, placed.t, placed.cond, views=("logits",), key=placed.key)
    hidden = placed.x_t == process.mask
    nats = sum_rows(jnp.where(hidden, -log_p_of(prediction.logits, placed.x0), 0.0))
    keep = process.clock(placed.t)
    # Where nothing is noised no coordinate is masked, and the weight is nothing's.
    weight = -keep.d_alpha / jnp.where(keep.noised > 0, keep.noised, 1.0)
    masks = sum_rows(hidden.astype(nats.dtype))
    return terms(
      weight.astype(nats.dtype) * nats,
      metrics={"nats_per_mask": nats / jnp.maximum(masks, 1.0)},
      collections=of_model(prediction.collections),
    )

  return Objective(
    name=name,
    draw=drawn_values(process, name),
    evaluate=evaluate,
    process=process,
    needs={"model": {"logits": name}},
  )
