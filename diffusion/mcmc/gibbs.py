"""Gibbs sampling of whole numbers from a concrete score.

Each coordinate is drawn in turn from its full conditional, made of products of ratios.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from diffusion.mcmc.base import fold
from diffusion.mcmc.metropolis import SMALLEST, States
from diffusion.mcmc.target import as_data


@struct.dataclass
class Gibbs:
  """The Gibbs kernel; see `gibbs`.

  slots: [D, M] the moves of each coordinate; potentials: [U, K, M, K] of each kind of coordinate; kind: [D].
  """

  concrete: Any
  neighbourhood: Any
  t: Any
  cond: Any
  slots: Any
  potentials: Any
  kind: Any
  sizes: Any

  def init(self, x: jax.Array) -> States:
    """The chains at x: [C, ...] int."""
    self.neighbourhood.flat(x)
    return States(x)

  def step(self, state: Any, keys: jax.Array) -> tuple[Any, dict]:
    """One sweep: every coordinate once, in order.

    info: `moved` [C], the share of coordinates that changed.
    """

    def update(carry, place):
      x, moved = carry
      draw = lambda key, row: jax.random.categorical(key, row, mode="high")
      value = jax.vmap(draw)(fold(keys, place), self.log_conditional(x, place))
      y = self._set(x, place, value[:, None])[:, 0]
      changed = jnp.any((x != y).reshape(x.shape[0], -1), axis=1)
      return (y, moved + changed.astype(jnp.float32)), None

    places = jnp.arange(len(self.neighbourhood.sizes), dtype=jnp.int32)
    (x, moved), _ = jax.lax.scan(update, (state.x, jnp.zeros(state.x.shape[0], jnp.float32)), places)
    return States(x), {"moved": moved / len(self.neighbourhood.sizes)}

  def log_conditional(self, x: jax.Array, place: Any) -> jax.Array:
    """log p(x_d = k | the others), up to a constant, d = place: [C, K].

    It is -inf where the coordinate has no value k. It takes K calls of the model.
    """
    largest = self.potentials.shape[1]
    values = jnp.arange(largest, dtype=x.dtype)
    inside = values < self.sizes[place].astype(x.dtype)
    rows = self._set(x, place, jnp.broadcast_to(jnp.where(inside, values, 0)[None], (x.shape[0], largest)))
    t, cond = jax.tree.map(
      lambda leaf: jnp.repeat(leaf, largest, axis=0), (jnp.broadcast_to(self.t, x.shape[:1]), self.cond)
    )
    c = self.concrete(rows.reshape(-1, *x.shape[1:]), t, cond)[:, self.slots[place]]
    log_ratios = jnp.log(jnp.maximum(1.0 + c, SMALLEST)).reshape(x.shape[0], largest, -1)
    potential = self.potentials[self.kind[place]].astype(log_ratios.dtype)
    log_prob = jnp.einsum("vmk,ckm->cv", potential, log_ratios, precision=jax.lax.Precision.HIGHEST)
    return jnp.where(inside[None], log_prob, -jnp.inf)

  def _set(self, x, place, values):
    return self.neighbourhood.moved(x, jnp.broadcast_to(place, values.shape), values)


def gibbs(concrete: Callable[..., Any], neighbourhood: Any, t: Any = 0.0, cond: Any = None) -> Gibbs:
  """A kernel that draws every coordinate in turn from its law given the others.

  Along a coordinate, log p is the sum of log ratios from value to value. Where several ways lead to a value,
  as around a circle, a model's ways differ a little: the values of log p are those that fit all ratios best,
  in least squares, with the same weight for each; on a line these are the cumulative sums, and around a
  circle these with what is left over spread evenly.

  A coordinate costs as many calls of the model as it has values, all at once.

  Args:
    concrete: (x [C, ...], t [C], cond) -> [C, N], as data where it is a `jax.tree_util.Partial` or a method
      of a pytree.
    neighbourhood: of `processes.neighbourhoods`, the one that the model was trained with.
    t: time of the model, data of the program; cond: its condition, a dict of [C, ...].

  Raises TypeError for what can not be called.

  >>> from diffusion import mcmc, processes
  >>> concrete = lambda x, t, cond: jnp.where(x == 0, 2.0, -2.0 / 3.0)            # p = (1/4, 3/4)
  >>> kernel = gibbs(concrete, processes.neighbourhoods.bit_flips(1))
  >>> print(np.exp(jax.nn.log_softmax(kernel.log_conditional(jnp.zeros((1, 1), jnp.int32), 0))).round(3))
  [[0.25 0.75]]
  """
  coordinate, target = np.asarray(neighbourhood.coordinate), np.asarray(neighbourhood.target)
  moves = [np.flatnonzero(coordinate == place) for place in range(len(neighbourhood.sizes))]
  most, largest = max(map(len, moves)), max(neighbourhood.sizes)
  kinds, tables, slots = {}, [], np.zeros((len(moves), most), np.int32)
  kind = np.zeros(len(moves), np.int32)
  for place, (own, size) in enumerate(zip(moves, neighbourhood.sizes)):
    slots[place, : len(own)] = own
    name = (size, target[own].tobytes())
    if name not in kinds:
      kinds[name] = len(tables)
      tables.append(_potential(target[own, :size], most, largest))
    kind[place] = kinds[name]
  return Gibbs(
    as_data(concrete, "gibbs"),
    neighbourhood,
    jnp.asarray(t, jnp.result_type(float)),
    cond,
    jnp.asarray(slots),
    jnp.asarray(np.stack(tables), jnp.result_type(float)),
    jnp.asarray(kind),
    jnp.asarray(neighbourhood.sizes, jnp.int32),
  )


def _potential(target, most, largest):
  """The matrix [K, M, K] from log ratios to log p, in float64.

  It leads from the log ratios of every move and value to log p of every value, less its mean.
  """
  moves, values = np.nonzero(target >= 0)
  incidence = np.zeros((len(moves), target.shape[1]))
  incidence[np.arange(len(moves)), target[moves, values]] += 1.0
  incidence[np.arange(len(moves)), values] -= 1.0
  matrix = np.zeros((largest, most, largest))
  matrix[: target.shape[1], moves, values] = np.linalg.pinv(incidence)
  return matrix
