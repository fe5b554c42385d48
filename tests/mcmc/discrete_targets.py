"""Small targets on whole numbers.

A neighbourhood, its states, their probabilities and the concrete score of these.
"""

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffusion.processes import neighbourhoods

NEIGHBOURHOODS = {
  "cycle": neighbourhoods.cycle(5),
  "grid": neighbourhoods.grid([3, 2], (1,), wrap=False),
  "wrapped": neighbourhoods.grid([3, 4], (1, -1)),
  "flips": neighbourhoods.bit_flips((2, 2)),
  "star": neighbourhoods.graph([[1, 2, 3], [0, -1, -1], [0, -1, -1], [0, 2, -1]]),
}


class Target(NamedTuple):
  """states [S, ...] int32, p [S], and the concrete score as data."""

  neighbourhood: object
  states: np.ndarray
  p: np.ndarray
  concrete: object


def numbers(x, sizes):
  """The place of states x [..., D] in the list of all."""
  return np.ravel_multi_index(np.moveaxis(np.asarray(x).reshape(-1, len(sizes)), 1, 0), sizes)


def _look_up(table, sizes, x, t, cond=None):
  del t, cond
  flat, number = x.reshape(x.shape[0], -1), 0
  for place, size in enumerate(sizes):
    number = number * size + flat[:, place]
  return table[number]


def target(name, dtype=jnp.float64, seed=0) -> Target:
  """One of `NEIGHBOURHOODS` with random probabilities; at neighbours that do not exist the model says
  nonsense."""
  of = NEIGHBOURHOODS[name]
  states = np.array(list(itertools.product(*map(range, of.sizes))), np.int32).reshape(-1, *of.shape)
  p = np.random.default_rng(seed).dirichlet(np.full(len(states), 2.0))
  y, exists = of.neighbours(jnp.asarray(states))
  y = numbers(y, of.sizes).reshape(exists.shape)
  table = jnp.asarray(np.where(exists, p[y] / p[:, None] - 1.0, 17.0), dtype)
  return Target(of, states, p, jax.tree_util.Partial(_Table(of.sizes), table))


class _Table:
  """A function of (table, x, t, cond) that is equal to another one of the same sizes."""

  def __init__(self, sizes):
    self.sizes = sizes

  def __call__(self, table, x, t, cond=None):
    return _look_up(table, self.sizes, x, t, cond)

  def __eq__(self, other):
    return isinstance(other, _Table) and other.sizes == self.sizes

  def __hash__(self):
    return hash(self.sizes)
