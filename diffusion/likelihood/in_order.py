"""The exact log-likelihood of a masked model that fills its masks in a given order, one at a time."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffusion.math.precision import at_least_single
from diffusion.processes.values import check_values


def log_prob_in_order(
  denoiser: Any, x: jax.Array, *, order: np.ndarray | None = None, cond: Any = None
) -> jax.Array:
  """log p(x) in nats of a masked model that fills in one coordinate after the other: [B].

  log p(x) = sum over i of log p(x_o(i) | x_o(1), ..., x_o(i - 1), all else masked): no bound, for these
  probabilities sum to one over all states. Each order is a model of its own, and all agree at the exact
  denoiser; the mean of log p over orders is `masked_elbo` (arXiv:2110.02037, section 2). It costs one
  evaluation for each coordinate. A model that is told the time is told that at which the probability of a
  mask is the fraction of coordinates that are masked.

  Args:
    denoiser: answers 'logits' on a process with masks, such as `processes.masked`.
    x: [B, ...] whole numbers below K, none of them masked.
    order: a permutation of the D coordinates, flattened row by row; from first to last (left to right) by
      default.
    cond: None, or a dict of arrays with leading axis B.

  Raises:
    ValueError: a process without masks, an x that is not of its values, an order that is no permutation.

  >>> from diffusion import likelihood, oracles, processes
  >>> pair = oracles.masked_categorical(processes.masked(2, (2,)), np.array([[0.4, 0.1], [0.1, 0.4]]))
  >>> nats = likelihood.log_prob_in_order(pair, jnp.array([[0, 0], [0, 1]]), order=np.array([1, 0]))
  >>> jnp.exp(nats).round(3).tolist()
  [0.4..., 0.1...]
  """
  process = denoiser.process
  if process.ends[1] != "mask":
    raise ValueError(
      f"log_prob_in_order reads a model that fills in masks, and '{process.name}' ends in "
      f"'{process.ends[1]}': it needs a process such as processes.masked(16, (64,))"
    )
  check_values(process, x)
  size = math.prod(x.shape[1:])
  order = np.arange(size) if order is None else np.asarray(order)
  if order.shape != (size,) or not np.array_equal(np.sort(order), np.arange(size)):
    raise ValueError(
      f"an order is a permutation of the {size} coordinates, such as np.arange({size}), got {order.tolist()}"
    )
  return _log_prob(denoiser, x, cond, jnp.asarray(order, jnp.int32))


@functools.partial(jax.jit)
def _log_prob(denoiser, x, cond, order):
  process, size = denoiser.process, order.shape[0]
  rank = jnp.argsort(order).reshape(x.shape[1:])[None]
  fraction = (size - jnp.arange(size, dtype=jnp.float32)) / size
  times = jnp.clip(process.t_of_level(fraction), process.t_min, process.t_max).astype(jnp.float32)

  def one(total, step):
    i, place, t = step
    x_t = jnp.where(rank < i, x, jnp.asarray(process.mask, x.dtype))
    logits = denoiser(x_t, jnp.broadcast_to(t, x.shape[:1]), cond, views=("logits",)).logits
    logits = logits.reshape(x.shape[0], size, -1)[:, place]
    log_p = jax.nn.log_softmax(logits.astype(at_least_single(logits.dtype)), axis=-1)
    value = x.reshape(x.shape[0], size)[:, place]
    return total + jnp.take_along_axis(log_p, value[:, None], axis=-1)[:, 0].astype(total.dtype), None

  start = jnp.zeros(x.shape[0], jnp.result_type(float))
  return jax.lax.scan(one, start, (jnp.arange(size), order, times))[0]
