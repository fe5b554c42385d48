"""Metropolis-Hastings on whole numbers, from a concrete score (arXiv:2211.00802, algorithm 1).

It moves to neighbours and back.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from diffusion.mcmc.base import fold
from diffusion.mcmc.langevin_step import accepted, choose
from diffusion.mcmc.target import as_data

MOVE, ACCEPT = 0, 1  # purposes of a step's keys
SMALLEST = 1e-8  # of a ratio of probabilities: a model may say that one is negative


@struct.dataclass
class States:
  """Chains on whole numbers, which remember nothing else: x [C, ...]."""

  x: Any


@struct.dataclass
class Metropolis:
  """See `metropolis`."""

  concrete: Any
  neighbourhood: Any
  t: Any
  cond: Any = None

  def init(self, x: jax.Array) -> States:
    """The chains at x: [C, ...] int."""
    self.neighbourhood.flat(x)
    return States(x)

  def step(self, state: Any, keys: jax.Array) -> tuple[Any, dict]:
    """One proposal of every chain; info: `accepted` [C], 0 or 1."""
    draw = lambda key, exists: jax.random.categorical(key, jnp.where(exists, 0.0, -jnp.inf), mode="high")
    move = jax.vmap(draw)(fold(keys, MOVE), self.moves(state.x)[1])
    y, log_acceptance = self.propose(state.x, move)
    taken = accepted(fold(keys, ACCEPT), log_acceptance)
    return States(choose(taken, y, state.x)), {"accepted": taken.astype(jnp.float32)}

  def moves(self, x: jax.Array) -> tuple[jax.Array, ...]:
    """(new values [C, N + R], which exist): to the N neighbours, then to the R reverse neighbours."""
    pairs = zip(self.neighbourhood.values(x), self.neighbourhood.reverse_values(x))
    return tuple(jnp.concatenate(pair, axis=1) for pair in pairs)

  def propose(self, x: jax.Array, move: Any) -> tuple[jax.Array, jax.Array]:
    """(y [C, ...], log of the probability [C] to go there if chosen) of one move [C] int of each chain.

    A move is chosen evenly among those that exist. A neighbour's ratio is read at x; a reverse neighbour's,
    of which x is the neighbour, at y. States have different numbers of moves, and the proposal is corrected
    for it.
    """
    of, forward = self.neighbourhood, move < self.neighbourhood.num_neighbours
    slot = jnp.asarray((*range(of.num_neighbours), *of.slot), jnp.int32)[move]
    place = jnp.asarray(of.coordinate, jnp.int32)[slot]
    values = jnp.take_along_axis(self.moves(x)[0], move[:, None], axis=1)
    y = of.moved(x, place[:, None], values)[:, 0]
    spread = lambda mask: mask.reshape(-1, *[1] * (x.ndim - 1))
    c = self.concrete(jnp.where(spread(forward), x, y), jnp.broadcast_to(self.t, x.shape[:1]), self.cond)
    log_ratio = jnp.log(jnp.maximum(1.0 + jnp.take_along_axis(c, slot[:, None], axis=1)[:, 0], SMALLEST))
    log_ratio = jnp.where(forward, log_ratio, -log_ratio)
    # Between x and y there are as many moves one way as the other, so only the numbers of all moves differ.
    correction = jnp.log(of.degree(x).astype(log_ratio.dtype)) - jnp.log(of.degree(y).astype(log_ratio.dtype))
    return y, jnp.minimum(log_ratio + correction, 0.0)


def metropolis(
  concrete: Callable[..., Any], neighbourhood: Any, t: Any = 0.0, cond: Any = None
) -> Metropolis:
  """A Metropolis-Hastings kernel whose stationary law has the concrete score.

  It moves to a neighbour or a reverse neighbour, with one call of the model a step. A move changes one
  coordinate by one step, so chains cross K values in about K^2 steps: start them spread out, or let the noise
  fall (`anneal`).

  Args:
    concrete: (x [C, ...], t [C], cond) -> [C, N], as data where it is a `jax.tree_util.Partial` or a method
      of a pytree.
    neighbourhood: of `processes.neighbourhoods`, the one that the model was trained with.
    t: time of the model, data of the program; cond: its condition, a dict of [C, ...].

  Raises TypeError for what can not be called.

  >>> from diffusion import mcmc, processes
  >>> uniform = lambda x, t, cond: jnp.zeros((x.shape[0], 1))
  >>> kernel = metropolis(uniform, processes.neighbourhoods.cycle(4))
  >>> done = mcmc.run(kernel, jnp.zeros((3, 1), jnp.int32), jax.random.key(0), 50)
  >>> done.info["accepted"].tolist()
  [1.0, 1.0, 1.0]
  """
  return Metropolis(
    as_data(concrete, "metropolis"), neighbourhood, jnp.asarray(t, jnp.result_type(float)), cond
  )
