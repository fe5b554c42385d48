"""Langevin dynamics by Euler's rule: unadjusted (ULA), and corrected by Metropolis (MALA).

The equation is dx = score(x) dt / 2 + dw.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from diffusion.mcmc.base import fold
from diffusion.mcmc.langevin_step import accepted, choose, langevin_step, log_acceptance
from diffusion.mcmc.target import as_data, check_step_size

NOISE, ACCEPT = 0, 1  # purposes of a step's keys


@struct.dataclass
class Position:
  """The state of a chain that remembers nothing else, x: [C, ...]."""

  x: Any


@struct.dataclass
class Langevin:
  """See `langevin`."""

  score: Any
  step_size: Any

  def init(self, x: jax.Array) -> Position:
    """The chains at x: [C, ...]."""
    return Position(x)

  def step(self, state: Position, keys: jax.Array) -> tuple[Position, dict]:
    """One step of every chain; nothing to report."""
    x = state.x
    h = 0.5 * self.step_size.astype(x.dtype)
    return Position(langevin_step(x, self.score(x), noise(keys, x), h)), {}


def langevin(score: Callable[..., Any], step_size: Any) -> Langevin:
  """ULA: x <- x + step_size / 2 score(x) + sqrt(step_size) z (arXiv:2111.04726, there epsilon).

  Its stationary law is not the target's: for N(0, v) it has variance v / (1 - step_size / (4 v)), and
  diverges from step_size 4 v on.

  Args:
    score: x [C, ...] -> [C, ...]; see `at_time` for one that takes times.
    step_size: positive, data of the program.

  Raises ValueError for a step size that is not positive, TypeError for what can not be called.

  >>> from diffusion import mcmc
  >>> kernel = mcmc.langevin(lambda x: -x, 0.1)
  >>> mcmc.run(kernel, jnp.zeros((4, 2)), jax.random.key(0), 50).x.shape
  (4, 2)
  """
  return Langevin(as_data(score, "langevin"), check_step_size(step_size, "langevin"))


@struct.dataclass
class Weighed:
  """The state of a chain that is accepted or not: x [C, ...], log_prob [C], score [C, ...]."""

  x: Any
  log_prob: Any
  score: Any


@struct.dataclass
class Mala:
  """See `mala`."""

  log_prob: Any
  step_size: Any

  def init(self, x: jax.Array) -> Weighed:
    """The chains at x: [C, ...]."""
    return Weighed(x, *self._weigh(x))

  def step(self, state: Weighed, keys: jax.Array) -> tuple[Weighed, dict]:
    """One proposal of every chain; info: `accepted` [C], 0 or 1."""
    h, z = 0.5 * self.step_size.astype(state.x.dtype), noise(keys, state.x)
    proposed = langevin_step(state.x, state.score, z, h)
    new = Weighed(proposed, *self._weigh(proposed))
    gain = new.log_prob - state.log_prob
    log_ratio = log_acceptance(gain, state.x, z, new.x, new.score, h)
    taken = accepted(fold(keys, ACCEPT), log_ratio)
    return choose(taken, new, state), {"accepted": taken.astype(jnp.float32)}

  def _weigh(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(log_prob [C], its gradient [C, ...])."""
    value, pull = jax.vjp(self.log_prob, x)
    return value, pull(jnp.ones_like(value))[0]


def mala(log_prob: Callable[..., Any], step_size: Any) -> Mala:
  """MALA: Langevin steps accepted with the Metropolis-Hastings probability.

  A proposal is the step of `langevin`. With this probability the target is stationary exactly.

  Args:
    log_prob: x [C, ...] -> [C], up to a constant, differentiable.
    step_size: positive, data of the program.

  Raises ValueError for a step size that is not positive, TypeError for what can not be called.

  >>> from diffusion import mcmc
  >>> kernel = mcmc.mala(lambda x: -0.5 * jnp.sum(x**2, axis=1), 0.1)
  >>> done = mcmc.run(kernel, jnp.zeros((4, 2)), jax.random.key(0), 50)
  >>> bool(done.info["accepted"].mean() > 0.9)
  True
  """
  return Mala(as_data(log_prob, "mala"), check_step_size(step_size, "mala"))


def noise(keys: jax.Array, x: jax.Array) -> jax.Array:
  """Standard normal noise like x, row c from keys[c] alone."""
  return jax.vmap(lambda key: jax.random.normal(key, x.shape[1:], x.dtype))(fold(keys, NOISE))
