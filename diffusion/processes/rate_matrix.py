"""Noise for whole numbers that walks a graph: a Markov chain in continuous time of any rates."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from diffusion.processes.base import array_namespace
from diffusion.processes.clocked import Clocked
from diffusion.processes.contract import Rate
from diffusion.processes.discrete import check_state_shape, each_value
from diffusion.processes.jump_matrix import JumpMatrix, jump_matrix
from diffusion.processes.keeping import KeepSchedule, linear_keep
from diffusion.processes.resample import check_interval


@struct.dataclass
class RateMatrix(Clocked):
  """See `rate_matrix`.

  Attributes:
    t_min, t_max: where training and sampling stop.
    schedule: times -> `Keep`; the chain's own time is sigma = -log alpha.
    matrix: the jump rates for a unit of sigma, with what follows from them.
    num_values: K.
    shape: of a state.
  """

  t_min: Any
  t_max: Any
  schedule: KeepSchedule
  matrix: JumpMatrix
  num_values: int = struct.field(pytree_node=False)
  shape: tuple[int, ...] = struct.field(pytree_node=False)
  name: str = struct.field(pytree_node=False, default="rate_matrix")

  ends: ClassVar[tuple[str, str]] = ("data", "stationary")

  @property
  def stationary(self) -> Any:
    """The law [K] that the jumps keep, from which sampling starts."""
    return self.matrix.stationary

  def prior_law(self, dtype: Any) -> jax.Array:
    """The stationary law of each coordinate: [1, ..., K], to fit [B, ..., K]."""
    return jnp.asarray(self.stationary, dtype).reshape((1,) * (len(self.shape) + 1) + (-1,))

  def rates(self, t: Any) -> dict[str, Rate]:
    """alpha, 1 - alpha and the mean probability that a coordinate is at x_0, with their time derivatives."""
    keep, now = self.clock(t), self.transition(None, t)
    xp = array_namespace(now)
    diagonal = lambda matrix: xp.diagonal(matrix, axis1=-2, axis2=-1).mean(-1)
    some = keep.alpha > 0
    pace = xp.where(some, -keep.d_alpha / xp.where(some, keep.alpha, 1.0), 0.0)
    slope = pace * diagonal(
      now @ xp.asarray(self.matrix.rates, now.dtype).reshape((1,) * (now.ndim - 2) + now.shape[-2:])
    )
    return Clocked.rates(self, t) | {"returned": Rate(diagonal(now), slope)}

  def transition(self, s: Any, t: Any, size: int | None = None) -> Any:
    """q(x_t = j | x_s = i) of one coordinate, exp(R (sigma_t - sigma_s)): [..., K, K], rows i sum to one.

    s <= t broadcast to [...]; s is None for the data. Every coordinate has all K values, whatever `size`.
    """
    del size
    _, drawn = self.between(s, t)
    xp = array_namespace(drawn)
    with np.errstate(divide="ignore"):
      return self.matrix.exponential(-xp.log1p(-drawn))

  def generator(self, t: Any, size: int | None = None) -> Any:
    """The jump rates of one coordinate from i to j at t: [..., K, K], rows sum to zero.

    Unbounded at alpha = 0.
    """
    del size
    keep = self.clock(t)
    xp = array_namespace(keep.alpha)
    rates = xp.asarray(self.matrix.rates, keep.alpha.dtype)
    rates = rates.reshape((1,) * np.ndim(keep.alpha) + rates.shape)
    with np.errstate(divide="ignore", invalid="ignore"):
      return xp.where(rates == 0, 0.0, (-keep.d_alpha / keep.alpha)[..., None, None] * rates)

  def structure(self, size: int | None = None) -> np.ndarray:
    """R, the jump rates for a unit of -log alpha: [K, K] in float64 on the host."""
    del size
    return np.asarray(self.matrix.rates, np.float64)

  def prior(self, keys: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Draws of the stationary law [B, *shape] int32, row i from keys[i] alone.

    Raises ValueError for a shape of another state.
    """
    check_state_shape(self, shape)
    logits = jnp.log(jnp.asarray(self.stationary, jnp.float32))
    draw = lambda key: jax.random.categorical(key, logits, shape=self.shape, mode="high")
    return jax.vmap(draw)(keys).astype(jnp.int32)

  def noise(self, keys: jax.Array, x0: jax.Array) -> jax.Array:
    """Uniform numbers in [0, 1) like x0: [B, ...], row i from keys[i] alone."""
    return jax.vmap(lambda key: jax.random.uniform(key, x0.shape[1:], jnp.float32))(keys)

  def corrupt(self, x0: jax.Array, noise: jax.Array, t: jax.Array, x1: None = None) -> jax.Array:
    """x_t [B, ...] int given x_0 and the noise; t [B]."""
    del x1
    return drawn_from_rows(self.transition(None, t), x0, noise)

  def sources(self, x: jax.Array) -> jax.Array:
    """Every state, for the chain leads from each to each: bool, [B, ..., K]."""
    return jnp.broadcast_to(each_value(self, x) >= 0, (*x.shape, self.num_states))


