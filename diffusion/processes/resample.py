"""Noise for whole numbers.

Each coordinate, on its own, is drawn anew among its values with some probability.
"""

from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from diffusion.processes.base import expand
from diffusion.processes.keep_or_draw import KeepOrDraw
from diffusion.processes.keeping import KeepSchedule, linear_keep
from diffusion.processes.neighbourhoods import as_sizes
from diffusion.processes.own_sizes import OwnSizes


@struct.dataclass
class UniformResample(OwnSizes, KeepOrDraw):
  """See `uniform_resample`. A discrete process whose probability to draw a coordinate anew is b = 1 - alpha.

  Attributes:
    t_min, t_max: where training and sampling stop.
    schedule: times -> `Keep`, with its inverse.
    sizes: number of values of each coordinate, flattened; shape: of a state.
  """

  t_min: Any
  t_max: Any
  schedule: KeepSchedule
  sizes: tuple = struct.field(pytree_node=False)
  shape: tuple = struct.field(pytree_node=False)
  name: str = struct.field(pytree_node=False, default="uniform_resample")

  follows: ClassVar[dict[str, tuple[str, ...]]] = KeepOrDraw.follows | {"concrete_score": ("concrete_score",)}

  def drawn(self, size: int | None = None) -> np.ndarray:
    """The uniform law of a coordinate of `size` values, K for None: [K] in float64."""
    size = self.num_values if size is None else size
    return (np.arange(self.num_values) < size) / size

  def noise(self, keys: jax.Array, x0: jax.Array) -> dict[str, jax.Array]:
    """The noise that decides x_t, row i from keys[i] alone.

    It is {'uniform': in [0, 1), 'value': a uniform draw}, each [B, ...].
    """
    sizes = jnp.asarray(np.reshape(self.sizes, self.shape), x0.dtype)

    def one(key):
      again, value = jax.random.split(key)
      drawn = jax.random.randint(value, self.shape, 0, sizes, x0.dtype)
      return {"uniform": jax.random.uniform(again, self.shape), "value": drawn}

    return jax.vmap(one)(keys)

  def corrupt(self, x0: jax.Array, noise: dict[str, jax.Array], t: jax.Array, x1: None = None) -> jax.Array:
    """x_t [B, ...] int given x_0 and the noise; t [B]."""
    del x1
    again = noise["uniform"] < expand(self.clock(t).noised, x0).astype(noise["uniform"].dtype)
    return jnp.where(again, noise["value"], x0)

  def ratio(self, x0: jax.Array, old: jax.Array, new: jax.Array, size: Any, t: jax.Array) -> jax.Array:
    """The kernel's ratio q(new | x_0) / q(old | x_0) of coordinates [B, N]: what a concrete score averages.

    Each coordinate has `size` values; t is [B]. The ratio is one of m/s, s/m and 1, with s = 1 - b + b/K to
    stay and m = b/K to become any other value; infinite at b = 0.
    """
    stay, jump = self.odds(t)(size)
    weight = lambda value: jnp.where(value == x0, stay, jump)
    return weight(new) / weight(old)

  def odds(self, t: jax.Array) -> Callable[[Any], tuple[jax.Array, jax.Array]]:
    """A function size [N] -> (s, m) [B, N]: the probabilities to stay and to become one given other value."""
    b = self.clock(t).noised[:, None]

    def of(size):
      jump = b / jnp.asarray(size, b.dtype)[None, :]
      return 1.0 - b + jump, jump

    return of

  def balance(self, t: jax.Array) -> jax.Array:
    """The inverse mean square of (ratio - 1) over x_t, of the coordinate with most values: [B], at most 100.

    With K values it is s^2/m + m^2/s + (K - 2) m - 1 between any two of them, so that the balance is m/s as
    the noise vanishes and holds the tails of order s/m, and grows where noise leaves ratios near one, so that
    these levels are learned as well.
    """
    size = max(self.sizes)
    stay, jump = (p[:, 0] for p in self.odds(t)(np.array([size])))
    square = stay**2 / jump + jump**2 / stay + (size - 2) * jump - 1.0
    return 1.0 / jnp.maximum(square, 0.01)

  def _law(self, dtype):
    """The uniform law of each coordinate's own values: [1, ..., K]."""
    sizes = np.reshape(self.sizes, (1, *self.shape, 1))
    return jnp.asarray((np.arange(self.num_values) < sizes) / sizes, dtype)

  def _exists(self):
    return self.exists


def uniform_resample(
  sizes: Any,
  shape: tuple[int, ...] | None = None,
  *,
  schedule: KeepSchedule | None = None,
  t_min: float = 0.01,
  t_max: float = 1.0,
) -> UniformResample:
  """Uniform resampling: each coordinate is replaced with probability b = 1 - alpha(t).

  It is replaced by a uniform draw of its values (arXiv:2211.00802; 2107.03006, appendix A.2).

  Args:
    sizes: number of values of each coordinate, or one number for all; shape: of a state, that of `sizes` by
      default.
    schedule: of alpha, such as `linear_keep()`, the default, where t is b itself, or `cosine_keep()`.
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
  schedule = linear_keep() if schedule is None else schedule
  return UniformResample(t_min, t_max, schedule, tuple(sizes.reshape(-1).tolist()), tuple(sizes.shape))


def check_interval(t_min: float, t_max: float, who: str) -> None:
  """Raises ValueError unless 0 <= t_min < t_max <= 1."""
  if not 0.0 <= t_min < t_max <= 1.0:
    raise ValueError(f"{who} has times from t_min to a larger t_max within [0, 1], got [{t_min}, {t_max}]")
