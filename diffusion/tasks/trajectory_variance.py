"""Samples that a model makes up: the variance of what it predicts at the end of their trajectory."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from diffusion.math.precision import at_least_single
from diffusion.solvers.contract import Around, PostStep, Solver, both


class Watched(NamedTuple):
  """Samples, and the variance of the predicted x0 along their trajectories.

  x: [B, ...] samples; variance: [B] of the predicted x0 over the last evaluations, averaged over the
  dimensions.
  """

  x: jax.Array
  variance: jax.Array


class State(NamedTuple):
  """The solver's own state, and the mean and summed squared deviation [B, ...] of x0 so far."""

  inner: Any
  mean: jax.Array
  deviation: jax.Array


@struct.dataclass
class Watching(Around):
  """A solver that also returns the variance of x0 over its last evaluations.

  Their number is data; see `watched`.
  """

  inner: Any
  last: Any

  @property
  def views(self) -> tuple[str, ...]:
    """The solver's own, and x0."""
    return both(self.inner.views, ("x0",))

  def begin(self, x: jax.Array, keys: jax.Array | None) -> State:
    """The solver's state, with no moments yet."""
    nothing = jnp.zeros_like(x, at_least_single(x.dtype))
    return State(self.inner.begin(x, keys), nothing, nothing)

  def ask(self, state: State, i: Any) -> tuple[jax.Array, jax.Array, tuple[str, ...]]:
    """Where the solver evaluates."""
    x, t, _ = self.inner.ask(state.inner, i)
    return x, t, self.views

  def tell(
    self, state: State, i: Any, prediction: Any, keys: jax.Array | None, post_step: PostStep | None = None
  ) -> State:
    """The solver's next state, and the moments with this x0.

    They lose no digits to a mean that is larger than the spread.
    """
    inner = self.inner.tell(state.inner, i, prediction, keys, post_step)
    x0 = prediction.x0.astype(state.mean.dtype)
    seen = i - (self.num_steps - self.last)
    gap = x0 - state.mean
    mean = state.mean + gap / jnp.maximum(seen + 1, 1).astype(x0.dtype)
    counts = lambda new, old: jnp.where(seen >= 0, new, old)
    return State(
      inner, counts(mean, state.mean), counts(state.deviation + gap * (x0 - mean), state.deviation)
    )

  def end(self, state: State) -> Watched:
    """`Watched`."""
    rows = state.deviation.reshape(state.deviation.shape[0], -1)
    return Watched(self.inner.end(state.inner), jnp.mean(rows, axis=1) / self.last)


def watched(solver: Solver, last: int = 10) -> Watching:
  """A solver whose samples come with the variance of the predicted x0.

  It is that over the solver's last evaluations (arXiv:2406.09358).

  A smooth network joins separate modes by a steep slope; a sample that ends on it is none of the data, and
  its prediction goes back and forth until the end, while those that end in a mode have long settled. What
  counts is which noise levels the last evaluations cover: from about the width of a mode downwards, and no
  earlier.

  Args:
    solver: a `Table` or another solver of fixed steps, of 2 or more evaluations.
    last: how many evaluations, from 2 to all of them.

  Returns:
    A solver of the same number of evaluations; `solvers.sample` returns `Watched` with it, and keeps no
    trajectory.

  Raises:
    TypeError: a solver that chooses its own steps.
    ValueError: fewer than two evaluations, or more than there are.

  >>> from diffusion import oracles, processes, solvers
  >>> process = processes.edm()
  >>> data = oracles.gaussian_mixture(process, None, [[-1.0], [1.0]], 1e-4)
  >>> solver = watched(solvers.build("heun", process, 8), 3)
  >>> found = solvers.sample(data, solver, process.prior(jax.random.split(jax.random.key(0), 4), (1,)))
  >>> found.x.shape, bool((found.variance < 1e-3).all())
  ((4, 1), True)
  """
  if solver.loop != "scan":
    raise TypeError(
      f"the variance along a trajectory is taken at the evaluations of a solver of fixed steps, and "
      f"{solver.name} chooses its own: use solvers.build with a number of steps"
    )
  if not 2 <= last <= solver.num_steps:
    raise ValueError(
      f"last={last}: a variance takes from 2 of the solver's evaluations to all {solver.num_steps} of them"
    )
  return Watching(solver, int(last))
