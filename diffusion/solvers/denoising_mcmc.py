"""Denoising Langevin-Gibbs: a Markov chain over data and their noise level.

It leaves a solver little to do.
"""

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.core import Tracer

from diffusion.mcmc.langevin_step import langevin_step
from diffusion.processes import expand
from diffusion.solvers import randomness
from diffusion.solvers.about import About
from diffusion.solvers.contract import Described, PostStep, finished
from diffusion.solvers.executor import sample


class ChainStarts(NamedTuple):
  """States to run a solver from, each from its own time.

  Attributes:
    x: [R, B, ...] states of R rounds of B chains.
    t: [R, B] their times: a grid for each, for example
      `np.stack([grids.karras(process, 3, t_max=t, clean=True) for t in np.ravel(starts.t)])`.
    cost: denoiser calls of each state, the moves of its round.
  """

  x: Any
  t: Any
  cost: int


@struct.dataclass
class State:
  """The state of B chains.

  v = x / alpha [B, ...] and its time t [B]; the least noisy v and t of this round; and those of the rounds
  that are over, [R, B, ...] and [R, B].
  """

  v: Any
  t: Any
  best_v: Any
  best_t: Any
  kept_v: Any
  kept_t: Any


@struct.dataclass
class DenoisingMcmc(Described):
  """The chain as a solver of one move an evaluation, which ends in `ChainStarts`; see `denoising_mcmc`.

  Attributes:
    process: of the denoiser.
    t: [B] times where the chains start.
    levels: [L] times.
    level_logits: v [B, ...] -> [B, L].
    step, clip: of the Langevin move.
    rounds, moves, burn_in, draw: see `denoising_mcmc`.
    about: name and process.
  """

  process: Any
  t: Any
  levels: Any
  level_logits: Any
  step: Any
  clip: Any
  rounds: int = struct.field(pytree_node=False)
  moves: int = struct.field(pytree_node=False)
  burn_in: int = struct.field(pytree_node=False)
  draw: bool = struct.field(pytree_node=False)
  about: About = struct.field(pytree_node=False)

  stochastic: ClassVar[bool] = True
  views: ClassVar[tuple[str, ...]] = ("score",)

  @property
  def num_steps(self) -> int:
    """Moves of all rounds."""
    return (self.burn_in + self.rounds) * self.moves

  def begin(self, x: jax.Array, keys: jax.Array | None) -> State:
    """Chains at x: [B, ...]."""
    del keys
    t = jnp.asarray(self.t, x.dtype)
    v = x / self._alpha(t, x)
    kept = lambda leaf: jnp.zeros_like(leaf, shape=(self.rounds, *leaf.shape)) + 0 * leaf[None]
    return State(v, t, v, jnp.full_like(t, jnp.inf) + 0 * t, kept(v), kept(t))

  def ask(self, state: State, i: Any) -> tuple[jax.Array, jax.Array, tuple[str, ...]]:
    """x = alpha v at its level."""
    del i
    return self._alpha(state.t, state.v) * state.v, state.t, self.views

  def tell(
    self, state: State, i: Any, prediction: Any, keys: jax.Array, post_step: PostStep | None = None
  ) -> State:
    """A Langevin move at the level, then another level; post_step sees x before the level is drawn."""
    v, dtype = state.v, state.v.dtype
    step, clip = jnp.asarray(self.step, dtype), jnp.asarray(self.clip, dtype)
    score = jnp.clip(self._alpha(state.t, v) * prediction.score.astype(dtype), -clip, clip)
    v = langevin_step(v, score, randomness.normal(keys, i, 0, v), step / 2)
    if post_step is not None:
      alpha = self._alpha(state.t, v)
      v = finished(post_step, alpha * v, state.t, keys, i, prediction) / alpha
    logits = self.level_logits(v)
    if self.draw:
      categorical = lambda key, row: jax.random.categorical(key, row, mode="high")
      chosen = jax.vmap(categorical)(randomness.fold(keys, i, 1), logits)
    else:
      chosen = jnp.argmax(logits, axis=-1)
    t = jnp.asarray(self.levels, dtype)[chosen]
    number, move = i // self.moves, i % self.moves
    better = (t < state.best_t) | (move == 0)
    best_v, best_t = jnp.where(expand(better, v), v, state.best_v), jnp.where(better, t, state.best_t)
    # Every move of a round writes where its last one does; those to burn in write where a later round will.
    place = jnp.maximum(number - self.burn_in, 0)
    keep = lambda kept, new: jax.lax.dynamic_update_index_in_dim(kept, new, place, 0)
    return State(v, t, best_v, best_t, keep(state.kept_v, best_v), keep(state.kept_t, best_t))

  def end(self, state: State) -> ChainStarts:
    """The least noisy state of each round after those to burn in."""
    alpha = jax.vmap(self._alpha)(state.kept_t, state.kept_v)
    return ChainStarts(alpha * state.kept_v, state.kept_t, self.moves)

  def _alpha(self, t, like):
    return expand(self.process.marginal(t).alpha, like)


