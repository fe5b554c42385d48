"""A one-dimensional density from its score on a grid: normalised, evaluated and inverted."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.core import Tracer

from diffusion.denoisers import Denoiser
from diffusion.losses.autoregressive import head_of
from diffusion.math.precision import at_least_single


@struct.dataclass
class Table:
  """N densities on grids, each with a logarithm that is linear between the nodes.

  Outside of its grid a density is zero, so all of this is exact.

  grid: [N, G] increasing; log_density: [N, G] nats, normalised; log_mass: [N, G - 1] of the cells.
  """

  grid: Any
  log_density: Any
  log_mass: Any

  def log_prob(self, x: jax.Array) -> jax.Array:
    """Log-density at x [N]: [N], -inf off the grid."""
    cell = jnp.clip(jnp.sum(self.grid <= x[:, None], axis=1) - 1, 0, self.grid.shape[1] - 2)
    low, high, below, above = self._ends(cell)
    share = (x - low) / (high - low)
    return jnp.where((share >= 0) & (share <= 1), below + share * (above - below), -jnp.inf)

  def quantile(self, u: jax.Array) -> jax.Array:
    """The inverse of the distribution function at u [N] in [0, 1]: [N]."""
    mass = jnp.exp(self.log_mass)
    reached = jnp.cumsum(mass, axis=1)
    target = u * reached[:, -1]
    cell = jnp.clip(jnp.sum(reached <= target[:, None], axis=1), 0, mass.shape[1] - 1)
    take = lambda values: jnp.take_along_axis(values, cell[:, None], axis=1)[:, 0]
    own = take(mass)
    share = jnp.clip((target - (take(reached) - own)) / jnp.maximum(own, jnp.finfo(own.dtype).tiny), 0.0, 1.0)
    low, high, below, above = self._ends(cell)
    return low + (high - low) * within(share, above - below)

  def _ends(self, cell):
    take = lambda values, k: jnp.take_along_axis(values, (cell + k)[:, None], axis=1)[:, 0]
    return take(self.grid, 0), take(self.grid, 1), take(self.log_density, 0), take(self.log_density, 1)


def table(grid: jax.Array, score: jax.Array, slope: jax.Array | None = None) -> Table:
  """The table of densities with this score on the grid.

  Between two nodes the score is integrated by Hermite's rule, h (s_0 + s_1) / 2 + h^2 (s_0' - s_1') / 12, of
  fourth order, or by the trapezoidal one where no slope is known. The sums run outwards from the mode, so
  that the log-density keeps its digits where there is mass, however deep its tails are.

  Args:
    grid: [N, G], increasing.
    score: [N, G], d log p / dx.
    slope: [N, G], its derivative, or None.

  >>> grid = jnp.linspace(-6.0, 8.0, 1401)[None]
  >>> normal = table(grid, 1.0 - grid, -jnp.ones_like(grid))
  >>> found = normal.log_prob(jnp.array([1.0]))[0], normal.quantile(jnp.array([0.5]))[0]
  >>> round(float(found[0]), 3), round(float(found[1]), 4)
  (-0.919, 1.0)
  """
  wide = at_least_single(score.dtype)
  grid, score = grid.astype(wide), score.astype(wide)
  step = jnp.diff(grid, axis=1)
  rise = 0.5 * step * (score[:, 1:] + score[:, :-1])
  if slope is not None:
    rise = rise - step**2 / 12.0 * jnp.diff(slope.astype(wide), axis=1)
  start = jnp.zeros_like(rise[:, :1])
  mode = jnp.argmax(jnp.concatenate([start, jnp.cumsum(rise, axis=1)], axis=1), axis=1)[:, None]
  right = jnp.arange(rise.shape[1])[None] >= mode
  up = jnp.cumsum(jnp.where(right, rise, 0.0), axis=1)
  down = jax.lax.cumsum(jnp.where(right, 0.0, rise), axis=1, reverse=True)
  height = jnp.concatenate([start, up], axis=1) - jnp.concatenate([down, start], axis=1)
  log_mass = jnp.log(step) + height[:, :-1] + log_mean_exp(jnp.diff(height, axis=1))
  total = jax.scipy.special.logsumexp(log_mass, axis=1, keepdims=True)
  return Table(grid, height - total, log_mass - total)


def log_mean_exp(a: jax.Array) -> jax.Array:
  """log of the mean of exp(a w) over w in [0, 1], (e^a - 1) / a, for any a.

  >>> np.asarray(log_mean_exp(jnp.array([0.0, 1.0, -1000.0])), np.float64).round(2).tolist()
  [0.0, 0.54, -6.91]
  """
  size = jnp.abs(a)
  small = size < 1e-2
  safe = jnp.where(small, 1.0, size)
  return jnp.maximum(a, 0.0) + jnp.where(
    small, -0.5 * size + size**2 / 24.0, jnp.log(-jnp.expm1(-safe) / safe)
  )


def within(v: jax.Array, a: jax.Array) -> jax.Array:
  """w in [0, 1] up to which a density proportional to exp(a w) on [0, 1] has the mass v.

  >>> found = within(jnp.array([0.5, 0.5, 0.0]), jnp.array([0.0, 2.0, -500.0]))
  >>> np.asarray(found, np.float64).round(2).tolist()
  [0.5, 0.72, 0.0]
  """
  # Mirrored, so that the density falls and nothing overflows.
  rising = a > 0
  v, fall = jnp.where(rising, 1.0 - v, v), jnp.abs(a)
  small = fall < 1e-3
  safe = jnp.where(small, 1.0, fall)
  w = jnp.where(small, v - 0.5 * fall * v * (1.0 - v), -jnp.log1p(v * jnp.expm1(-safe)) / safe)
  w = jnp.clip(w, 0.0, 1.0)
  return jnp.where(rising, 1.0 - w, w)


def check_grid(grid: Any, size: int, who: str) -> jax.Array:
  """The grid of each of `size` coordinates, [size, G], from [G] or [size, G].

  Raises ValueError for a grid that does not increase.
  """
  shape = jnp.shape(grid)
  if len(shape) not in (1, 2) or shape[-1] < 2 or (len(shape) == 2 and shape[0] != size):
    raise ValueError(
      f"{who} takes a grid [G] for all coordinates, or [{size}, G] with one row for each, G >= 2; got shape "
      f"{shape}: "
      "jnp.linspace(-4.0, 4.0, 401) is a start"
    )
  if not isinstance(grid, Tracer) and not np.all(np.diff(np.asarray(grid, np.float64), axis=-1) > 0):
    raise ValueError(
      f"the grid of {who} increases from each value to the next, and this one does not: sort it and drop "
      "what repeats"
    )
  return jnp.broadcast_to(jnp.asarray(grid), (size, shape[-1]))


def conditional_table(model: Denoiser, grid: jax.Array, context: jax.Array, t: jax.Array, cond: Any) -> Table:
  """The tables of N conditionals: grid [N, G], context [N, C], t [N], cond as the model takes it."""
  context = jnp.broadcast_to(context[:, None, :], (*grid.shape, context.shape[-1]))
  score, slope = jax.jvp(lambda x: head_of(model, context, x, t, cond), (grid,), (jnp.ones_like(grid),))
  if score.shape != grid.shape:
    raise ValueError(
      f"the head takes any number of values of a coordinate, context {context.shape} with x {grid.shape}, "
      "and returns as many "
      f"scores; got {score.shape}: what tells coordinates apart belongs into the context"
    )
  return table(grid, score, slope)
