"""Samples that a model makes up: the variance of what it predicts at the end of their trajectory."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from diffusion.precision import at_least_single
from diffusion.processes.base import Number
from diffusion.solvers.table import Table, row_at
from diffusion.tasks.replacement import PostStep


class Watched(NamedTuple):
  """x: [B, ...] samples; variance: [B] of the predicted x0 over the last evaluations, averaged over the
  dimensions."""

  x: jax.Array
  variance: jax.Array


class State(NamedTuple):
  """The table's own state, and the mean and summed squared deviation [B, ...] of x0 so far."""

  inner: Any
  mean: jax.Array
  deviation: jax.Array


@struct.dataclass
class Watching:
  """A table that also returns the variance of x0 over its last evaluations, whose number is data; see
  `watched`."""

  table: Table
  last: Number

  @property
  def num_steps(self) -> int:
    return self.table.num_steps

  @property
  def nfe(self) -> int:
    return self.table.nfe

  @property
  def stochastic(self) -> bool:
    return self.table.stochastic

  @property
  def name(self) -> str:
    return self.table.name

  def init(
    self, denoiser: Any, x: jax.Array, keys: jax.Array | None, cond: Mapping[str, jax.Array] | None = None
  ) -> State:
    nothing = jnp.zeros_like(x, at_least_single(x.dtype))
    return State(self.table.init(denoiser, x, keys, cond), nothing, nothing)

  def step(
    self,
    denoiser: Any,
    state: State,
    i: int | jax.Array,
    keys: jax.Array | None,
    cond: Mapping[str, jax.Array] | None = None,
    post_step: PostStep | None = None,
  ) -> State:
    """Row i: one denoiser call, which the table and the variance share."""
    x = state.inner.x
    t = jnp.broadcast_to(row_at(self.table.t, i, 0, x.dtype), x.shape[:1])
    found = denoiser(x, t, cond, views=tuple(dict.fromkeys((self.table.view, "x0"))))
    inner = self.table.step(lambda x, t, cond, views: found, state.inner, i, keys, cond, post_step)
    # Running moments, which lose no digits to a mean that is larger than the spread.
    x0 = found.x0.astype(state.mean.dtype)
    seen = i - (self.num_steps - self.last)
    gap = x0 - state.mean
    mean = state.mean + gap / jnp.maximum(seen + 1, 1).astype(x0.dtype)
    counts = lambda new, old: jnp.where(seen >= 0, new, old)
    return State(
      inner, counts(mean, state.mean), counts(state.deviation + gap * (x0 - mean), state.deviation)
    )

  def output(self, state: State) -> Watched:
    """`Watched`."""
    rows = state.deviation.reshape(state.deviation.shape[0], -1)
    return Watched(self.table.output(state.inner), jnp.mean(rows, axis=1) / self.last)


def watched(solver: Table, last: int = 10) -> Watching:
  """A table whose samples come with the variance of the predicted x0 over its last evaluations
  (arXiv:2406.09358).

  A smooth network joins separate modes by a steep slope; a sample that ends on it is none of the data, and
  its prediction goes back and forth until the end, while those that end in a mode have long settled. What
  counts is which noise levels the last evaluations cover: from about the width of a mode downwards, and no
  earlier.

  Args:
    solver: a `Table` of 2 or more rows.
    last: how many evaluations, from 2 to all of them.

  Returns:
    A solver of the same number of evaluations; `solvers.sample` returns `Watched` with it, and keeps no
    trajectory.

  Raises:
    TypeError: a solver that is no table.
    ValueError: fewer than two evaluations, or more than there are.

  >>> import jax
  >>> from diffusion import oracles, processes, solvers
  >>> process = processes.edm()
  >>> data = oracles.gaussian_mixture(process, None, [[-1.0], [1.0]], 1e-4)
  >>> solver = watched(solvers.build("heun", process, 8), 3)
  >>> found = solvers.sample(data, solver, process.sample_prior(jax.random.key(0), (4, 1)))
  >>> found.x.shape, bool((found.variance < 1e-3).all())
  ((4, 1), True)
  """
  if not isinstance(solver, Table):
    raise TypeError(
      f"the variance along a trajectory is taken at the rows of a table, and {type(solver).__name__} is "
      "none: use solvers.build with any solver of fixed steps"
    )
  if not 2 <= last <= solver.num_steps:
    raise ValueError(
      f"last={last}: a variance takes from 2 of the solver's evaluations to all {solver.num_steps} of them"
    )
  return Watching(solver, int(last))
