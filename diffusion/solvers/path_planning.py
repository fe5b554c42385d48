"""Path planning: at each step a planner says which coordinates stay masked, and which are masked again."""

from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from diffusion.solvers import randomness
from diffusion.solvers.about import About
from diffusion.solvers.contract import OnGrid, PostStep, finished, row_at
from diffusion.solvers.unmasking import (
  check_confidence,
  check_grid,
  check_temperature,
  confidence,
  draw,
  is_masked,
  left,
  log_values,
  of_value,
)

CATEGORY, SCORE = 0, 1  # purposes of a step's keys
PLANNERS = ("self", "random")


@struct.dataclass
class Planned:
  """Of B samples of D coordinates.

  Attributes:
    x: [B, ...].
    given: [B, D] bool, which were not masked at the start.
    sure: [B, D] log-probability with which each value was drawn.
  """

  x: Any
  given: Any
  sure: Any


@struct.dataclass
class PathPlanning(OnGrid):
  """See `path_planning`. [...] is () or [B].

  Attributes:
    t: [..., N+1] times.
    share: [..., N] of the coordinates not given that are masked after each step.
    eta: factor of the scores of coordinates that are not masked, [] or [B].
    temperature: of the draws, [].
    mask: [] the value that stands for masked.
    planner: a pytree that can be called, or None.
    rule: 'self', 'random' or 'planner'.
    about: name, order and process.
  """

  t: Any
  share: Any
  eta: Any
  temperature: Any
  mask: Any
  planner: Any
  rule: str = struct.field(pytree_node=False)
  about: About = struct.field(pytree_node=False)

  stochastic: ClassVar[bool] = True
  views: ClassVar[tuple[str, ...]] = ("logits",)
  acts_on: ClassVar[type] = np.integer

  def begin(self, x: jax.Array, keys: jax.Array | None) -> Planned:
    """x: [B, ...] whole numbers, masked everywhere or in part; what is not masked is given, and stays."""
    del keys
    given = ~is_masked(x, self.mask)
    return Planned(x, given, jnp.zeros(given.shape, jnp.float32))

  def ask(self, state: Planned, i: Any) -> tuple[jax.Array, jax.Array, tuple[str, ...]]:
    """x at node i."""
    return state.x, self.time(i, state.x), self.views

  def tell(
    self, state: Planned, i: Any, prediction: Any, keys: jax.Array, post_step: PostStep | None = None
  ) -> Planned:
    """The coordinates of the largest scores have values, the others are masked."""
    x, masked = state.x, is_masked(state.x, self.mask)
    rows, size = masked.shape
    log_p = log_values(prediction.logits, self.mask)
    value = draw(randomness.fold(keys, i + 1, CATEGORY), log_p, self.temperature)
    whole = jnp.where(masked, value.astype(x.dtype), x.reshape(rows, size))
    sure = jnp.where(masked, of_value(log_p, value), state.sure)
    if self.rule == "planner":
      score = self.planner(whole.reshape(x.shape), x, self.time(i, x), prediction).reshape(rows, size)
    elif self.rule == "random":
      score = confidence("random", log_p, value, randomness.fold(keys, i + 1, SCORE))
    else:
      score = sure
    score = jnp.maximum(score.astype(jnp.float32), -1e30)
    eta = jnp.broadcast_to(jnp.asarray(self.eta, jnp.float32), (rows,))[:, None]
    score = jnp.where(masked, score, eta * score)
    score = jnp.where(state.given, jnp.inf, score)
    # Of equal scores those that have values keep them.
    ranks = jnp.argsort(jnp.lexsort((masked, -score), axis=-1), axis=-1)
    share = jnp.broadcast_to(row_at(self.share, i, 0, jnp.float32), (rows,))
    hidden = left(jnp.sum(~state.given, axis=1), share)
    kept = (ranks < (size - hidden)[:, None]) | state.given
    new = jnp.where(kept, whole, jnp.asarray(self.mask, x.dtype)).reshape(x.shape)
    new = finished(post_step, new, self.time(i + 1, x), keys, i + 1, prediction)
    return Planned(new, state.given, sure)

  def end(self, state: Planned) -> jax.Array:
    """The newest x: [B, ...]."""
    return state.x


