"""The exact law of what a solver of masked tokens draws, by listing all its states.

A kernel is the matrix [S, S] of one step over the S = (K + 1)^D states of D tokens of K letters and the mask,
written down from the paper and not from the solver's code.
"""

import functools
import itertools
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np


class Chain:
  """The states of a case, their posteriors, and kernels on them."""

  def __init__(self, case):
    self.law, self.values, self.size = case.law, case.process.num_values, case.size
    self.states = np.array(list(itertools.product(range(self.values + 1), repeat=self.size)))
    self.masked = self.states == self.values  # [S, D]
    found = jax.jit(lambda x: case.denoiser(x, jnp.full(len(x), 0.5), views=("probabilities",)).probabilities)
    posterior = np.asarray(found(jnp.asarray(self.states, jnp.int32)), np.float64)
    self.posterior = posterior / posterior.sum(-1, keepdims=True)  # [S, D, K]
    self.stay = np.eye(self.values + 1)[self.states]  # [S, D, K + 1]
    self.unmasked = np.concatenate([self.posterior, np.zeros((*self.masked.shape, 1))], axis=2)
    self.hidden = np.broadcast_to(np.eye(self.values + 1)[-1], self.stay.shape)

  def product(self, each):
    """The kernel under which coordinates move independently, each by its row of each: [S, D, K + 1]."""
    whole = each[:, 0]
    for d in range(1, self.size):
      whole = (whole[:, :, None] * each[:, d][:, None, :]).reshape(len(whole), -1)
    return whole

  def jumps(self, unmask, remask=0.0):
    """Each mask becomes a value with one probability, each value a mask with another."""
    of_mask = unmask * self.unmasked + (1 - unmask) * self.stay
    of_value = remask * self.hidden + (1 - remask) * self.stay
    return self.product(np.where(self.masked[..., None], of_mask, of_value))

  def places(self, chosen):
    """The masks at chosen [S, D] become values of the posterior, the others stay."""
    return self.product(np.where((chosen & self.masked)[..., None], self.unmasked, self.stay))

  def random_places(self, count):
    """So many masks, all if there are fewer, at places uniform among them."""
    masks = self.masked.sum(axis=1)
    total = self.places(np.ones_like(self.masked)) * (masks <= count)[:, None]
    for subset in itertools.combinations(range(self.size), count):
      fits = self.masked[:, subset].all(axis=1) & (masks > count)
      ways = np.array([len(list(itertools.combinations(range(m), count))) for m in masks])
      chosen = np.zeros_like(self.masked)
      chosen[:, subset] = True
      total += np.where(fits, 1.0 / np.maximum(ways, 1), 0.0)[:, None] * self.places(chosen)
    return total

  def kept_places(self, count):
    """So many coordinates, uniform among all, have values after the step, and the others are masked."""
    subsets = list(itertools.combinations(range(self.size), count))
    total = 0.0
    for subset in subsets:
      kept = np.zeros_like(self.masked)
      kept[:, subset] = True
      moved = np.where(self.masked[..., None], self.unmasked, self.stay)
      total = total + self.product(np.where(kept[..., None], moved, self.hidden)) / len(subsets)
    return total

  def surest_draw(self):
    """The mask whose drawn value was the most probable becomes that value."""
    draws = np.array(list(itertools.product(range(self.values), repeat=self.size)))  # [V, D]
    of_draw = np.stack([self.posterior[:, d][:, draws[:, d]] for d in range(self.size)], axis=2)  # [S, V, D]
    weight = np.prod(of_draw, axis=2)
    place = np.argmax(np.where(self.masked[:, None, :], of_draw, -1.0), axis=2)  # [S, V]
    base = (self.values + 1) ** np.arange(self.size)[::-1]
    rows = np.arange(len(self.states))[:, None]
    value = np.take_along_axis(np.broadcast_to(draws[None], of_draw.shape), place[..., None], 2)[..., 0]
    moved = rows + (value - self.values) * base[place]
    kernel = np.zeros((len(self.states),) * 2)
    np.add.at(kernel, (np.broadcast_to(rows, moved.shape), moved), weight)
    done = ~self.masked.any(axis=1)
    kernel[done] = np.eye(len(self.states))[done]
    return kernel

  def entropies(self):
    """Of the posterior at each place, in nats: [S, D]."""
    return -np.sum(self.posterior * np.log(np.where(self.posterior > 0, self.posterior, 1.0)), axis=2)

  def within_bound(self, bound):
    """The places, [S, D] bool, of the lowest entropies, whose sum less the largest is within the bound."""
    entropies = np.where(self.masked, self.entropies(), np.inf)
    order = np.argsort(entropies, axis=1)
    ascending = np.take_along_axis(entropies, order, axis=1)
    known = np.where(np.isfinite(ascending), ascending, 0.0)
    before = np.cumsum(known, axis=1) - known
    chosen = np.zeros_like(self.masked)
    np.put_along_axis(chosen, order, np.where(np.isfinite(ascending), before, np.inf) <= bound, axis=1)
    return chosen

  def run(self, kernels: Iterable[np.ndarray]):
    """The law [K] * D after these steps from all masks; refuses one that leaves masks."""
    now = np.zeros(len(self.states))
    now[-1] = 1.0
    for kernel in kernels:
      now = now @ kernel
    table = now.reshape((self.values + 1,) * self.size)
    out = table[(slice(0, self.values),) * self.size]
    assert abs(out.sum() - 1) < 1e-6, "the last step leaves masks"
    return out

  def distance(self, law):
    """Total variation of a law from the data."""
    return 0.5 * float(np.abs(law - self.law).sum())


@functools.cache
def chain(case) -> Chain:
  """The chain of a case, made once."""
  return Chain(case())
