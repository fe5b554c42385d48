"""Laws of whole numbers that can be listed in full, with their exact posteriors under masking.

What a solver of whole numbers draws is held to the law itself: `total_variation` beside `floor`, what as many
exact draws have on average, and `margin`, how far above it chance alone can take one run.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from scipy.special import gammaln

from diffusion import oracles, processes
from diffusion.denoisers.contract import Prediction, WithoutParameters, check_views


class Case(NamedTuple):
  """A law of D whole numbers of K values.

  law: [K] * D probabilities, float64. process: masked(K, (D,)). denoiser: its exact posterior.
  """

  name: str
  law: np.ndarray
  process: Any
  denoiser: Any

  @property
  def size(self) -> int:
    """D, how many tokens."""
    return self.law.ndim

  def masks(self, count: int) -> jax.Array:
    """States that are all masks: [count, D] int32."""
    return jnp.full((count, self.size), self.process.mask, jnp.int32)

  def exact(self, count: int, seed: int = 0) -> np.ndarray:
    """Exact draws [count, D], by the table."""
    flat = np.random.default_rng(seed).choice(self.law.size, count, p=self.law.ravel())
    return np.stack(np.unravel_index(flat, self.law.shape), axis=1).astype(np.int32)


@struct.dataclass
class HiddenMarkov(WithoutParameters):
  """The exact posterior of letters that a hidden Markov chain emits, by forward and backward sums.

  start: [H]; move: [H, H], rows sum to one; emit: [H, K].
  """

  start: Any
  move: Any
  emit: Any
  process: Any

  views = ("logits", "probabilities")

  def __call__(self, x, t, cond=None, *, views=("logits",), key=None, train=False):
    """logits, probabilities: [B, D, K]; x: [B, D], K where masked."""
    check_views(views, self.views)
    product = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
    of_letter = jnp.concatenate([self.emit.T, jnp.ones_like(self.emit.T[:1])])  # [K + 1, H], 1 at the mask
    seen = of_letter[x.T]  # [D, B, H]
    scaled = lambda message: message / jnp.sum(message, axis=-1, keepdims=True)

    def forward(before, seen):
      return scaled(product(before * seen, self.move)), before

    def backward(after, seen):
      return scaled(product(after * seen, self.move.T)), after

    first = jnp.broadcast_to(self.start[None], seen.shape[1:])
    _, past = jax.lax.scan(forward, first, seen)
    _, future = jax.lax.scan(backward, jnp.ones_like(first), seen, reverse=True)
    letters = scaled(product(past * future, self.emit))  # [D, B, K], of what is seen elsewhere
    found = self.process.convert("probabilities", jnp.swapaxes(letters, 0, 1), x, t, views)
    return Prediction(**found)


@functools.cache
def joint_5x3() -> Case:
  """Five tokens of three letters with a fixed random joint law, far from independent."""
  law = np.exp(1.5 * np.random.default_rng(5).normal(size=(3,) * 5))
  law /= law.sum()
  process = processes.masked(3, (5,), t_min=0.0)
  return Case("joint_5x3", law, process, oracles.masked_categorical(process, law, dtype=np.float32))


@functools.cache
def hidden_markov_8() -> Case:
  """Eight tokens of two letters from a hidden chain of three states that tends to stay where it is."""
  start = np.array([0.5, 0.3, 0.2])
  move = np.array([[0.85, 0.1, 0.05], [0.1, 0.8, 0.1], [0.05, 0.15, 0.8]])
  emit = np.array([[0.95, 0.05], [0.5, 0.5], [0.08, 0.92]])
  message = start[:, None] * emit  # [H, letters so far]
  for _ in range(7):
    message = np.einsum("h...,hg,gk->g...k", message, move, emit)
  process = processes.masked(2, (8,), t_min=0.0)
  single = lambda array: jnp.asarray(array, jnp.float32)
  return Case(
    "hidden_markov_8",
    message.sum(axis=0),
    process,
    HiddenMarkov(single(start), single(move), single(emit), process),
  )


CASES = {"joint_5x3": joint_5x3, "hidden_markov_8": hidden_markov_8}


def frequencies(samples: Any, law: np.ndarray) -> np.ndarray:
  """How often each state is among samples [n, D], shaped like the law. Refuses a mask, which is no state."""
  samples = np.asarray(samples)
  assert samples.min() >= 0 and (samples.max(axis=0) < np.array(law.shape)).all(), "not a state of the law"
  flat = np.ravel_multi_index(tuple(samples.T), law.shape)
  return np.bincount(flat, minlength=law.size).reshape(law.shape) / len(samples)


def total_variation(samples: Any, law: np.ndarray) -> float:
  """Half the sum of |frequency - probability| over all states, of samples [n, D]."""
  return 0.5 * float(np.abs(frequencies(samples, law) - law).sum())


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


def margin(count: int, chance: float = 1e-4) -> float:
  """Exact draws exceed `floor` by more with at most this chance.

  One draw changes a total variation by at most 1 / n, so that McDiarmid's inequality bounds the excess e by
  exp(-2 n e^2).
  """
  return float(np.sqrt(np.log(1 / chance) / (2 * count)))
