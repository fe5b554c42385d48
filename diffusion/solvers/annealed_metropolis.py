"""Annealed Metropolis sampling of whole numbers, from a concrete score or from ratios."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from diffusion.mcmc.langevin_step import accepted, choose
from diffusion.mcmc.metropolis import Metropolis
from diffusion.processes import neighbourhoods
from diffusion.processes.concrete_views import concrete_score
from diffusion.solvers import randomness
from diffusion.solvers.about import About
from diffusion.solvers.contract import OnGrid, PostStep, finished
from diffusion.solvers.coordinate_step import check_states

MOVE, ACCEPT = 0, 1  # purposes of a step's keys


@struct.dataclass
class Proposed:
  """x [B, ...] and the move [B] that is proposed next."""

  x: Any
  move: Any


@struct.dataclass
class AnnealedMetropolis(OnGrid):
  """See `annealed_metropolis`.

  Attributes:
    t: [..., N M + 1] the time of each move, and the last.
    neighbourhood: where the moves lead.
    about: name, order and process.
    asks: ('concrete_score',) or ('ratios',).
  """

  t: Any
  neighbourhood: Any
  about: About = struct.field(pytree_node=False)
  asks: tuple[str, ...] = struct.field(pytree_node=False)

  stochastic: ClassVar[bool] = True
  acts_on: ClassVar[type] = np.integer

  @property
  def views(self) -> tuple[str, ...]:
    """What is asked of the denoiser."""
    return self.asks

  def begin(self, x: jax.Array, keys: jax.Array) -> Proposed:
    """x: [B, ...] whole numbers, and a first proposal."""
    check_states(self.name, self.neighbourhood, x)
    return Proposed(x, self._move(x, keys, 0))

  def ask(self, state: Proposed, i: Any) -> tuple[jax.Array, jax.Array, tuple[str, ...]]:
    """The state whose ratios compare x and the proposal, at the time of move i."""
    x = self._read(state)
    return x, self.time(i, x), self.views

  def tell(
    self, state: Proposed, i: Any, prediction: Any, keys: jax.Array, post_step: PostStep | None = None
  ) -> Proposed:
    """The proposal is taken with its probability, and the next one chosen."""
    c = prediction[self.asks[0]]
    if self.asks == ("ratios",):
      c = concrete_score(self.neighbourhood, c, self._read(state))
    kernel = Metropolis(lambda x, t, cond: c, self.neighbourhood, 0.0)
    y, log_acceptance = kernel.propose(state.x, state.move)
    taken = accepted(randomness.fold(keys, i + 1, ACCEPT), log_acceptance)
    x = choose(taken, y, state.x)
    x = finished(post_step, x, self.time(i + 1, x), keys, i + 1, prediction)
    return Proposed(x, self._move(x, keys, i + 1))

  def end(self, state: Proposed) -> jax.Array:
    """The newest x: [B, ...]."""
    return state.x

  def _move(self, x, keys, step):
    """A move of each row, even among those that exist: [B]."""
    exists = Metropolis(None, self.neighbourhood, 0.0).moves(x)[1]
    draw = lambda key, exists: jax.random.categorical(key, jnp.where(exists, 0.0, -jnp.inf), mode="high")
    return jax.vmap(draw)(randomness.fold(keys, step, MOVE), exists)

  def _read(self, state):
    """x where a neighbour is proposed, the proposal where x is the neighbour: [B, ...]."""
    blank = lambda x, t, cond: jnp.zeros((x.shape[0], self.neighbourhood.num_neighbours))
    y, _ = Metropolis(blank, self.neighbourhood, 0.0).propose(state.x, state.move)
    return choose(state.move < self.neighbourhood.num_neighbours, state.x, y)

  def __str__(self) -> str:
    return f"{self.name}: no order claimed, {self.cost} evaluations, asks for {self.views[0]}"


def annealed_metropolis(
  process: Any,
  grid: Any,
  *,
  moves: int = 10,
  neighbourhood: Any = None,
  view: str = "ratios",
  dtype: Any = np.float32,
) -> AnnealedMetropolis:
  """Metropolis-Hastings moves at falling noise, from ratios alone (arXiv:2211.00802, algorithm 1).

  At every time of the grid but the first, M proposals of one step to a neighbour or back, each one
  evaluation, accepted by the ratio p_t(y) / p_t(x): chains of `mcmc.metropolis`, as `mcmc.anneal` runs them.
  The law is p_t's as M grows, whatever the grid; no order is claimed. Times below the process's t_min are
  taken to be t_min.

  Args:
    process: a discrete one without masks.
    grid: [N+1] or [B, N+1] decreasing times.
    moves: M at each time.
    neighbourhood: where moves lead, that of the model for a concrete score; by default one step of each
      coordinate, around.
    view: 'ratios', from which the neighbourhood's follow, or 'concrete_score'.
    dtype: precision of the times.

  Returns:
    A solver of N M evaluations of that view.

  Raises:
    ValueError: a process with masks, a grid that does not decrease, no moves, another view.

  >>> from diffusion import processes
  >>> str(annealed_metropolis(processes.uniform_resample(3, (4,)), [1.0, 0.5, 0.1], moves=5))
  'annealed_metropolis: no order claimed, 10 evaluations, asks for ratios'
  """
  if process.kind != "discrete" or process.mask is not None:
    raise ValueError(
      f"annealed_metropolis moves among values, and '{process.name}' has masks or none: it needs a discrete "
      "process such as processes.uniform_resample"
    )
  if view not in ("ratios", "concrete_score") or view not in process.views:
    raise ValueError(
      f"annealed_metropolis reads ratios or concrete_score, got {view!r}, of the views of '{process.name}': "
      f"{', '.join(process.views)}"
    )
  t = np.asarray(grid, dtype)
  if t.ndim not in (1, 2) or t.shape[-1] < 2 or not np.all(np.diff(t, axis=-1) < 0):
    raise ValueError(
      f"a grid is [N+1] or [B, N+1] times that strictly decrease, N at least 1, got {t.tolist()}"
    )
  if int(moves) != moves or moves < 1:
    raise ValueError(f"annealed_metropolis makes one or more moves at each time, got moves={moves}")
  if neighbourhood is None:
    neighbourhood = neighbourhoods.grid(np.reshape(process.value_counts(), process.shape))
  levels = np.repeat(np.maximum(t[..., 1:], dtype(process.t_min)), moves, axis=-1)
  times = np.concatenate([levels, levels[..., -1:]], axis=-1)
  return AnnealedMetropolis(times, neighbourhood, About("annealed_metropolis", None, process), (view,))
