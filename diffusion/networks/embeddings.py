"""Embeddings of the noise level, of class labels and of condition vectors."""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from diffusion.math.precision import at_least_single
from diffusion.networks.layers import fan_average


def positional(t: jax.Array, size: int, max_period: float = 10000.0) -> jax.Array:
  """Sines and cosines of t at geometric frequencies from 1 to 1 / max_period (arXiv 1706.03762, 2006.11239).

  Args:
    t: any real numbers, [B]; DDPM's own range is 0 to 999.
    size: number of features, at least 4; an odd size ends in a zero.

  Returns:
    [B, size] in the dtype of t.

  >>> positional(jnp.zeros(1), 4).tolist()
  [[0.0, 0.0, 1.0, 1.0]]
  """
  half = size // 2
  if half < 2:
    raise ValueError(f"A positional embedding needs at least 4 features, got {size}.")
  frequencies = jnp.exp(jnp.arange(half, dtype=t.dtype) * (-math.log(max_period) / (half - 1)))
  angle = t[:, None] * frequencies[None, :]
  return jnp.pad(jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1), ((0, 0), (0, size % 2)))


def guidance_features(weight: jax.Array, size: int) -> jax.Array:
  """Features of a guidance weight, which are zero at w = 0.

  They are sin(f w) and 1 - cos(f w) at frequencies f from 2 down to 1/16, smooth over the weights in use.

  Args:
    weight: w of classifier-free guidance, [B].
    size: number of features, even and at least 4.

  Returns:
    [B, size] in the dtype of the weight.

  >>> guidance_features(jnp.array([0.0, jnp.pi / 4]), 4).round(3).tolist()[0]
  [0.0, 0.0, 0.0, 0.0]
  """
  half = size // 2
  if half < 2 or size % 2:
    raise ValueError(
      f"The embedding of a guidance weight needs an even number of features, at least 4, got {size}."
    )
  frequencies = 2.0 * jnp.exp(jnp.arange(half, dtype=weight.dtype) * (-math.log(32.0) / (half - 1)))
  angle = weight[:, None] * frequencies[None, :]
  return jnp.concatenate([jnp.sin(angle), 1.0 - jnp.cos(angle)], axis=-1)


class Fourier(nn.Module):
  """Random Fourier features of time (arXiv 2006.10739).

  They are sines and cosines at random frequencies 2 pi scale N(0, 1), drawn once and never trained.

  t [B] (Score SDE hands log sigma) -> [B, 2 size]. The frequencies are a parameter, so that a checkpoint
  holds them, behind a stop_gradient: an optimiser with weight decay must leave them out.
  """

  size: int
  scale: float = 16.0
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, t: jax.Array) -> jax.Array:
    frequencies = self.param(
      "frequencies", nn.initializers.normal(self.scale), (self.size,), self.param_dtype
    )
    angle = t[:, None] * jax.lax.stop_gradient(frequencies).astype(t.dtype)[None, :] * (2 * math.pi)
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)


