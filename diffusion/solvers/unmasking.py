"""What solvers that take out masks share: draws, how sure a draw is, and which coordinates are next."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

# How sure the denoiser is of a coordinate, the surest first.
CONFIDENCES = ("drawn", "highest", "margin", "entropy", "random")


def check_masks(name: str, process: Any) -> None:
  """Raises ValueError unless the process ends in masks."""
  if process.ends[1] != "mask":
    raise ValueError(
      f"{name} takes out masks, and '{process.name}' ends in '{process.ends[1]}': it needs a process that "
      "ends in masks, such as processes.masked(16, (64,))"
    )


def check_grid(name: str, process: Any, grid: Any, dtype: Any) -> tuple[np.ndarray, np.ndarray]:
  """(times, the probability of the mask at them in float64) of a grid of a process with masks.

  Raises ValueError for a process without masks, times that do not decrease, or along which the probability
  of the mask does not fall from above 0.
  """
  check_masks(name, process)
  t = np.asarray(grid, dtype)
  if t.ndim not in (1, 2) or t.shape[-1] < 2 or not np.all(np.diff(t, axis=-1) < 0):
    raise ValueError(
      f"a grid is [N+1] or [B, N+1] times that strictly decrease, N at least 1, got {t.tolist()}"
    )
  noised = np.broadcast_to(np.asarray(process.level(t.astype(np.float64)), np.float64), t.shape)
  falls = np.all(np.diff(noised, axis=-1) <= 0) and np.all(noised >= 0) and np.all(noised <= 1)
  if not falls or not np.all(noised[..., :-1] > 0):
    raise ValueError(
      "the level of a process with masks is the probability that a coordinate is masked: along the grid it "
      f"falls from at most 1 and is above 0 before the last time, got {noised.tolist()}"
    )
  return t, noised


def check_shape(name: str, process: Any, x: jax.Array) -> None:
  """Raises ValueError unless x: [B, *process.shape]."""
  if x.shape[1:] != tuple(process.shape):
    raise ValueError(
      f"{name} was built for states of shape {tuple(process.shape)}, got {tuple(x.shape[1:])}: build it with "
      "the process of these states"
    )


def check_temperature(temperature: Any) -> None:
  """Raises ValueError for a temperature below 0; nothing is known of one that is traced."""
  if not isinstance(temperature, Tracer) and not np.all(np.asarray(temperature) >= 0):
    raise ValueError(f"a temperature is at least 0 (0 takes the most probable value), got {temperature}")


def is_masked(x: jax.Array, mask: Any) -> jax.Array:
  """Which coordinates are masked, one after another: [B, D] bool of x: [B, ...]."""
  return x.reshape(x.shape[0], -1) == jnp.asarray(mask, x.dtype)


def without_mask(logits: jax.Array, mask: Any) -> jax.Array:
  """log p(x_0 = k | x_t), normalised, in float32: [..., K] of logits [..., K].

  Where the mask is one of the categories, it is not one of the data's.
  """
  logits = logits.astype(jnp.float32)
  values = jnp.arange(logits.shape[-1]).reshape((1,) * (logits.ndim - 1) + (-1,))
  return jax.nn.log_softmax(jnp.where(values == jnp.asarray(mask, values.dtype), -jnp.inf, logits), axis=-1)


def log_values(logits: jax.Array, mask: Any) -> jax.Array:
  """`without_mask` of coordinates one after another: [B, D, K] of logits [B, ..., K]."""
  return without_mask(logits.reshape(logits.shape[0], -1, logits.shape[-1]), mask)


def draw(keys: jax.Array, log_p: jax.Array, temperature: Any = 1.0) -> jax.Array:
  """Draws of p^(1/temperature), normalised: [B, ...] int32 of log_p: [B, ..., K], row b from keys[b] alone.

  The Gumbel noise has float32's full range (arXiv:2409.02908, section 4). Temperature 0 is the most probable.

  >>> log_p = jnp.log(jnp.array([[0.2, 0.8]]))
  >>> draw(jax.random.split(jax.random.key(0), 1), log_p, 0.0).tolist()
  [1]
  """
  noise = jax.vmap(lambda key: jax.random.gumbel(key, log_p.shape[1:], jnp.float32, mode="high"))(keys)
  return jnp.argmax(log_p + jnp.asarray(temperature, jnp.float32) * noise, axis=-1).astype(jnp.int32)


def of_value(log_p: jax.Array, value: jax.Array) -> jax.Array:
  """log p of one value of each coordinate: [B, D] of [B, D, K] and [B, D]."""
  return jnp.take_along_axis(log_p, value.astype(jnp.int32)[..., None], axis=-1)[..., 0]


def entropy(log_p: jax.Array) -> jax.Array:
  """Of each coordinate, in nats: [...] of normalised log_p: [..., K].

  >>> round(float(entropy(jnp.log(jnp.array([0.5, 0.5, 0.0])))), 4)
  0.6931
  """
  return -jnp.sum(jnp.where(jnp.isneginf(log_p), 0.0, jnp.exp(log_p) * log_p), axis=-1)


def confidence(rule: str, log_p: jax.Array, drawn: jax.Array, keys: jax.Array) -> jax.Array:
  """How sure the denoiser is of each coordinate, larger for surer: [B, D].

  'drawn' is log p of the value that was drawn; 'highest' log p of the most probable one; 'margin' the
  difference of the two largest probabilities; 'entropy' minus the entropy in nats; 'random' the log of a
  uniform number. All but the first know nothing of what was drawn.

  Args:
    rule: one of these.
    log_p: [B, D, K], normalised.
    drawn: [B, D].
    keys: [B], for 'random'.
  """
  if rule == "drawn":
    return of_value(log_p, drawn)
  if rule == "highest":
    return jnp.max(log_p, axis=-1)
  if rule == "margin":
    two = jax.lax.top_k(jnp.exp(log_p), 2)[0]
    return two[..., 0] - two[..., 1]
  if rule == "entropy":
    return -entropy(log_p)
  return -jax.vmap(lambda key: jax.random.exponential(key, log_p.shape[1:2], jnp.float32))(keys)


def check_confidence(rule: Any, allowed: tuple[str, ...] = CONFIDENCES) -> None:
  """Raises ValueError for a confidence that is none."""
  if rule not in allowed:
    raise ValueError(f"unknown confidence {rule!r}: choose one of {', '.join(allowed)}")


def first(score: jax.Array, among: jax.Array, count: jax.Array) -> jax.Array:
  """The `count` coordinates of the largest scores: [B, D] bool.

  Of equal scores the first coordinate is first.

  Args:
    score: [B, D].
    among: [B, D] bool, which may be chosen.
    count: [B]; all of them where there are fewer.

  >>> among = jnp.array([[True, True, False, True]])
  >>> first(jnp.array([[0.1, 0.3, 0.9, 0.2]]), among, jnp.array([2])).tolist()
  [[False, True, False, True]]
  """
  score = jnp.maximum(score, jnp.finfo(score.dtype).min)
  order = jnp.argsort(jnp.where(among, -score, jnp.inf), axis=-1)
  return (jnp.argsort(order, axis=-1) < count[:, None]) & among


def left(masks: jax.Array, share: jax.Array) -> jax.Array:
  """How many of `masks` [B] stay when a share stays, rounded down: [B] int32.

  Shares come from float32, so that one a thousandth short of a whole number of masks is that number.

  >>> left(jnp.array([5, 5, 7]), jnp.array([0.8, 0.79, 0.5])).tolist()
  [4, 3, 3]
  """
  return jnp.floor(masks.astype(jnp.float32) * share + 1e-3).astype(jnp.int32)


def time_of_masks(process: Any, x: jax.Array) -> jax.Array:
  """The time [B] at which the share of x [B, ...] that is masked is what it is on average, up to t_max.

  >>> from diffusion import processes
  >>> time_of_masks(processes.masked(2, (4,)), jnp.array([[2, 2, 2, 0], [2, 2, 2, 2]])).tolist()
  [0.75, 1.0]
  """
  most = level_at_start(process)
  share = jnp.mean(is_masked(x, process.mask).astype(jnp.float32), axis=1)
  return jnp.asarray(process.t_of_level(jnp.minimum(share, most)), jnp.float32)


def level_at_start(process: Any) -> jax.Array:
  """The probability of the mask at t_max: [] float32."""
  return jnp.asarray(process.level(jnp.asarray(process.t_max, jnp.float32)), jnp.float32)
