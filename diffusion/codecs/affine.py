"""Codecs that shift and scale: one that does nothing, one with given numbers, one that measures them."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from diffusion.math.precision import at_least_single


@struct.dataclass
class Identity:
  """Nothing is changed: see `identity`."""

  def shape_of(self, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The same shape."""
    return tuple(shape)

  def init(self) -> Any:
    """No parameters: {}."""
    return {}

  def measure(self, params: Any, x: jax.Array) -> Any:
    """The parameters as they are."""
    return params

  def encode(self, params: Any, x: jax.Array, key: jax.Array | None = None) -> jax.Array:
    """x itself."""
    return x

  def decode(self, params: Any, z: jax.Array) -> jax.Array:
    """z itself."""
    return z

  def log_det(self, params: Any, x: jax.Array) -> jax.Array:
    """0 for every example, [B]."""
    return jnp.zeros(x.shape[:1], at_least_single(x.dtype))

  def show(self, x: jax.Array) -> jax.Array:
    """x itself."""
    return x


@struct.dataclass
class Scale:
  """(x - mean) / std with given numbers: see `scale`.

  Attributes:
    mean, std: scalars, or arrays that broadcast to one example.
  """

  mean: Any
  std: Any

  def shape_of(self, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The same shape. Raises ValueError where mean or std do not broadcast to it."""
    for name, given in (("mean", self.mean), ("std", self.std)):
      own = jnp.shape(given)
      last = tuple(shape)[len(shape) - len(own) :]
      if len(own) > len(shape) or any(size not in (1, there) for size, there in zip(own, last)):
        raise ValueError(
          f"scale has {name} of shape {list(jnp.shape(given))}, which does not fit examples of shape "
          f"{list(shape)}: "
          "give a number, or one a channel"
        )
    return tuple(shape)

  def init(self) -> Any:
    """No parameters: {}."""
    return {}

  def measure(self, params: Any, x: jax.Array) -> Any:
    """The parameters as they are."""
    return params

  def encode(self, params: Any, x: jax.Array, key: jax.Array | None = None) -> jax.Array:
    """(x - mean) / std, [B, ...]."""
    return _encode(x, self.mean, self.std)

  def decode(self, params: Any, z: jax.Array) -> jax.Array:
    """z std + mean, [B, ...]."""
    return _decode(z, self.mean, self.std)

  def log_det(self, params: Any, x: jax.Array) -> jax.Array:
    """-sum log std over the numbers of an example, [B]."""
    return _log_det(x, self.std)

  def show(self, x: jax.Array) -> jax.Array:
    """x itself."""
    return x


@struct.dataclass
class Standardize:
  """(x - mean) / std with one mean and one deviation, which are measured: see `standardize`."""

  def shape_of(self, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The same shape."""
    return tuple(shape)

  def init(self) -> Any:
    """{'mean': 0, 'std': 1}, scalars in float32."""
    return {"mean": jnp.zeros((), jnp.float32), "std": jnp.ones((), jnp.float32)}

  def measure(self, params: Any, x: jax.Array) -> Any:
    """{'mean', 'std'} of all numbers of x: [n, ...].

    Raises ValueError where they are all alike or not finite.
    """
    wide = jnp.asarray(x, at_least_single(x.dtype))
    mean = jnp.mean(wide)
    std = jnp.sqrt(jnp.mean(jnp.square(wide - mean)))
    if not (bool(jnp.isfinite(std)) and float(std) > 0):
      raise ValueError(
        f"the {x.shape[0]} examples that were encoded have the deviation {float(std):g}, and a model needs "
        "one above 0: train the encoder longer, or leave the codec out"
      )
    return {"mean": mean.astype(jnp.float32), "std": std.astype(jnp.float32)}

  def encode(self, params: Any, x: jax.Array, key: jax.Array | None = None) -> jax.Array:
    """(x - mean) / std, [B, ...]."""
    return _encode(x, params["mean"], params["std"])

  def decode(self, params: Any, z: jax.Array) -> jax.Array:
    """z std + mean, [B, ...]."""
    return _decode(z, params["mean"], params["std"])

  def log_det(self, params: Any, x: jax.Array) -> jax.Array:
    """-sum log std over the numbers of an example, [B]."""
    return _log_det(x, params["std"])

  def show(self, x: jax.Array) -> jax.Array:
    """x itself."""
    return x


def identity() -> Identity:
  """The codec that changes nothing; log_det is 0.

  >>> codec = identity()
  >>> codec.encode(codec.init(), jnp.ones((1, 2))).tolist(), codec.log_det({}, jnp.ones((1, 2))).tolist()
  ([[1.0, 1.0]], [0.0])
  """
  return Identity()


def scale(mean: Any = 0.0, std: Any = 1.0) -> Scale:
  """The codec (x - mean) / std; log_det is -sum log std.

  Args:
    mean, std: numbers, or sequences that broadcast to one example, such as one number a channel.

  Raises ValueError for a std that is not above 0.

  >>> codec = scale(1.0, 2.0)
  >>> codec.encode({}, jnp.full((1, 2), 5.0)).tolist(), codec.log_det({}, jnp.ones((1, 2))).tolist()
  ([[2.0, 2.0]], [-1.38...])
  """
  mean, std = (given if jnp.ndim(given) == 0 else jnp.asarray(given, jnp.float32) for given in (mean, std))
  if not bool(jnp.all(jnp.asarray(std) > 0)):
    raise ValueError(f"scale divides by std={std}: give numbers above 0")
  return Scale(mean, std)


def standardize() -> Standardize:
  """The codec (x - mean) / std with one mean and one standard deviation of all training data.

  Both are taken over all numbers of the training data, once, by `measure` (arXiv:2112.10752, appendix G,
  where latents are divided by their deviation).

  >>> codec = standardize()
  >>> params = codec.measure(codec.init(), jnp.asarray([[1.0], [5.0]]))
  >>> float(params["mean"]), float(params["std"]), codec.encode(params, jnp.asarray([[1.0], [5.0]])).tolist()
  (3.0, 2.0, [[-1.0], [1.0]])
  """
  return Standardize()


def _encode(x, mean, std):
  """(x - mean) / std, in the dtype of x."""
  return (x - _like(mean, x)) / _like(std, x)


def _decode(z, mean, std):
  return z * _like(std, z) + _like(mean, z)


def _log_det(x, std):
  """-sum log std of one example, for each of x: [B, ...]."""
  wide = at_least_single(x.dtype)
  total = -jnp.sum(jnp.log(jnp.broadcast_to(jnp.asarray(std, wide), x.shape[1:])))
  return jnp.broadcast_to(total, x.shape[:1])


def _like(value, x):
  """A value of one example, as wide as x."""
  return jnp.broadcast_to(jnp.asarray(value, x.dtype), x.shape)
