"""The small network of an autoregressive score.

All coordinates share it: a context and one number in, one number out.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn


def waves(x: jax.Array, frequencies: Sequence[float]) -> jax.Array:
  """Fourier features of numbers: each itself, and its sine and cosine at each frequency.

  x [...] -> [..., 1 + 2 F]. Frequencies are in radians per unit of x.

  >>> waves(jnp.zeros(3), (1.0, 2.0)).tolist()[0]
  [0.0, 0.0, 0.0, 1.0, 1.0]
  """
  x = x[..., None]
  if not frequencies:
    return x
  angles = x * jnp.asarray(frequencies, x.dtype).reshape((1,) * (x.ndim - 1) + (-1,))
  return jnp.concatenate([x, jnp.sin(angles), jnp.cos(angles)], axis=-1)


class ScalarHead(nn.Module):
  """context [..., C], x [...] -> score [...]: -x / std^2 plus a smooth dense network, which starts at zero.

  It acts on each coordinate alone and takes any number of them, so that a whole grid of values of one
  coordinate is one call.

  Attributes:
    width, depth: of the hidden layers.
    frequencies: of sines and cosines of x beside x itself; () for none. They make sharp edges learnable.
    std: of the normal distribution that a new network is the score of; it also keeps the tails of the density
      integrable.
  """

  width: int = 64
  depth: int = 2
  frequencies: tuple[float, ...] = ()
  std: float = 1.0

  @nn.compact
  def __call__(self, context: jax.Array, x: jax.Array) -> jax.Array:
    h = nn.Dense(self.width, name="context")(context) + nn.Dense(self.width, use_bias=False, name="value")(
      waves(x, self.frequencies)
    )
    for i in range(self.depth):
      h = nn.Dense(self.width, name=f"dense_{i}")(nn.swish(h))
    value = nn.Dense(1, kernel_init=nn.initializers.zeros, name="last")(nn.swish(h))
    return value.reshape(x.shape) - x / self.std**2
