"""Laws of tokens whose states can be listed, and how far samples of masked samplers are from them.

A measurement is a function (config, seed) -> {metric: value}.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from scipy.special import gammaln

from diffusion import oracles, processes, solvers
from diffusion.denoisers import Prediction
from diffusion.denoisers.contract import WithoutParameters


def joint() -> np.ndarray:
  """Five tokens of three letters, far from independent: [3] * 5."""
  law = np.exp(1.5 * np.random.default_rng(5).normal(size=(3,) * 5))
  return law / law.sum()


def hidden_markov() -> np.ndarray:
  """Eight tokens of two letters from a hidden chain of three states: [2] * 8."""
  start = np.array([0.5, 0.3, 0.2])
  move = np.array([[0.85, 0.1, 0.05], [0.1, 0.8, 0.1], [0.05, 0.15, 0.8]])
  emit = np.array([[0.95, 0.05], [0.5, 0.5], [0.08, 0.92]])
  message = start[:, None] * emit
  for _ in range(7):
    message = np.einsum("h...,hg,gk->g...k", message, move, emit)
  return message.sum(axis=0)


LAWS = {"joint_5x3": joint, "hidden_markov_8": hidden_markov}


@struct.dataclass
class Listed(WithoutParameters):
  """A posterior looked up: table [S, D, K] over the S = (K + 1)^D states of D tokens of K letters."""

  table: Any
  process: Any

  views = ("logits",)

  def __call__(self, x, t, cond=None, *, views=("logits",), key=None, train=False):
    base = (self.process.num_values + 1) ** np.arange(x.shape[1])[::-1]
    return Prediction(logits=self.table[jnp.sum(x * jnp.asarray(base, x.dtype)[None], axis=1)])


def posterior(law: np.ndarray) -> Listed:
  """The exact denoiser of a law [K] * D under masking, as a table."""
  size, values = law.ndim, law.shape[0] + 1
  process = processes.masked(law.shape[0], (size,), t_min=0.0)
  oracle = oracles.masked_categorical(process, law, dtype=np.float32)
  states = np.stack(np.unravel_index(np.arange(values**size), (values,) * size), axis=1).astype(np.int32)
  return Listed(jax.jit(lambda x: oracle.logits(x, jnp.full(len(x), 0.5)))(states), process)


@functools.partial(jax.jit, static_argnames="count")
def draws(denoiser: Any, solver: Any, key: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
  """Samples from all masks [count, D], and the network calls of each [count]."""
  keys = jax.random.split(key, count)
  x = jnp.full((count, *denoiser.process.shape), denoiser.process.mask, jnp.int32)
  return solvers.sample(denoiser, solver, x, keys=keys, evaluations=True)


def total_variation(samples: Any, law: np.ndarray) -> float:
  """Half the sum of |frequency - probability| over all states, of samples [n, D]."""
  flat = np.ravel_multi_index(tuple(np.asarray(samples).T), law.shape)
  frequencies = np.bincount(flat, minlength=law.size) / len(flat)
  return 0.5 * float(np.abs(frequencies - law.ravel()).sum())


def floor(law: np.ndarray, count: int) -> float:
  """The mean total variation of `count` exact draws.

  Each frequency is binomial, whose mean absolute deviation is De Moivre's: with m = floor(n p) + 1 it is
  2 m C(n, m) p^m (1 - p)^(n - m + 1).
  """
  p = law.ravel()
  p = p[(p > 0) & (p < 1)]
  m = np.floor(count * p) + 1
  choose = gammaln(count + 1) - gammaln(m + 1) - gammaln(count - m + 1)
  deviation = 2 * m * np.exp(choose + m * np.log(p) + (count - m + 1) * np.log1p(-p))
  return 0.5 * float(deviation.sum()) / count


def measure(config: Any, seed: int) -> dict[str, float]:
  """First-hitting and remasking beside ancestral steps: total variation, and calls."""
  law = LAWS[config.law]()
  denoiser, least, size = posterior(law), floor(law, config.count), law.ndim
  process = denoiser.process

  def distance(solver):
    return total_variation(draws(denoiser, solver, jax.random.key(seed), config.count)[0], law)

  found = {"first_hitting_over_floor": distance(solvers.first_hitting(process)) / least}
  ancestral = {}
  for times in config.multiples:
    n = times * size
    ancestral[n] = distance(solvers.masked_ancestral(process, process.default_grid(n)))
    if ancestral[n] <= config.equal * least:
      break
  enough = [n for n, value in ancestral.items() if value <= config.equal * least]
  # Where none of them is near enough, the most that were tried are too few, and the ratio is at most this.
  found["calls_over_ancestral"] = size / (enough[0] if enough else max(ancestral))
  n = config.multiples[1] * size
  again = distance(solvers.remasking(process, process.default_grid(n), rescale=config.rescale))
  found["remasking_over_ancestral"] = again / ancestral[n]
  return found
