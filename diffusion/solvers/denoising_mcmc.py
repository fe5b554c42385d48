"""Denoising Langevin-Gibbs: a Markov chain over data and their noise level, which leaves a solver little to
do."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffusion.processes import expand
from diffusion.solvers import randomness


class ChainStarts(NamedTuple):
  """States to run a solver from, each from its own time.

  Attributes:
    x: [R, B, ...] states of R rounds of B chains.
    t: [R, B] their times: a grid for each, for example
      `np.stack([grids.karras(process, 3, t_max=t, clean=True) for t in np.ravel(starts.t)])`.
    nfe: denoiser calls of each state, the moves of its round.
  """

  x: Any
  t: Any
  nfe: int


def denoising_mcmc(
  denoiser,
  x,
  t,
  levels,
  level_logits,
  *,
  keys,
  rounds,
  moves=5,
  step=0.2,
  burn_in=0,
  clip=None,
  draw=True,
  cond=None,
) -> ChainStarts:
  """Gibbs moves on p(x, sigma), of which each round keeps its least noisy state (arXiv:2209.14593, algorithms
  1 and 2).

  In v = x / alpha with noise rho = sigma / alpha, so for every Gaussian process:

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
  >>> starts = denoising_mcmc(oracle, jnp.ones((8, 2)), jnp.full(8, 0.5), levels, level_posterior(oracle, levels), keys=keys, rounds=3)
  >>> starts.x.shape, starts.nfe, bool(starts.t.max() <= 5.0)
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
  clip = np.inf if clip is None else clip
  run = functools.partial(_chain, rounds=int(rounds), moves=int(moves), burn_in=int(burn_in), draw=bool(draw))
  out, times = run(denoiser, x, t, levels.astype(x.dtype), level_logits, keys, step, clip, cond)
  if not isinstance(out, jax.core.Tracer) and not bool(jnp.isfinite(out).all()):
    raise ValueError(f"a chain has left the numbers: take a smaller step than {step} or a clip of the score")
  return ChainStarts(out, times, int(moves))


@functools.partial(jax.jit, static_argnames=("rounds", "moves", "burn_in", "draw"))
def _chain(denoiser, x, t, levels, level_logits, keys, step, clip, cond, *, rounds, moves, burn_in, draw):
  process, dtype = denoiser.process, x.dtype
  step, clip = jnp.asarray(step, dtype), jnp.asarray(clip, dtype)
  alpha = lambda t: expand(process.marginal(t).alpha, x)

  def move(carry, i):
    v, t, best_v, best_t = carry
    score = alpha(t) * denoiser(alpha(t) * v, t, cond, views=("score",)).score.astype(dtype)
    v = v + step / 2 * jnp.clip(score, -clip, clip) + jnp.sqrt(step) * randomness.normal(keys, i, 0, v)
    logits = level_logits(v)
    if draw:
      chosen = jax.vmap(jax.random.categorical)(randomness.fold(keys, i, 1), logits)
    else:
      chosen = jnp.argmax(logits, axis=-1)
    t = jnp.asarray(levels)[chosen]
    better = t < best_t
    return (v, t, jnp.where(expand(better, v), v, best_v), jnp.where(better, t, best_t)), None

  def a_round(carry, r):
    v, t = carry
    start = (v, t, v, t + jnp.inf)
    (v, t, best_v, best_t), _ = jax.lax.scan(move, start, r * moves + jnp.arange(moves))
    return (v, t), (alpha(best_t) * best_v, best_t)

  _, (states, times) = jax.lax.scan(a_round, (x / alpha(t), t.astype(dtype)), jnp.arange(burn_in + rounds))
  return states[burn_in:], times[burn_in:]


def level_posterior(oracle, levels, log_prior=None) -> Callable[[Any], Any]:
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