def denoising_mcmc(
  denoiser: Any,
  x: Any,
  t: Any,
  levels: Any,
  level_logits: Callable[..., Any],
  *,
  keys: jax.Array,
  rounds: int,
  moves: int = 5,
  step: float = 0.2,
  burn_in: int = 0,
  clip: float | None = None,
  draw: bool = True,
  cond: Any = None,
) -> ChainStarts:
  """Denoising MCMC: Gibbs moves on p(x, sigma) (arXiv:2209.14593, algorithms 1 and 2).

  Each round of moves keeps its least noisy state. In v = x / alpha with noise rho = sigma / alpha, so for
  every Gaussian process:

    v <- v + step/2 score(v, rho) + sqrt(step) z, then a level from p(level | v);

  after `moves` of them the state with the smallest level so far is a start. Mode jumps happen at high levels
  and detail is left to the solver, so few evaluations a sample are enough. Start from samples of any solver
  with some noise added.

  Args:
    denoiser: a denoiser with a process.
    x: [B, ...] states at times t.
    t: [B].
    levels: [L] times, between which states move.
    level_logits: v [B, ...] -> [B, L], log p(level | v) up to a constant: a classifier of noise levels, or
      `level_posterior`. Build it once: it is part of the program unless it is a `jax.tree_util.Partial`,
      whose arrays are data.
    keys: [B] typed keys.
    rounds: rounds that are returned.
    moves: moves of a round, which are the denoiser calls of each start.
    step: of the Langevin move, in units of v^2; 0.05 to 0.8 in the paper. Data.
    burn_in: rounds before the first that is returned.
    clip: None, or the largest score of an entry, where the step is large for the smallest levels.
    draw: whether the level is drawn, or the most probable one (as the authors' code does).
    cond: None or a dict of arrays with leading axis B.

  Returns:
    `ChainStarts`; chain b depends on x[b], t[b] and keys[b] alone.

  Raises:
    ValueError: counts below 1, a step that is not positive, levels without noise or signal, shapes that do
      not fit, a state that is not finite at the end.

  >>> from diffusion import oracles, processes
  >>> process = processes.edm()
  >>> oracle = oracles.gaussian(process, [0.5, 0.0], 0.04)
  >>> levels = np.geomspace(0.01, 5.0, 40)
  >>> keys = jax.random.split(jax.random.key(0), 8)
  >>> x, t, logits = jnp.ones((8, 2)), jnp.full(8, 0.5), level_posterior(oracle, levels)
  >>> starts = denoising_mcmc(oracle, x, t, levels, logits, keys=keys, rounds=3)
  >>> starts.x.shape, starts.cost, bool(starts.t.max() <= 5.0)
  ((3, 8, 2), 5, True)
  """
  x, t = jnp.asarray(x), jnp.asarray(t)
  levels = np.asarray(levels, np.float64)
  if min(rounds, moves) < 1 or burn_in < 0 or not step > 0 or (clip is not None and not clip > 0):
    raise ValueError(
      "the chain needs rounds and moves of at least 1, burn_in >= 0, a positive step and clip, got"
      f" rounds={rounds}, moves={moves}, burn_in={burn_in}, step={step} and clip={clip}"
    )
  rho = np.asarray(denoiser.process.marginal(levels).noise_to_signal)
  if levels.ndim != 1 or not np.all((rho > 0) & np.isfinite(rho)):
    raise ValueError(
      "levels are times [L] with both noise and signal; leave out t = 0 and times where alpha = 0"
    )
  if t.shape != x.shape[:1] or keys.shape != x.shape[:1]:
    raise ValueError(
      f"x has {x.shape[0]} rows, t the shape {t.shape} and keys {keys.shape}: give one time and one key a row"
    )
  if jax.tree_util.all_leaves([level_logits]):
    level_logits = jax.tree_util.Partial(level_logits)
  chain = DenoisingMcmc(
    process=denoiser.process,
    t=t.astype(x.dtype),
    levels=levels.astype(x.dtype),
    level_logits=level_logits,
    step=step,
    clip=np.inf if clip is None else clip,
    rounds=int(rounds),
    moves=int(moves),
    burn_in=int(burn_in),
    draw=bool(draw),
    about=About("denoising_mcmc", None, denoiser.process),
  )
  found = sample(denoiser, chain, x, keys=keys, cond=cond)
  if not isinstance(found.x, Tracer) and not bool(jnp.isfinite(found.x).all()):
    raise ValueError(f"a chain has left the numbers: take a smaller step than {step} or a clip of the score")
  return found._replace(cost=int(moves))


def level_posterior(oracle: Any, levels: Any, log_prior: Any = None) -> Callable[[Any], Any]:
  """The exact log p(level | v) of an oracle's data, up to a constant: log p_rho(v) + log prior.

  Args:
    oracle: with `log_prob(x, t)` and a process.
    levels: [L] times.
    log_prior: [L], or None for equally probable levels.

  Returns:
    v [B, ...] -> [B, L].
  """
  levels = np.asarray(levels, np.float64)
  log_prior = np.zeros(len(levels)) if log_prior is None else np.asarray(log_prior, np.float64)
  dtype = jax.dtypes.canonicalize_dtype(np.float64)
  return jax.tree_util.Partial(_posterior, oracle, jnp.asarray(levels, dtype), jnp.asarray(log_prior, dtype))


def _posterior(oracle, levels, log_prior, v):
  dim = float(np.prod(v.shape[1:]))

  def at(level, prior):
    t = jnp.full(v.shape[:1], level, v.dtype)
    alpha = oracle.process.marginal(t).alpha
    return oracle.log_prob(expand(alpha, v) * v, t) + dim * jnp.log(alpha) + prior

  return jax.vmap(at, out_axes=1)(levels.astype(v.dtype), log_prior.astype(v.dtype))
