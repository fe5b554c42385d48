"""Masking whose schedule is learned, an exponent for each value (arXiv:2406.04329, section 6)."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffusion import denoisers
from diffusion.losses.base import Objective, placed_at, split_keys, terms
from diffusion.losses.whole_numbers import check_masks, drawn_values, of_model
from diffusion.math.precision import at_least_single, sum_rows


def value_exponents(exponents: float | Sequence[float] | np.ndarray, num_values: int) -> Any:
  """The role 'schedule' of `generalised_masked_cross_entropy`: an exponent for each value.

  Its parameter is log w [K], so that exponents stay positive.

  Args:
    exponents: w to start from, one number or K. 1 is the schedule of the process itself.
    num_values: K.

  Raises ValueError for exponents that are not positive, or not K of them.

  >>> schedule = value_exponents([1.0, 2.0], 2)
  >>> x, t = jnp.zeros((1, 3), int), jnp.full(1, 0.5)
  >>> schedule(x, t, views=("exponents",)).exponents.round(3).tolist()
  [[1.0, 2.0]]
  """
  w = np.asarray(exponents, np.float64)
  if w.shape not in ((), (num_values,)) or not np.all(w > 0):
    raise ValueError(f"exponents are positive, one number or {num_values}, got {w.tolist()}")
  start = np.log(np.broadcast_to(w, (num_values,))).astype(jnp.result_type(float))
  return denoisers.from_functions({"log_exponents": start}, exponents=_exponents)


def _exponents(params, x, t, cond):
  w = jnp.exp(params["log_exponents"])
  return jnp.broadcast_to(w[None], (x.shape[0], w.shape[0]))


def generalised_masked_cross_entropy(process: Any) -> Objective:
  """The masked bound under 1 - alpha_k(t) = (1 - alpha(t))^w_k, an exponent w_k for each value k.

  A coordinate of value k is masked with that probability, so that values of small w_k are masked first and
  filled in last. With the rates l_k = -alpha_k' / (1 - alpha_k) = w_k (-alpha' / (1 - alpha)) and the model's
  p_k = p(x_0 = k | x_t), each masked coordinate costs

      sum_k l_k p_k - l_x0 - l_x0 log p_x0     nats

  (arXiv:2406.04329, section 6), whose integral over t is an upper bound of -log p(x_0) and, at the exact
  posterior, the entropy of the data, whatever the exponents. With all w_k = 1 it is `masked_cross_entropy`.
  The exact posterior depends on t where exponents differ: give the model the time.

  x_t depends on the exponents. Two draws of it for each example give the gradient without bias, by REINFORCE
  with the other draw as baseline (there, appendix on REINFORCE leave-one-out): to the mean of both values is
  added a term of value zero whose gradient is (f_1 - f_2) (d log q(x_1) - d log q(x_2)) / 2. Each example
  costs two evaluations of the model.

  Args:
    process: from `processes.masked`; its own schedule is that of w_k = 1.

  Roles: 'model' answers 'logits' [B, ..., K]; 'schedule' answers 'exponents' [B, K], all positive, such as
  `value_exponents`. The schedule learns where it is trainable: `losses.roles(model=..., schedule=...,
  trainable=("model", "schedule"))`.

  batch: a dict with 'x' [B, ...] int below K and, if conditional, 'cond'.

  Raises ValueError for a process without masks, or a batch without 'x' or of values that the process has not.

  >>> from diffusion import losses, processes
  >>> objective = losses.generalised_masked_cross_entropy(processes.masked(3, (4,)))
  >>> sorted(objective.needs)
  ['model', 'schedule']
  """
  name = "generalised_masked_cross_entropy"
  check_masks(process, name)
  inner = drawn_values(process, name)

  def draw(key, batch, t, state):
    drawn = inner(key, batch, t, state)
    other, keys = split_keys(drawn.keys, 2)
    return drawn.replace(keys=keys, targets={"noise": process.noise(other, drawn.x0)})

  def place(roles, draw):
    log_masked = log_mask_probability(process, roles["schedule"], draw)
    hidden = lambda noise: noise < jnp.exp(log_masked).astype(noise.dtype)
    mask = jnp.asarray(process.mask, draw.x0.dtype)
    first, second = (jnp.where(hidden(noise), mask, draw.x0) for noise in (draw.noise, draw.targets["noise"]))
    return placed_at(draw.replace(targets={"second": second}), first)

  def evaluate(roles, placed, params, state, clock):
    twice = lambda leaf: jnp.concatenate([leaf, leaf])
    x_t = jnp.concatenate([placed.x_t, placed.targets["second"]])
    t, x0, cond = jax.tree.map(twice, (placed.t, placed.x0, placed.cond))
    prediction = roles["model"](x_t, t, cond, views=("logits",), key=placed.key)
    log_p = jax.nn.log_softmax(prediction.logits.astype(at_least_single(prediction.logits.dtype)), axis=-1)
    w = twice(_ask(roles["schedule"], placed)).astype(log_p.dtype)
    w = w.reshape(w.shape[0], *[1] * (x0.ndim - 1), -1)
    keep = process.clock(t)
    rate = (-keep.d_alpha / jnp.where(keep.noised > 0, keep.noised, 1.0)).astype(log_p.dtype)
    index = x0[..., None]
    own, log_own = (
      jnp.take_along_axis(jnp.broadcast_to(a, log_p.shape), index, -1)[..., 0] for a in (w, log_p)
    )
    hidden = x_t == process.mask
    nats = jnp.sum(w * jnp.exp(log_p), axis=-1) - own - own * log_own
    value = rate * sum_rows(jnp.where(hidden, nats, 0.0))

    log_masked = twice(log_mask_probability(process, roles["schedule"], placed)).astype(log_p.dtype)
    seen = jnp.where(hidden, -1.0, log_masked)  # nothing is seen where the mask is certain
    log_q = sum_rows(jnp.where(hidden, log_masked, jnp.log(-jnp.expm1(seen))))
    half = placed.t.shape[0]
    apart = jax.lax.stop_gradient(value[:half] - value[half:])
    log_ratio = log_q[:half] - log_q[half:]
    surrogate = 0.5 * apart * (log_ratio - jax.lax.stop_gradient(log_ratio))
    return terms(
      0.5 * (value[:half] + value[half:]) + surrogate, collections=of_model(prediction.collections)
    )

  return Objective(
    name=name,
    draw=draw,
    place=place,
    evaluate=evaluate,
    process=process,
    needs={"model": {"logits": name}, "schedule": {"exponents": name}},
  )


def log_mask_probability(process: Any, schedule: Any, draw: Any) -> jax.Array:
  """log(1 - alpha_k(t)) = w_k log(1 - alpha(t)) of each coordinate's own value k: [B, ...]."""
  w = _ask(schedule, draw)
  own = jnp.take_along_axis(w, draw.x0.reshape(draw.x0.shape[0], -1), axis=1).reshape(draw.x0.shape)
  level = jnp.maximum(process.clock(draw.t).noised, jnp.finfo(draw.t.dtype).tiny)
  return own * jnp.log(level).astype(own.dtype).reshape(-1, *[1] * (draw.x0.ndim - 1))


def _ask(schedule, draw):
  return schedule(draw.x0, draw.t, draw.cond, views=("exponents",)).exponents
