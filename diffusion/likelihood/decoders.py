"""The last term of the bound: p(x | z) of data given the least noisy latent z = alpha x + sigma eps.

A decoder is a function (x [B, ...], z [B, ...], marginal) -> [B] nats, `marginal` holding alpha and sigma of
z as []. One with arrays inside (a network, an oracle) is a pytree: `jax.tree_util.Partial(fn, arrays)`.
"""

from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.typing import DTypeLike

from diffusion.processes.base import Marginal


class Levels(Protocol):
  """A scaling of whole-numbered values, such as `diffusion.data.Scaling`."""

  @property
  def levels(self) -> int: ...

  def to_model(self, x: np.ndarray, /) -> np.ndarray: ...


class Decoder(Protocol):
  """log p(x | z) [B] in nats of data x [B, ...] given the first latent z [B, ...], whose marginal is m."""

  def __call__(self, x: jax.Array, z: jax.Array, m: Marginal) -> jax.Array: ...


@struct.dataclass
class GaussianDecoder:
  """N(x; z / alpha, (sigma / alpha)^2 I): what q(z | x) says of x where the data are smooth at that scale."""

  def __call__(self, x: jax.Array, z: jax.Array, m: Marginal) -> jax.Array:
    rho = m.sigma / m.alpha
    residual = ((x - z / m.alpha) / rho).reshape(x.shape[0], -1)
    return -0.5 * jnp.sum(residual**2 + jnp.log(2 * np.pi * rho**2), axis=1)


@struct.dataclass
class LevelDecoder:
  """See `level_decoder`."""

  levels: jax.Array  # [L] model values, ascending and equally spaced

  def __call__(self, x: jax.Array, z: jax.Array, m: Marginal) -> jax.Array:
    mean, precision = z / m.alpha, (m.alpha / m.sigma) ** 2

    def score(level):
      return -0.5 * precision * (mean - level) ** 2

    # One level at a time: L copies of a batch of images would not fit.
    total, _ = jax.lax.scan(
      lambda sum, level: (jnp.logaddexp(sum, score(level)), None), jnp.full_like(mean, -jnp.inf), self.levels
    )
    return jnp.sum((score(x) - total).reshape(x.shape[0], -1), axis=1)


def gaussian_decoder() -> GaussianDecoder:
  """The decoder of real-valued or dequantised data: a Gaussian.

  Its mean over eps, -D/2 (1 + log 2 pi sigma^2 / alpha^2), needs no draws.

  >>> from diffusion import processes
  >>> m = processes.edm().marginal(jnp.array(0.01))
  >>> x = jnp.zeros((1, 1))
  >>> round(float(gaussian_decoder()(x, x, m)[0]), 4)          # log 1/(0.01 sqrt(2 pi))
  3.6862
  """
  return GaussianDecoder()


def level_decoder(scaling: Levels, dtype: DTypeLike = jnp.float32) -> LevelDecoder:
  """The decoder of whole-numbered pixels without dequantisation.

  P(level | z) is in proportion to q(z | level) (arXiv:2107.00630, eq. 8). The bound is then one of log
  P(values), and `bits_per_dim(nats, shape)` needs no scaling.

  Args:
    scaling: `diffusion.data.Scaling`; x must hold its levels, without noise.
    dtype: of the levels.

  >>> from diffusion import data, processes
  >>> m = processes.edm().marginal(jnp.array(0.5))
  >>> decoder = level_decoder(data.Scaling(4))
  >>> x = decoder.levels.reshape(4, 1)
  >>> float(jnp.exp(decoder(x, jnp.full((4, 1), 0.2), m)).sum().round(5))
  1.0
  """
  return LevelDecoder(jnp.asarray(scaling.to_model(np.arange(scaling.levels)), dtype))
