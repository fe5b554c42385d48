"""Noise for whole numbers.

Each coordinate, on its own, is drawn anew among its values with some probability.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from diffusion.processes.neighbourhoods import as_sizes


def resample_probability(t):
  """The default clock: t is the probability itself."""
  return t


@struct.dataclass
class UniformResample:
  """See `uniform_resample`. A discrete process: what a denoising objective of whole numbers needs of its
  noise.

  Attributes:
    t_min, t_max: where training and sampling stop.
    clock: t -> probability b in [0, 1] that a coordinate is drawn anew.
    sizes: number of values of each coordinate, flattened; shape: of a state.
  """

  t_min: Any
  t_max: Any
  clock: Callable[[Any], Any] = struct.field(pytree_node=False)
  sizes: tuple = struct.field(pytree_node=False)
  shape: tuple = struct.field(pytree_node=False)
  name: str = struct.field(pytree_node=False, default="uniform_resample")

  def corrupt(self, keys, x0, t):
    """x_t [B, ...] int given x_0: keys [B], row i uses keys[i] alone; t [B]."""
    b, sizes = self.clock(t), jnp.asarray(np.reshape(self.sizes, self.shape), x0.dtype)

    def one(key, x0, b):
      again, value = jax.random.split(key)
      drawn = jax.random.randint(value, self.shape, 0, sizes, x0.dtype)
      return jnp.where(jax.random.uniform(again, self.shape, b.dtype) < b, drawn, x0)

    return jax.vmap(one)(keys, x0, b)

  def ratio(self, x0, old, new, size, t):
    """q(new | x_0) / q(old | x_0) of coordinates [B, N] with `size` values each, t [B]: what a concrete score
    averages.

    One of m/s, s/m and 1, with s = 1 - b + b/K to stay and m = b/K to become any other value; infinite at b =
    0.
    """
    stay, jump = self.odds(t)(size)
    weight = lambda value: jnp.where(value == x0, stay, jump)
    return weight(new) / weight(old)

  def odds(self, t):
    """A function size [N] -> (s, m) [B, N]: the probabilities to stay and to become one given other value."""
    b = self.clock(t)[:, None]

    def of(size):
      jump = b / jnp.asarray(size, b.dtype)[None, :]
      return 1.0 - b + jump, jump

    return of

  def balance(self, t):
    """The inverse mean square of (ratio - 1) over x_t, of the coordinate with most values: [B], at most 100.

    With K values it is s^2/m + m^2/s + (K - 2) m - 1 between any two of them, so that the balance is m/s as
    the noise vanishes and holds the tails of order s/m, and grows where noise leaves ratios near one, so that
    these levels are learned as well.
    """
    size = max(self.sizes)
    stay, jump = (p[:, 0] for p in self.odds(t)(np.array([size])))
    square = stay**2 / jump + jump**2 / stay + (size - 2) * jump - 1.0
    return 1.0 / jnp.maximum(square, 0.01)

  def sample_prior(self, key, n):
    """States of pure noise [n, ...] int32, sample i from (key, i) alone."""
    draw = lambda i: jax.random.randint(
      jax.random.fold_in(key, i), self.shape, 0, jnp.asarray(np.reshape(self.sizes, self.shape), jnp.int32)
    )
    return jax.vmap(draw)(jnp.arange(n))


def uniform_resample(
  sizes, shape=None, *, clock=resample_probability, t_min=0.01, t_max=1.0
) -> UniformResample:
  """Each coordinate is replaced with probability b = clock(t) by a uniform draw of its values
  (arXiv:2211.00802; 2107.03006, appendix A.2).

  Args:
    sizes: number of values of each coordinate, or one number for all; shape: of a state, that of `sizes` by
      default.
    clock: t -> b in [0, 1], increasing; built once: it is static. By default t is b.
    t_min, t_max: the interval of times; at b = 1 nothing is left of the data.

  Raises ValueError for sizes below two, or times that are not increasing.

  >>> process = uniform_resample(4, shape=(2,))
  >>> three, zero = jnp.array([[3]]), jnp.array([[0]])
  >>> ratio = process.ratio(three, three, zero, np.array([4]), jnp.array([0.4]))
  >>> round(float(ratio[0, 0]), 4)  # 0.1 / 0.7
  0.1429
  """
  sizes = as_sizes(sizes, "uniform_resample", shape)
  check_interval(t_min, t_max, "uniform_resample")
  return UniformResample(t_min, t_max, clock, tuple(sizes.reshape(-1).tolist()), tuple(sizes.shape))


def check_interval(t_min, t_max, who):
  """Raises ValueError unless 0 <= t_min < t_max <= 1."""
  if not 0.0 <= t_min < t_max <= 1.0:
    raise ValueError(f"{who} has times from t_min to a larger t_max within [0, 1], got [{t_min}, {t_max}]")