class Condition(nn.Module):
  """Class labels and condition vectors as one vector to be added to the time embedding.

  `cond` is None or a dict: 'label' int [B], where -1 (no label) gives the zero vector, 'vector' float [B,
  vector_size], where zeros do, and 'guidance' float [B], the weight of a distilled guidance
  (arXiv:2210.03142), where 0 does. What is absent counts as zero, so that the parameters do not depend on
  which conditions a call brings. The layer of the guidance starts at zero: a network with it is, at first,
  the one without. Returns [B, features], or None if the network takes no condition.

  Raises ValueError for a condition the network was not built for or one of the wrong shape.
  """

  features: int
  num_classes: int = 0
  vector_size: int = 0
  guidance_size: int = 0
  dtype: Any = jnp.float32
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, cond: Mapping[str, jax.Array] | None, batch: int) -> jax.Array | None:
    cond = dict(cond or {})
    label, vector, guidance = cond.pop("label", None), cond.pop("vector", None), cond.pop("guidance", None)
    if cond:
      raise ValueError(
        "The built-in networks take the conditions 'label', 'vector' and 'guidance', got also "
        f"{sorted(cond)}."
      )
    inputs = []
    if label is not None or (self.num_classes and self.is_initializing()):
      inputs.append(("label", self._one_hot(label, batch), nn.initializers.normal(1.0)))
    if vector is not None or (self.vector_size and self.is_initializing()):
      inputs.append(("vector", self._vector(vector, batch), nn.initializers.lecun_normal()))
    if guidance is not None or (self.guidance_size and self.is_initializing()):
      inputs.append(("guidance", self._weight(guidance, batch), nn.initializers.zeros))
    if not inputs and not (self.num_classes or self.vector_size or self.guidance_size):
      return None
    total = jnp.zeros((batch, self.features), self.dtype)
    for name, value, init in inputs:  # no bias: the zero vector must stay the zero vector
      dense = nn.Dense(
        self.features,
        use_bias=False,
        kernel_init=init,
        dtype=self.dtype,
        param_dtype=self.param_dtype,
        name=name,
      )
      total = total + dense(value)
    return total

  def _one_hot(self, label, batch):
    if not self.num_classes:
      raise ValueError(
        "Got a 'label' for a network without classes: build it with num_classes, or leave the label out."
      )
    label = jnp.full((batch,), -1, jnp.int32) if label is None else jnp.asarray(label)
    if label.shape != (batch,) or not jnp.issubdtype(label.dtype, jnp.integer):
      raise ValueError(
        f"'label' must be integers of shape ({batch},), got {label.dtype} of shape {label.shape}."
      )
    return jax.nn.one_hot(label, self.num_classes, dtype=self.dtype)

  def _vector(self, vector, batch):
    if not self.vector_size:
      raise ValueError(
        "Got a 'vector' for a network without one: build it with vector_size, or leave the vector out."
      )
    vector = jnp.zeros((batch, self.vector_size), self.dtype) if vector is None else jnp.asarray(vector)
    if vector.shape != (batch, self.vector_size):
      raise ValueError(f"'vector' must have shape ({batch}, {self.vector_size}), got {vector.shape}.")
    return vector.astype(self.dtype)

  def _weight(self, weight, batch):
    if not self.guidance_size:
      raise ValueError(
        "Got a 'guidance' for a network that was not built for one: build it with guidance_size (64, say), "
        "or "
        "leave the weight out."
      )
    weight = jnp.zeros((batch,), self.dtype) if weight is None else jnp.asarray(weight)
    if weight.shape != (batch,) or not jnp.issubdtype(weight.dtype, jnp.floating):
      raise ValueError(
        f"'guidance' must be real numbers of shape ({batch},), got {weight.dtype} of shape {weight.shape}."
      )
    return guidance_features(weight.astype(self.dtype), self.guidance_size)


class NoiseEmbedding(nn.Module):
  """Time (any real number) and condition -> [B, features], computed in float32 throughout.

  Features of t, dense, plus the condition, swish, dense: the two dense layers of Score SDE (arXiv
  2011.13456), with the condition added before the non-linearity so that it meets the time there.
  """

  features: int
  size: int
  kind: str = "positional"
  fourier_scale: float = 16.0
  num_classes: int = 0
  vector_size: int = 0
  guidance_size: int = 0
  dtype: Any = jnp.float32
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, t: jax.Array, cond: Mapping[str, jax.Array] | None) -> jax.Array:
    precision: dict[str, Any] = dict(dtype=at_least_single(self.dtype), param_dtype=self.param_dtype)
    t = t.astype(at_least_single(self.dtype))
    if self.kind == "positional":
      h = positional(t, self.size)
    elif self.kind == "fourier":
      h = Fourier(self.size, self.fourier_scale, self.param_dtype, name="fourier")(t)
    else:
      raise ValueError(f"embedding must be 'positional' or 'fourier', got {self.kind!r}.")
    h = nn.Dense(self.features, kernel_init=fan_average(), name="dense_0", **precision)(h)
    condition = Condition(
      self.features, self.num_classes, self.vector_size, self.guidance_size, name="condition", **precision
    )(cond, t.shape[0])
    if condition is not None:
      h = h + condition
    return nn.Dense(self.features, kernel_init=fan_average(), name="dense_1", **precision)(nn.swish(h))