def path_planning(
  process: Any,
  grid: Any,
  *,
  planner: str | Callable[..., jax.Array] = "self",
  eta: Any = 1.0,
  temperature: Any = 1.0,
  dtype: Any = np.float32,
) -> PathPlanning:
  """Path planning: values by the denoiser, their places by a planner (P2, arXiv:2502.03540, algorithm 1).

  At each step a value is drawn for each masked coordinate, and every coordinate has a score, at most 0. Those
  of the largest scores have values after the step and the others are masked, so many that the share of masks
  follows the level of the grid, rounded down. The scores of coordinates that had a value already are
  multiplied by eta: with eta = 0 none of them is masked again, and the larger eta, the more are. Coordinates
  that were given stay.

  The planners:
  - 'self': the log-probability with which the value was drawn. The denoiser of a masked process says nothing
    of values that are there, so it is that of the time when the value was drawn.
  - 'random': the log of a uniform number. With eta = 0 and one mask a step it is any-order sampling, whose
    samples have the law of the data, given the exact posterior.
  - a function (whole [B, ...], x [B, ...], t [B], prediction) -> scores [B, ...], of the state with all
    draws put in and the state before. `leave_one_out` is one.

  Args:
    process: one that ends in masks, such as `processes.masked(16, (64,))`.
    grid: [N+1] or [B, N+1] decreasing times, such as `process.default_grid(N)`.
    planner: a name or a function. A plain function is part of the program, so build it once; a
      `jax.tree_util.Partial` or another pytree has its arrays as data.
    eta: the stochasticity, 0 or more, a number or [B]. Changing it does not recompile.
    temperature: of the draws; 0 takes the most probable value.
    dtype: precision of the times.

  Returns:
    A solver of N evaluations of the view "logits", without those that a planner makes itself.

  Raises:
    ValueError: a process without masks, a grid that does not decrease, a planner that is none, eta or a
      temperature below 0.

  >>> from diffusion import processes
  >>> path_planning(processes.masked(3, (4,)), [1.0, 0.5, 0.0], eta=0.5).name
  'path_planning(self)'
  """
  t, noised = check_grid("path_planning", process, grid, dtype)
  check_temperature(temperature)
  if not np.all(np.asarray(eta) >= 0):
    raise ValueError(f"eta is at least 0 (0 masks nothing again), got {eta}")
  rule, own = ("planner", planner) if callable(planner) else (planner, None)
  if own is None:
    check_confidence(rule, PLANNERS)
  elif jax.tree_util.all_leaves([own]):
    own = jax.tree_util.Partial(own)
  share = (noised[..., 1:] / noised[..., :1]).astype(np.float32)
  about = About(f"path_planning({rule})", None, process)
  return PathPlanning(
    t, share, np.asarray(eta, np.float32), np.float32(temperature), np.int32(process.mask), own, rule, about
  )


def leave_one_out(denoiser: Any) -> Callable[..., jax.Array]:
  """A planner: log p(x_i | all others) by the denoiser itself, each coordinate masked in turn.

  It is the planner of a masked language model (arXiv:2502.03540, section 4), for a denoiser that carries over
  what is not masked. It costs D evaluations a step for D coordinates, which no count of a solver includes.

  Args:
    denoiser: of the masked process, with the view "logits".

  >>> from diffusion import oracles, processes
  >>> process, law = processes.masked(2, (2,)), np.array([[0.4, 0.1], [0.1, 0.4]])
  >>> planner = leave_one_out(oracles.masked_categorical(process, law))
  >>> planner(jnp.array([[0, 0], [0, 1]]), None, jnp.ones(2), None).round(2).tolist()
  [[-0.2..., -0.2...], [-1.6..., -1.6...]]
  """
  return jax.tree_util.Partial(_each_masked, denoiser)


def _each_masked(denoiser, whole, x, t, prediction):
  """log p of each coordinate of `whole` [B, ...] given all its others: [B, ...]."""
  del x, prediction
  rows, mask = whole.shape[0], jnp.asarray(denoiser.process.mask, whole.dtype)
  flat = whole.reshape(rows, -1)

  def one(place):
    hidden = flat.at[:, place].set(mask).reshape(whole.shape)
    log_p = log_values(denoiser(hidden, t, views=("logits",)).logits, mask)
    at = jax.lax.dynamic_index_in_dim(log_p, place, 1, keepdims=False)  # [B, K]
    value = jax.lax.dynamic_index_in_dim(flat, place, 1)  # [B, 1]
    return jnp.take_along_axis(at, value.astype(jnp.int32), axis=1)[:, 0]

  return jax.lax.map(one, jnp.arange(flat.shape[1])).T.reshape(whole.shape)
