"""The singular vectors of a linear measurement.

What it sees of x, direction by direction, and how noisily.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from diffusion.processes.base import Number
from diffusion.tasks.measurement import Measurement

MOST_ENTRIES = 4096
FAINTEST = 1e-4  # of the largest singular value: y in float32 says nothing of directions below


@struct.dataclass
class Spectrum:
  """Coefficients of x [B, *event] along the right singular vectors that a measurement sees; see `spectrum`.

  Attributes:
    measurement: the measurement.
    right, left: [R, D] singular vectors of x, and [R, M] those of y over the singular values; or None where A
      A^T = c times the identity: A / sqrt(c) is then the map to coefficients, and they have the shape of y.
    noise: standard deviation of the noise of `known`: one number, or [1, R].
  """

  measurement: Measurement
  right: jax.Array | None
  left: jax.Array | None
  noise: Number

  def into(self, x: jax.Array) -> jax.Array:
    """x -> its coefficients; the map is an orthogonal projection followed by a rotation."""
    if self.right is None:
      return self.measurement(x) / self._root(x)
    return x.reshape(x.shape[0], -1) @ self.right.astype(x.dtype).T

  def back(self, coefficients: jax.Array) -> jax.Array:
    """Coefficients -> the x that has them and nothing elsewhere."""
    if self.right is None:
      return self.measurement.adjoint(coefficients) / self._root(coefficients)
    return (coefficients @ self.right.astype(coefficients.dtype)).reshape(-1, *self.measurement.event)

  def known(self, y: jax.Array) -> jax.Array:
    """The coefficients that y tells of: those of x0 plus `noise` times a standard normal."""
    if self.left is None:
      return self.measurement.seen(y) / self._root(y)
    return y.reshape(y.shape[0], -1) @ self.left.astype(y.dtype).T

  def _root(self, like):
    return jnp.sqrt(jnp.asarray(self.measurement.gram, like.dtype))


def spectrum(measurement: Measurement, who: str = "a spectrum") -> Spectrum:
  """The singular value decomposition of a linear measurement.

  With a gram nothing is decomposed; else the matrix is formed and decomposed here, on the host, in double
  precision: some 0.5 s for 784 entries, a minute for 3,072. Directions whose singular value is below 1e-4 of
  the largest count as not measured.

  Args:
    measurement: a linear one, with parameters that are known now (outside `jit`) unless it has a gram.
    who: for the message.

  Raises:
    ValueError: an operator that is not linear, or one without a gram of more than 4,096 entries.

  >>> from diffusion import tasks
  >>> found = spectrum(tasks.linear([[2.0, 0.0], [0.0, 0.5]], noise=0.1))
  >>> np.allclose(found.noise, [[0.1 / 2.0, 0.1 / 0.5]]), abs(found.known(jnp.array([[2.0, 1.0]]))).tolist()
  (True, [[1.0, 2.0]])
  """
  measurement.check_linear(who)
  if measurement.gram is not None:
    return Spectrum(measurement, None, None, measurement.noise / np.sqrt(measurement.gram))
  size = int(np.prod(measurement.event))
  if size > MOST_ENTRIES:
    raise ValueError(
      f"{who} decomposes the matrix of {measurement.name}, and {size} entries of x are more than "
      f"{MOST_ENTRIES}: take pigdm or daps, "
      "or give its gram if A A^T is a multiple of the identity"
    )
  columns = measurement(jnp.eye(size).reshape(size, *measurement.event))
  left, values, right = np.linalg.svd(
    np.asarray(columns, np.float64).reshape(size, -1).T, full_matrices=False
  )
  kept = values > FAINTEST * values[0]
  left, values, right = left.T[kept], values[kept], right[kept]
  return Spectrum(
    measurement,
    jnp.asarray(right),
    jnp.asarray(left / values[:, None]),
    measurement.noise / jnp.asarray(values)[None, :],
  )
