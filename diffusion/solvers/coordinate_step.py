"""Steps of whole numbers in which each coordinate jumps on its own, with probabilities that can be listed."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from diffusion.solvers import randomness
from diffusion.solvers.about import About
from diffusion.solvers.contract import OnGrid, PostStep, finished, row_at

STATE = 0  # purpose of a step's keys
LARGEST = 1e30  # of a rate: those of noise that forgets all at t_max have no bound there


@struct.dataclass
class CoordinateStep(OnGrid):
  """The base of such solvers: a subclass says by `chances` where each coordinate goes.

  Attributes:
    t: [..., N+1] times, [...] () or [B].
    process: what x belongs to.
    about: name, order and process.
    asks: views that are asked for.
    to_data: whether the last step leads to the data at t = 0, and is that of the posterior.
  """

  t: Any
  process: Any
  about: About = struct.field(pytree_node=False)
  asks: tuple[str, ...] = struct.field(pytree_node=False)
  to_data: bool = struct.field(pytree_node=False)

  stochastic: ClassVar[bool] = True
  acts_on: ClassVar[type] = np.integer

  @property
  def views(self) -> tuple[str, ...]:
    """What is asked of the denoiser."""
    return self.asks

  def begin(self, x: jax.Array, keys: jax.Array | None) -> Any:
    """x: [B, ...] whole numbers. Raises ValueError for states of another shape than the process's."""
    del keys
    check_states(self.name, self.process, x)
    return x

  def ask(self, state: Any, i: Any) -> tuple[jax.Array, jax.Array, tuple[str, ...]]:
    """x at node i."""
    x = self.end(state)
    return x, self.time(i, x), self.views

  def chances(self, state: Any, i: Any, prediction: Any) -> jax.Array:
    """The law of each coordinate after step i: [B, ..., S], sums to one."""
    raise TypeError(f"{type(self).__name__} does not say where coordinates go: write `chances`")

  def drawn(self, state: Any, i: Any, prediction: Any, keys: jax.Array) -> jax.Array:
    """A draw of the chances: [B, ...] like x, row b from keys[b] alone."""
    chances = self.chances(state, i, prediction)
    log_p = jnp.where(chances > 0, jnp.log(jnp.where(chances > 0, chances, 1.0)), -jnp.inf)
    draw = lambda key, log_p: jax.random.categorical(key, log_p, mode="high")
    return jax.vmap(draw)(randomness.fold(keys, i + 1, STATE), log_p).astype(self.end(state).dtype)

  def tell(
    self, state: Any, i: Any, prediction: Any, keys: jax.Array, post_step: PostStep | None = None
  ) -> Any:
    """Every coordinate is drawn from its chances, independently."""
    x = self.drawn(state, i, prediction, keys)
    return finished(post_step, x, self.time(i + 1, x), keys, i + 1, prediction)

  def end(self, state: Any) -> jax.Array:
    """The newest x: [B, ...]."""
    return state

  def length(self, i: Any, x: jax.Array) -> jax.Array:
    """t_i - t_i+1 of step i (traced), to multiply [B, ..., S]."""
    now, then = row_at(self.t, i, 0, jnp.float32), row_at(self.t, i + 1, 0, jnp.float32)
    return jnp.broadcast_to(now - then, x.shape[:1]).reshape((-1,) + (1,) * x.ndim)

  def at_data(self, i: Any, chances: jax.Array, prediction: Any) -> jax.Array:
    """The chances, and those of the posterior of the data where step i is the last and leads there."""
    if not self.to_data:
      return chances
    more = chances.shape[-1] - prediction.probabilities.shape[-1]
    clean = jnp.pad(
      prediction.probabilities.astype(chances.dtype), [(0, 0)] * (chances.ndim - 1) + [(0, more)]
    )
    return jnp.where(jnp.asarray(i) == self.num_steps - 1, clean, chances)

  def __str__(self) -> str:
    claim = "no order claimed" if self.order is None else f"order {self.order}"
    return f"{self.name}: {claim}, {self.cost} evaluations, asks for {' and '.join(self.views)}"


def bounded(rates: jax.Array) -> jax.Array:
  """Rates as they are in float32, without what is not finite: none is above `LARGEST`."""
  rates = rates.astype(jnp.float32)
  return jnp.where(jnp.isnan(rates), 0.0, jnp.clip(rates, 0.0, LARGEST))


def check_states(name: str, process: Any, x: jax.Array) -> None:
  """Raises ValueError unless x: [B, *process.shape]."""
  if x.shape[1:] != tuple(process.shape):
    raise ValueError(
      f"{name} was built for states of shape {tuple(process.shape)}, got {tuple(x.shape[1:])}: build it with "
      "the process of these states"
    )


def discrete_grid(name: str, process: Any, grid: Any, dtype: Any, needs: str) -> tuple[np.ndarray, bool]:
  """(times, whether they end in the data at t = 0) of a solver of a discrete process.

  Args:
    name: of the solver.
    process: which has what the solver needs.
    grid: [N+1] or [B, N+1] decreasing times.
    dtype: of the times.
    needs: 'jumps' for jump rates, 'markov' for a posterior at earlier times.

  Raises ValueError for another process, or times that do not decrease.
  """
  if (
    process.kind != "discrete"
    or not {"jumps": lambda: process.jumps, "markov": lambda: process.markov}[needs]()
  ):
    what = {"jumps": "jump rates", "markov": "a posterior at earlier times"}[needs]
    raise ValueError(
      f"{name} follows {what}, and '{process.name}' has none: it needs a discrete process such as "
      "processes.uniform_resample or processes.masked"
    )
  t = np.asarray(grid, dtype)
  if t.ndim not in (1, 2) or t.shape[-1] < 2 or not np.all(np.diff(t, axis=-1) < 0) or np.any(t < 0):
    raise ValueError(
      "a grid is [N+1] or [B, N+1] times that strictly decrease to 0 or above, N at least 1, got "
      f"{t.tolist()}"
    )
  ends = np.asarray(t[..., -1])
  if np.any(ends == 0) and not np.all(ends == 0):
    raise ValueError("the grids of a batch all end in the data at t = 0, or none does: end them alike")
  return t, bool(np.all(ends == 0))
