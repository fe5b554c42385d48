"""Several codecs one after another, as one."""

from collections.abc import Callable
from typing import Any

import jax
from flax import struct

from diffusion.codecs.affine import identity
from diffusion.codecs.contract import Codec

AT_ONCE = 64
"""Examples that are encoded together while statistics are measured."""


@struct.dataclass
class Chain:
  """Codecs from left to right: see `chain`.

  Attributes:
    parts: the codecs; parameters are a tuple of theirs.
  """

  parts: tuple[Any, ...]

  @property
  def log_det(self) -> Callable[[Any, jax.Array], jax.Array] | None:
    """The sum of the parts', each at what it is given; None where one of them has none."""
    return None if any(part.log_det is None for part in self.parts) else self._log_det

  def _log_det(self, params: Any, x: jax.Array) -> jax.Array:
    total = None
    for part, own in zip(self.parts, params, strict=True):
      found = part.log_det(own, x)
      total, x = found if total is None else total + found, part.encode(own, x)
    return total  # pyright: ignore[reportReturnType] (a chain has a part)

  def shape_of(self, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape after the last part. Raises ValueError for a shape that a part does not take."""
    for part in self.parts:
      shape = part.shape_of(shape)
    return tuple(shape)

  def init(self) -> Any:
    """A tuple of the parts' parameters."""
    return tuple(part.init() for part in self.parts)

  def measure(self, params: Any, x: jax.Array) -> Any:
    """Each part's parameters, measured on what the parts before it make of x: [n, ...]."""
    found = []
    for part, own in zip(self.parts, params, strict=True):
      found.append(part.measure(own, x))
      x = _encoded(part, found[-1], x)
    return tuple(found)

  def encode(self, params: Any, x: jax.Array, key: jax.Array | None = None) -> jax.Array:
    """x: [B, ...] through every part; each gets keys [B] of its own."""
    for number, (part, own) in enumerate(zip(self.parts, params, strict=True)):
      keys = (
        None if key is None else jax.vmap(lambda one, number=number: jax.random.fold_in(one, number))(key)
      )
      x = part.encode(own, x, keys)
    return x

  def decode(self, params: Any, z: jax.Array) -> jax.Array:
    """z: [B, ...] back through every part, the last one first."""
    for part, own in reversed(list(zip(self.parts, params, strict=True))):
      z = part.decode(own, z)
    return z

  def show(self, x: jax.Array) -> jax.Array:
    """Decoded values as the first part, whose data they are, draws them."""
    return self.parts[0].show(x)


def chain(*codecs: Codec) -> Codec:
  """One codec out of several, from the data's side to the model's; without any, `identity`'s functions.

  Its log_det is the sum of theirs, or None where one of them has none.

  >>> import jax.numpy as jnp
  >>> from diffusion import codecs
  >>> codec = chain(codecs.scale(1.0, 2.0), codecs.scale(0.0, 0.5))
  >>> params, x = codec.init(), jnp.full((1, 3), 2.0)
  >>> codec.encode(params, x).tolist(), codec.decode(params, codec.encode(params, x)).tolist()
  ([[1.0, 1.0, 1.0]], [[2.0, 2.0, 2.0]])
  >>> float(abs(codec.log_det(params, x)[0])) < 1e-6  # they cancel
  True
  """
  return Chain(tuple(codecs) or (identity(),))


@jax.jit
def _encoded(part, params, x):
  return jax.lax.map(lambda one: part.encode(params, one[None])[0], x, batch_size=AT_ONCE)
