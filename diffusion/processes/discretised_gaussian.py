"""Noise for ordered whole numbers.

A Gaussian seen at the whole numbers, around a circle or between two ends.
"""

import functools
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from diffusion.processes.base import Number, array_namespace, as_times
from diffusion.processes.contract import Rate
from diffusion.processes.discrete import coordinates, each_value
from diffusion.processes.neighbourhoods import as_sizes
from diffusion.processes.own_sizes import OwnSizes
from diffusion.processes.resample import check_interval


@struct.dataclass
class Width:
  """The width of the noise at some times, in steps: each field is shaped like t.

  Attributes:
    sigma: the width.
    d_sigma: its time derivative.
  """

  sigma: Any
  d_sigma: Any


@struct.dataclass
class DiscretisedGaussian(OwnSizes):
  """Discretised Gaussian noise of whole numbers; see `discretised_gaussian`.

  log_low, log_range: of sigma, in steps. images: turns of the circle that are summed, 0 for none.
  """

  t_min: Number
  t_max: Number
  log_low: Number
  log_range: Number
  images: int = struct.field(pytree_node=False)
  sizes: tuple[int, ...] = struct.field(pytree_node=False)
  shape: tuple[int, ...] = struct.field(pytree_node=False)
  name: str = struct.field(pytree_node=False, default="discretised_gaussian")

  markov: ClassVar[bool] = False
  jumps: ClassVar[bool] = False
  follows: ClassVar[dict[str, tuple[str, ...]]] = {
    "logits": ("logits", "probabilities", "ratios"),
    "probabilities": ("logits", "probabilities", "ratios"),
    "ratios": ("ratios",),
    "concrete_score": ("concrete_score",),
  }

  def transition(self, s: Any, t: Any, size: int | None = None) -> Any:
    """q(x_t = j | x_0 = i) of one coordinate: [..., K, K], rows i sum to one.

    Args:
      s: None: from the data, for there is noise at t = 0 and x_t is no Markov chain in t.
      t: [...] times.
      size: number of values of the coordinate, K for None; values beyond it stay.

    Raises ValueError for an s.
    """
    if s is not None:
      self._check_markov("transition from an earlier x_s: transition(None, t) is from the data")
    t, size = as_times(t), self.num_values if size is None else size
    xp = array_namespace(t)
    value = np.arange(self.num_values).reshape((1,) * np.ndim(t) + (-1,))
    distance = xp.asarray(value[..., None, :] - value[..., :, None])
    exists = xp.asarray((value[..., None, :] < size) & (value[..., :, None] < size))
    weight = xp.where(exists, xp.exp(self._log_weight(distance, size, t[..., None, None])), 0.0)
    total = xp.where(exists, xp.sum(weight, axis=-1, keepdims=True), 1.0)
    stays = (distance == 0).astype(weight.dtype)
    return xp.where(exists, weight / total, stays)

  def generator(self, t: Any, size: int | None = None) -> Any:
    """Raises ValueError: there are no jump rates."""
    del t, size
    return self._check_markov("jump rates")

  def clock(self, t: Any) -> Width:
    """The width of the noise in steps, geometric in t, and its time derivative, each shaped like t."""
    t = as_times(t)
    sigma = array_namespace(t).exp(self.log_low + self.log_range * t)
    return Width(sigma, self.log_range * sigma)

  def rates(self, t: Any) -> dict[str, Rate]:
    """sigma with its time derivative."""
    width = self.clock(t)
    return {"sigma": Rate(width.sigma, width.d_sigma)}

  def level(self, t: Any) -> Any:
    """The width sigma of the noise in steps, increasing in t."""
    return self.clock(t).sigma

  def t_of_level(self, level: Any) -> Any:
    """The time at which sigma has this value."""
    level = as_times(level)
    return (array_namespace(level).log(level) - self.log_low) / self.log_range

  def noise(self, keys: jax.Array, x0: jax.Array) -> jax.Array:
    """Uniform numbers in [0, 1) like x0: [B, ...], row i from keys[i] alone."""
    return jax.vmap(lambda key: jax.random.uniform(key, x0.shape[1:]))(keys)

  def corrupt(self, x0: jax.Array, noise: jax.Array, t: jax.Array, x1: None = None) -> jax.Array:
    """x_t [B, ...] int given x_0 and the noise; t [B]."""
    del x1
    sizes = jnp.asarray(self.sizes, x0.dtype)
    flat = x0.reshape(x0.shape[0], len(self.sizes))
    values = jnp.arange(max(self.sizes), dtype=x0.dtype)
    logits = self._log_weight(
      values[None, None, :] - flat[:, :, None], sizes[None, :, None], t[:, None, None]
    )
    logits = jnp.where(values[None, None, :] < sizes[None, :, None], logits, -jnp.inf)
    # By the inverse of the distribution function, which takes one random number a coordinate.
    below = jnp.cumsum(jnp.exp(logits - jnp.max(logits, axis=2, keepdims=True)), axis=2)
    uniform = noise.reshape(flat.shape).astype(below.dtype)
    drawn = jnp.sum(below <= (uniform * below[:, :, -1])[:, :, None], axis=2, dtype=x0.dtype)
    return jnp.minimum(drawn, sizes[None] - 1).reshape(x0.shape)

  def ratio(self, x0: jax.Array, old: jax.Array, new: jax.Array, size: Any, t: jax.Array) -> jax.Array:
    """The kernel's ratio q(new | x_0) / q(old | x_0) of coordinates [B, N].

    Each coordinate has `size` values; t is [B]. The normaliser falls out.
    """
    size = jnp.asarray(size, x0.dtype)[None, :]
    log_weight = lambda value: self._log_weight(value - x0, size, t[:, None])
    return jnp.exp(log_weight(new) - log_weight(old))

  def balance(self, t: jax.Array) -> jax.Array:
    """sigma^2 [B]: concrete scores of adjacent values are of order 1/sigma, as scores are."""
    return self.clock(t).sigma ** 2

  def posterior_ratios(self, probabilities: jax.Array, x_t: jax.Array, t: jax.Array) -> jax.Array:
    """p_t(x_t with the coordinate set to k) / p_t(x_t) [B, ..., K] from p(x_0 = j | x_t) [B, ..., K]; t [B].

    The mean over x_0 of q(k | x_0) / q(x_t | x_0): it takes K^2 numbers a coordinate.
    """
    values = each_value(self, x_t)
    sizes = jnp.asarray(np.reshape(self.sizes, self.shape), x_t.dtype)[None, ..., None]
    t = coordinates(t, x_t)
    to_here = self._log_weight(x_t[..., None] - values, sizes, t)  # [B, ..., j]
    to_each = self._log_weight(
      values[..., :, None] - values[..., None, :], sizes[..., None], t[..., None]
    )  # [B, ..., k, j]
    ratio = jnp.exp(to_each - to_here[..., None, :]).astype(probabilities.dtype)
    return jnp.where(self.exists, jnp.sum(ratio * probabilities[..., None, :], axis=-1), 0.0)

  def _log_weight(self, distance, size, t):
    """log of the sum over turns of exp(-d^2 / 2 sigma^2), in the shape of `distance`."""
    precision = self.clock(t).sigma ** -2
    place = lambda turn: -0.5 * precision * ((distance + turn * size).astype(precision.dtype)) ** 2
    turns = [place(turn) for turn in range(-self.images, self.images + 1)]
    return turns[0] if len(turns) == 1 else functools.reduce(array_namespace(precision).logaddexp, turns)


