"""The plain layers every network here is made of, and where its activations lie on many devices.

The layers: precision rules, initialisers, normalisation.

Networks know of no devices. They hand the output of each block through `placed`, which is the identity unless
it is called inside `placing`; the training step calls it with the rule of `sharding.activations`.
"""

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from diffusion.math.precision import at_least_single


def fan_average(scale: float = 1.0) -> nn.initializers.Initializer:
  """Uniform variance scaling of DDPM (arXiv 2006.11239); scale 0 stands for 1e-10, an almost zero layer."""
  return nn.initializers.variance_scaling(scale or 1e-10, "fan_avg", "uniform")


def num_groups(channels: int) -> int:
  """Groups of a group norm: min(C // 4, 32) as in Score SDE, or the next smaller number that divides C.

  >>> num_groups(128), num_groups(48), num_groups(3), num_groups(10)
  (32, 12, 1, 2)
  """
  groups = max(min(channels // 4, 32), 1)
  while channels % groups:
    groups -= 1
  return groups


class GroupNorm(nn.Module):
  """Normalises groups of channels over space; statistics in float32 whatever `dtype` is.

  x [B, ..., C] -> [B, ..., C] in `dtype`. (Flax's own layer mixes dtypes, which strict promotion forbids.)
  """

  dtype: Any = jnp.float32
  param_dtype: Any = jnp.float32
  epsilon: float = 1e-6

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    channels = x.shape[-1]
    groups = num_groups(channels)
    scale = self.param("scale", nn.initializers.ones, (channels,), self.param_dtype)
    bias = self.param("bias", nn.initializers.zeros, (channels,), self.param_dtype)
    h = x.astype(at_least_single(self.dtype)).reshape(x.shape[0], -1, groups, channels // groups)
    mean = h.mean(axis=(1, 3), keepdims=True)
    h = h - mean
    h = h * jax.lax.rsqrt(jnp.square(h).mean(axis=(1, 3), keepdims=True) + self.epsilon)
    per_channel = (1,) * (x.ndim - 1) + (channels,)
    h = h.reshape(x.shape) * scale.astype(h.dtype).reshape(per_channel) + bias.astype(h.dtype).reshape(
      per_channel
    )
    return h.astype(self.dtype)


def layer_norm(x: jax.Array, dtype: Any = jnp.float32, epsilon: float = 1e-6) -> jax.Array:
  """Normalises the last axis without learned scale or shift; statistics in float32; result in `dtype`."""
  h = x.astype(at_least_single(dtype))
  h = h - h.mean(axis=-1, keepdims=True)
  h = h * jax.lax.rsqrt(jnp.square(h).mean(axis=-1, keepdims=True) + epsilon)
  return h.astype(dtype)


def check_inputs(x: jax.Array, t: jax.Array, ranks: tuple[int, ...], name: str) -> None:
  """Raises ValueError unless x has one of the ranks and t is [B], before anything is traced further."""
  if x.ndim not in ranks:
    allowed = " or ".join(str(rank) for rank in ranks)
    raise ValueError(f"{name} takes x with {allowed} axes (batch first, channels last), got shape {x.shape}.")
  if t.shape != x.shape[:1]:
    raise ValueError(
      f"{name} takes one time per example: t of shape {x.shape[:1]} for x of shape {x.shape}, got {t.shape}. "
      "Use jnp.full for a common time."
    )


_rule: contextvars.ContextVar[Callable[[jax.Array], jax.Array] | None] = contextvars.ContextVar(
  "placing", default=None
)


def placed(h: jax.Array) -> jax.Array:
  """h [B, ..., C], laid out by the rule in force.

  >>> placed(3.0)
  3.0
  """
  rule = _rule.get()
  return h if rule is None else rule(h)


@contextlib.contextmanager
def placing(rule: Callable[[jax.Array], jax.Array]) -> Iterator[None]:
  """A context in which a network that is traced lays its activations out by `rule`.

  >>> with placing(lambda h: -h):
  ...   placed(3.0)
  -3.0
  """
  token = _rule.set(rule)
  try:
    yield
  finally:
    _rule.reset(token)
