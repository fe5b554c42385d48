"""Probabilities of whole numbers from a concrete score.

Of all states of a small set, and of single states along the noise.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from diffusion.processes.neighbourhoods import Neighbourhood
from diffusion.processes.resample import UniformResample

PASSES = 3
"""How often ratios are weighed anew by the probabilities that they gave."""


def log_prob_of_states(
  concrete: ArrayLike, neighbourhood: Neighbourhood, *, smallest: float = 1e-8
) -> np.ndarray:
  """The log-probability of every state, from the concrete score of every state.

  It is log p, normalised; p is determined by the concrete score (arXiv:2211.00802, section 3).

  The ratios of a model do not fit together exactly: log p is what fits all log ratios best in least squares,
  each weighed by the root of the two probabilities that it compares, so that states that hardly occur do not
  decide about the rest.

  Args:
    concrete: [S, N], of all states in the order of `np.ndindex(neighbourhood.sizes)`.
    neighbourhood: that it was learned with.
    smallest: a ratio that the model makes smaller, or negative, counts as this.

  Returns [S] float64 on the host. Raises ValueError for another number of states or neighbours.

  >>> from diffusion import processes
  >>> ratios = np.array([[2.0], [0.5], [0.5], [2.0]])                     # p = (1, 2, 1, 1/2) around a circle
  >>> np.exp(log_prob_of_states(ratios - 1.0, processes.neighbourhoods.cycle(4))).round(4).tolist()
  [0.2222, 0.4444, 0.2222, 0.1111]
  """
  from scipy import sparse
  from scipy.sparse.linalg import splu

  sizes, concrete = neighbourhood.sizes, np.asarray(concrete, np.float64)
  count = int(np.prod(sizes))
  if concrete.shape != (count, neighbourhood.num_neighbours):
    raise ValueError(
      f"concrete has shape {concrete.shape}; {neighbourhood.name} has {count} states with "
      f"{neighbourhood.num_neighbours} neighbours each"
    )
  states = np.stack(np.unravel_index(np.arange(count), sizes), axis=1)
  target, coordinate = np.asarray(neighbourhood.target), np.asarray(neighbourhood.coordinate)
  values = target[np.arange(len(coordinate))[None, :], states[:, coordinate]]
  start, move = np.nonzero(values >= 0)
  end = states[start].copy()
  end[np.arange(len(end)), coordinate[move]] = values[start, move]
  end = np.ravel_multi_index(end.T, sizes)
  log_ratio = np.log(np.maximum(1.0 + concrete[start, move], smallest))
  rows = np.tile(np.arange(len(start)), 2)
  incidence = sparse.csr_matrix(
    (np.repeat([1.0, -1.0], len(start)), (rows, np.concatenate([end, start]))), shape=(len(start), count)
  )
  log_prob = np.zeros(count)
  for _ in range(PASSES):
    weight = np.exp(np.clip(0.5 * (log_prob[start] + log_prob[end]), -20.0, None))
    laplacian = (incidence.T @ sparse.diags(weight) @ incidence).tocsc()
    # A constant is free: the first state's is held at nought.
    solved = splu(laplacian[1:, 1:]).solve((incidence.T @ (weight * log_ratio))[1:])
    log_prob = np.concatenate([[0.0], solved])
    log_prob -= np.logaddexp.reduce(log_prob)
  return log_prob


def annealed_log_prob(
  concrete: Callable[[jax.Array, jax.Array, None], jax.Array],
  process: UniformResample,
  neighbourhood: Neighbourhood,
  x: ArrayLike,
  t: float | None = None,
  *,
  nodes: int = 32,
) -> jax.Array:
  """log p_t(x) of single states, in nats: [B], by following the noise from where nothing is left of the data.

  Under uniform resampling with probability b = 1 - alpha(t), d/dt log p_t(x) = b'(t) / (1 - b) sum_d 1/K_d
  sum_{v != x_d} c(x)_{d -> v}: the concrete score is all that the slope of the log-probability needs, and at
  b = 1 all states are equally likely. Of a true concrete score this is exact up to the quadrature; a model's
  need not sum to one over the states.

  Args:
    concrete: (x, t, cond) -> [B, N].
    process: of `processes.uniform_resample`, with b = 1 at t_max.
    neighbourhood: whose moves lead from each value of a coordinate to every other, once: `grid(sizes,
      range(1, K))`, or bit flips.
    x: [B, ...] int. t: where to read log p_t; by default the process's t_min.
    nodes: of Gauss-Legendre quadrature, in the log of t.

  Raises ValueError where the neighbourhood lacks a move, the process ends below b = 1, or t is outside of its
  interval.
  """
  sizes = neighbourhood.sizes
  moves = [[] for _ in sizes]
  for place, row in zip(neighbourhood.coordinate, np.asarray(neighbourhood.target)):
    moves[place].append(row[: sizes[place]])
  if any(len(rows) != size - 1 or min(map(np.min, rows)) < 0 for rows, size in zip(moves, sizes)):
    raise ValueError(
      "annealed_log_prob needs a neighbourhood that leads from each value of a coordinate to every other: "
      "take "
      "neighbourhoods.grid(sizes, range(1, K)) with wrap, K values a coordinate"
    )
  end = float(process.clock(float(process.t_max)).noised)
  if abs(end - 1.0) > 1e-6:
    raise ValueError(
      f"annealed_log_prob starts where nothing is left of the data, but at t_max={process.t_max} b is {end}: "
      "take a process with b = 1 there"
    )
  low = float(process.t_min if t is None else t)
  if not 0.0 < low < float(process.t_max):
    raise ValueError(f"t lies between 0 and t_max={process.t_max}, got {low}")
  u, w = np.polynomial.legendre.leggauss(nodes)
  width = np.log(float(process.t_max) / low)
  times = low * np.exp(0.5 * width * (u + 1.0))
  x = jnp.asarray(x)
  dtype = jnp.result_type(float)
  share = jnp.asarray(1.0 / np.asarray(sizes)[np.asarray(neighbourhood.coordinate)], dtype)

  def add(total, node):
    time, weight = node
    t = jnp.full(x.shape[:1], time)
    keep = process.clock(time)
    slope = -keep.d_alpha
    c = concrete(x, t, None).astype(dtype)
    return total - weight * slope / keep.alpha * jnp.sum(c * share[None], axis=1), None

  start = jnp.full(x.shape[:1], -np.sum(np.log(sizes)), dtype)
  pairs = (jnp.asarray(times, dtype), jnp.asarray(0.5 * width * w * times, dtype))
  return jax.lax.scan(add, start, pairs)[0]