def discretised_gaussian(
  sizes: Any,
  shape: tuple[int, ...] | None = None,
  *,
  sigma_min: float = 0.5,
  sigma_max: float | None = None,
  wrap: bool = True,
  t_min: float = 0.0,
  t_max: float = 1.0,
) -> DiscretisedGaussian:
  """Discretised Gaussian noise: q(x_t | x_0) proportional to exp(-(x_t - x_0)^2 / 2 sigma^2).

  The law is that of each coordinate (arXiv:2107.03006, appendix A.2.3).

  Its ratios of adjacent values are of order 1/sigma, without the heavy tails of resampling: the noise to take
  where values have an order, as annealing does for images.

  Args:
    sizes: number of values of each coordinate, or one number for all; shape: of a state, that of `sizes` by
      default.
    sigma_min, sigma_max: the width at t = 0 and at t = 1, in steps; by default up to 0.6 of the largest size
      around a circle, where noise is uniform within two parts in a thousand, and to twice that size on a
      line.
    wrap: whether the values lie around a circle, or on a line with two ends.

  Raises ValueError for sizes below two, widths that are not positive and increasing, or times outside of [0,
  1].

  >>> process = discretised_gaussian(16)
  >>> three, four = jnp.array([[3]]), jnp.array([[4]])
  >>> ratio = process.ratio(three, three, four, np.array([16]), jnp.zeros(1))
  >>> round(float(ratio[0, 0]), 4)  # exp(-1 / (2 * 0.25))
  0.1353
  """
  sizes = as_sizes(sizes, "discretised_gaussian", shape)
  check_interval(t_min, t_max, "discretised_gaussian")
  sigma_max = (0.6 if wrap else 2.0) * float(sizes.max()) if sigma_max is None else sigma_max
  if not 0 < sigma_min < sigma_max:
    raise ValueError(
      f"discretised_gaussian widens from sigma_min > 0 to a larger sigma_max, in steps, got {sigma_min} and "
      f"{sigma_max}"
    )
  images = int(np.ceil(4.5 * sigma_max / sizes.min())) if wrap else 0
  return DiscretisedGaussian(
    t_min,
    t_max,
    float(np.log(sigma_min)),
    float(np.log(sigma_max / sigma_min)),
    images,
    tuple(sizes.reshape(-1).tolist()),
    tuple(sizes.shape),
  )
