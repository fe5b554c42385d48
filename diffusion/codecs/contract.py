"""What every codec is: the way between the values of the data and what a model sees."""

from collections.abc import Callable
from typing import Any, Protocol

import jax


class Codec(Protocol):
  """A pair of functions on the device, as a pytree; its parameters are an argument of both.

  The host's part (whole numbers to floats) is `data.scaling`; a codec takes what comes out of it, inside the
  jitted step, and gives it back after the solver. It is on whole batches, and no row depends on another.

  Attributes:
    log_det: (params, x [B, ...]) -> [B], the log of |det d encode(x) / d x| in nats, float32 or wider;
      None where there is none, because encoding forgets something or its result has another size: there is no
      likelihood then.
  """

  @property
  def log_det(self) -> Callable[[Any, jax.Array], jax.Array] | None:
    """See above."""
    ...

  def shape_of(self, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of one encoded example, of one of this shape.

    Raises ValueError for a shape that it does not take.
    """
    ...

  def init(self) -> Any:
    """Parameters before anything is measured or loaded, a pytree; {} where there are none."""
    ...

  def measure(self, params: Any, x: jax.Array) -> Any:
    """The parameters, with what is measured once on training data x: [n, ...]. Not for use under jit.

    Raises ValueError for data that do not allow it.
    """
    ...

  def encode(self, params: Any, x: jax.Array, key: jax.Array | None = None) -> jax.Array:
    """The code of x that the model sees: [B, ...].

    x: [B, ...]; key: [B] typed keys, one an example, or None for no randomness.
    """
    ...

  def decode(self, params: Any, z: jax.Array) -> jax.Array:
    """Values of the data, [B, ...], of z: [B, ...]; the inverse of `encode`, or as near to one as it has."""
    ...

  def show(self, x: jax.Array) -> jax.Array:
    """Decoded values [B, ...] as a picture draws them: themselves, unless the data are no picture."""
    ...