def drawn_from_rows(matrix: jax.Array, x: jax.Array, uniform: jax.Array) -> jax.Array:
  """Draws of row x of a transition matrix, by the inverse of its distribution function.

  matrix is [B, S, S], x and the uniform numbers are [B, ...].
  """
  below = jax.vmap(lambda own, states: own[states])(jnp.cumsum(matrix, axis=-1), x)
  uniform = uniform.astype(below.dtype)[..., None]
  drawn = jnp.sum(below <= uniform * below[..., -1:], axis=-1, dtype=x.dtype)
  return jnp.minimum(drawn, jnp.asarray(matrix.shape[-1] - 1, x.dtype))


def rate_matrix(
  rates: Any,
  shape: tuple[int, ...],
  *,
  schedule: KeepSchedule | None = None,
  t_min: float = 0.01,
  t_max: float = 1.0,
) -> RateMatrix:
  """Noise that jumps at any rates along a graph: a Markov chain in continuous time.

  Each coordinate has the jump rates -alpha'/alpha R, so that q(x_t | x_s) is exp(R (sigma_t - sigma_s)) with
  sigma = -log alpha (arXiv:2205.14987, section 4.2), and ends in the law that the jumps keep. Neighbours in
  the graph are what noise confuses first.

  Args:
    rates: R [K, K], of jumps from row to column, such as `walk_rates(neighbourhoods.cycle(8))`: none negative
      off the diagonal, rows sum to zero.
    shape: of a state.
    schedule: of alpha, `linear_keep()` by default, under which all is forgotten at t = 1.
    t_min, t_max: the interval of times.

  Raises ValueError for rates that are none, a state that no rate leaves, a graph that is not connected.

  >>> from diffusion.processes import neighbourhoods
  >>> process = rate_matrix(walk_rates(neighbourhoods.grid(3, (1, -1), wrap=False)), (2,))
  >>> process.transition(0.0, 0.5).round(3).tolist()                     # of a walk on the line 0 - 1 - 2
  [[0.604, 0.292, 0.104], [0.292, 0.417, 0.292], [0.104, 0.292, 0.604]]
  """
  matrix = jump_matrix(rates, "rate_matrix")
  if not shape or min(shape) < 1:
    raise ValueError(f"rate_matrix takes the shape of a state, such as (64,), got {tuple(shape)}")
  check_interval(t_min, t_max, "rate_matrix")
  schedule = linear_keep() if schedule is None else schedule
  return RateMatrix(t_min, t_max, schedule, matrix, len(matrix.rates), tuple(shape))


def walk_rates(neighbourhood: Any) -> np.ndarray:
  """The rates [K, K] of a walk that takes each move of a neighbourhood at the rate one.

  Args:
    neighbourhood: of `processes.neighbourhoods`, whose coordinates all have the same moves.

  Raises ValueError for coordinates that move differently.

  >>> from diffusion.processes import neighbourhoods
  >>> walk_rates(neighbourhoods.cycle(3)).tolist()
  [[-1.0, 1.0, 0.0], [0.0, -1.0, 1.0], [1.0, 0.0, -1.0]]
  """
  target, place = np.asarray(neighbourhood.target), np.asarray(neighbourhood.coordinate)
  tables = [target[place == d] for d in range(len(neighbourhood.sizes))]
  size = neighbourhood.sizes[0]
  if any(own.shape != tables[0].shape or np.any(own != tables[0]) for own in tables[1:]):
    raise ValueError(
      f"walk_rates gives one matrix for all coordinates, and those of the {neighbourhood.name} move "
      "differently: give the neighbourhood of one coordinate"
    )
  rates = np.zeros((size, size))
  for row in tables[0][:, :size]:
    there = row >= 0
    np.add.at(rates, (np.flatnonzero(there), row[there]), 1.0)
  return rates - np.diag(rates.sum(axis=1))
