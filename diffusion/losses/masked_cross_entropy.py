"""The cross-entropy of masked coordinates, whose integral over time bounds the negative log-likelihood."""

from typing import Any

import jax
import jax.numpy as jnp

from diffusion.losses.base import Draw, Objective, example_keys, split_keys, terms
from diffusion.math.precision import at_least_single, sum_rows


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
  if process is None or process.ends[1] != "mask":
    raise ValueError(
      f"{name} needs a process that ends in masks, such as processes.masked(16, (64,)), got "
      f"{type(process).__name__}"
    )

  def draw(key, batch, t, state):
    del state
    if not isinstance(batch, dict) or "x" not in batch:
      raise ValueError(
        f"{name} takes a batch that is a dict with 'x' [B, ...], got "
        f"{sorted(batch) if isinstance(batch, dict) else type(batch).__name__}"
      )
    x0 = batch["x"]
    if x0.shape[1:] != process.shape or not jnp.issubdtype(x0.dtype, jnp.integer):
      raise ValueError(
        f"{name} takes whole numbers of shape [B, {', '.join(map(str, process.shape))}], got {x0.dtype} of "
        f"shape {x0.shape}"
      )
    network_key, key = jax.random.split(key)
    noise_keys, keys = split_keys(example_keys(key, batch), 2)
    noise = process.noise(noise_keys, x0)
    return Draw(t=t, x0=x0, noise=noise, cond=batch.get("cond"), keys=keys, key=network_key)

  def evaluate(roles, placed, params, state, clock):
    prediction = roles["model"](placed.x_t, placed.t, placed.cond, views=("logits",), key=placed.key)
    logits = prediction.logits.astype(at_least_single(prediction.logits.dtype))
    log_p = jax.nn.log_softmax(logits, axis=-1)
    of_truth = jnp.take_along_axis(log_p, placed.x0[..., None], axis=-1)[..., 0]
    hidden = placed.x_t == process.mask
    nats = sum_rows(jnp.where(hidden, -of_truth, 0.0))
    keep = process.clock(placed.t)
    # Where nothing is noised no coordinate is masked, and the weight is nothing's.
    weight = -keep.d_alpha / jnp.where(keep.noised > 0, keep.noised, 1.0)
    masks = sum_rows(hidden.astype(nats.dtype))
    collections = None if prediction.collections is None else {"model": prediction.collections}
    return terms(
      weight.astype(nats.dtype) * nats,
      metrics={"nats_per_mask": nats / jnp.maximum(masks, 1.0)},
      collections=collections,
    )

  return Objective(
    name=name, draw=draw, evaluate=evaluate, process=process, needs={"model": {"logits": name}}
  )
