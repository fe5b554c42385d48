"""Neighbourhoods of discrete states as data.

Which states a concrete score compares a state with (arXiv:2211.00802, section 3).

A state is an array of whole numbers, one a coordinate, and every move changes one coordinate by a table: a
cycle, a grid, the flips of bits and a graph given as an index array (one coordinate, whose values are the
nodes) are the same few arrays.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from numpy.typing import ArrayLike


@struct.dataclass
class Neighbourhood:
  """The ordered neighbours x_{n_1}, ..., x_{n_N} of every state x, and its R reverse neighbours.

  The state is itself a neighbour of each of its reverse neighbours.

  Attributes:
    target: [N, K] int32, the value that move n gives a coordinate of value k, -1 where there is no such move.
    source: [R, K] int32, a value that its move turns into k, -1 where there is none.
    coordinate: of each move, its place in the flattened state.
    slot: of each reverse neighbour, the move that leads back from it: the output to read there.
    sizes: number of values of each coordinate, flattened.
    shape: of a state.
    name: what messages call it.
  """

  target: jax.Array | np.ndarray
  source: jax.Array | np.ndarray
  coordinate: tuple[int, ...] = struct.field(pytree_node=False)
  slot: tuple[int, ...] = struct.field(pytree_node=False)
  sizes: tuple[int, ...] = struct.field(pytree_node=False)
  shape: tuple[int, ...] = struct.field(pytree_node=False)
  name: str = struct.field(pytree_node=False, default="neighbourhood")

  @property
  def num_neighbours(self) -> int:
    """N: how many numbers a concrete score has."""
    return len(self.coordinate)

  @property
  def num_reverse(self) -> int:
    """R: N where every move has one inverse."""
    return len(self.slot)

  def values(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """What the moves set: x [B, ...] -> (new values [B, N] int, whether the move exists [B, N]).

    The new value is the old one where the move does not exist.
    """
    return self._values(self.target, np.asarray(self.coordinate), x)

  def reverse_values(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The same for reverse neighbours: ([B, R] int, exists [B, R])."""
    return self._values(self.source, np.asarray(self.coordinate)[np.asarray(self.slot)], x)

  def neighbours(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(y [B, N, ...], exists [B, N]): y_n is x after move n, and x itself where there is no such move."""
    values, exists = self.values(x)
    return self.moved(x, np.broadcast_to(np.asarray(self.coordinate), values.shape), values), exists

  def reverse_neighbours(
    self, x: jax.Array, picked: jax.Array | None = None
  ) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The states whose neighbour is x.

    Args:
      x: [B, ...] int.
      picked: [B, M] which of the R to give; all where None.

    Returns:
      (y [B, M, ...], slot [B, M], exists [B, M]): move slot leads from y to x, so output `slot` at y compares
      x with y.

    >>> walk = grid(4, wrap=False)
    >>> y, slot, exists = walk.reverse_neighbours(jnp.array([[0], [3]]))
    >>> y[:, :, 0].tolist(), slot.tolist(), exists.tolist()
    ([[0], [2]], [[0], [0]], [[False], [True]])
    """
    values, exists = self.reverse_values(x)
    slot = jnp.broadcast_to(jnp.asarray(self.slot, jnp.int32)[None], values.shape)
    if picked is not None:
      values, exists, slot = (jnp.take_along_axis(a, picked, axis=1) for a in (values, exists, slot))
    return self.moved(x, jnp.asarray(self.coordinate, jnp.int32)[slot], values), slot, exists

  def degree(self, x: jax.Array) -> jax.Array:
    """How many neighbours and reverse neighbours x has, counted apart: [B] int."""
    return jnp.sum(self.values(x)[1], axis=1) + jnp.sum(self.reverse_values(x)[1], axis=1)

  def moved(self, x: jax.Array, coordinate: jax.Array | np.ndarray, values: jax.Array) -> jax.Array:
    """x [B, ...] with one coordinate set: coordinate, values [B, M] -> [B, M, ...]."""
    flat = self.flat(x)
    here = (
      np.arange(flat.shape[1], dtype=np.int32)[None, None, :]
      == jnp.asarray(coordinate, jnp.int32)[:, :, None]
    )
    return jnp.where(here, values[:, :, None].astype(flat.dtype), flat[:, None, :]).reshape(
      *values.shape, *self.shape
    )

  def flat(self, x: jax.Array) -> jax.Array:
    """x [B, ...] as [B, D]. Raises ValueError unless it holds states: whole numbers of the right shape."""
    x = jnp.asarray(x)
    if x.shape[1:] != self.shape or x.ndim == 0 or not jnp.issubdtype(x.dtype, jnp.integer):
      raise ValueError(
        f"{self.name} takes whole numbers of shape [B, {', '.join(map(str, self.shape))}], one a coordinate, "
        "got "
        f"{x.dtype} of shape {x.shape}"
      )
    return x.reshape(x.shape[0], len(self.sizes))

  def _values(self, table, coordinate, x):
    old = self.flat(x)[:, coordinate]
    new = jnp.asarray(table)[np.arange(len(coordinate))[None, :], old].astype(old.dtype)
    return jnp.where(new < 0, old, new), new >= 0


def grid(sizes: ArrayLike, steps: Sequence[int] = (1,), *, wrap: bool = True) -> Neighbourhood:
  """x_d -> x_d + s for every coordinate d and every step s, in this order.

  Args:
    sizes: number of values of each coordinate: K for one coordinate, [K_1, ..., K_D], or an array of a
      state's shape.
    steps: whole numbers, (1,) or (1, -1) or any others.
    wrap: whether a coordinate starts again at its end; without, a move that leads out of the range does not
      exist.

  Raises:
    ValueError: fewer than two values, a step that does not move, two steps that lead to one neighbour, steps
      that do not connect.

  >>> y, exists = grid([3, 3], wrap=False).neighbours(jnp.array([[2, 0]]))
  >>> y[0].tolist(), exists[0].tolist()
  ([[2, 0], [2, 1]], [False, True])
  """
  sizes = as_sizes(sizes, "a grid")
  steps = tuple(steps)
  if not steps or not all(isinstance(step, (int, np.integer)) for step in steps):
    raise ValueError(f"a grid takes steps such as (1,) or (1, -1), whole numbers, got {steps}")

  def table(size):
    moved = np.arange(size)[None, :] + np.asarray(steps)[:, None]
    return moved % size if wrap else np.where((moved >= 0) & (moved < size), moved, -1)

  return build(sizes, table, f"grid of {'x'.join(map(str, sizes.shape))} coordinates")


def cycle(size: int) -> Neighbourhood:
  """One coordinate of `size` values in a circle, whose neighbour is x + 1.

  >>> cycle(16).neighbours(jnp.array([[15]]))[0].tolist()
  [[[0]]]
  """
  return grid(size)


def bit_flips(shape: int | Sequence[int]) -> Neighbourhood:
  """Bit flips: every coordinate of a state of zeros and ones turned over, one neighbour a coordinate.

  shape: as in x [B, *shape].
  """
  return grid(np.full(_state_shape(shape), 2))


def graph(index: ArrayLike) -> Neighbourhood:
  """Any connected graph: states are [B, 1] numbers of nodes.

  Args:
    index: [S, N] whole numbers: the ordered neighbours of each of the S nodes, -1 where a node has fewer than
      N.

  Raises:
    ValueError: a node that does not exist, one listed twice or as its own neighbour, a part that nothing
      connects with the rest.

  >>> star = graph([[1, 2, 3], [0, -1, -1], [0, -1, -1], [0, -1, -1]])
  >>> star.num_neighbours, star.num_reverse             # the centre is the first neighbour of three nodes
  (3, 5)
  """
  index = np.asarray(index)
  if index.ndim != 2 or not np.issubdtype(index.dtype, np.integer) or min(index.shape, default=0) < 1:
    raise ValueError(
      f"a graph is an array [nodes, neighbours] of whole numbers, got {index.dtype} of shape {index.shape}: "
      "fill short rows up with -1"
    )
  bad = np.argwhere((index < -1) | (index >= len(index)))
  if bad.size:
    node, place = bad[0]
    raise ValueError(
      f"node {node} lists the neighbour {index[node, place]}, but there are the nodes 0 to {len(index) - 1}: "
      "take one of these, or -1 for none"
    )
  return build(as_sizes(len(index), "a graph"), lambda size: index.T, f"graph of {len(index)} nodes")


def as_sizes(sizes: ArrayLike, who: str, shape: int | Sequence[int] | None = None) -> np.ndarray:
  """Numbers of values as an array of a state's shape [...].

  K alone is a state of one coordinate. Raises ValueError for sizes that do not fit the shape, or are not
  whole numbers of two or more.
  """
  counts = np.atleast_1d(np.asarray(sizes))
  if shape is not None:
    try:
      counts = np.broadcast_to(counts, _state_shape(shape))
    except ValueError:
      raise ValueError(
        f"{who} has states of shape {shape}, and sizes of shape {counts.shape} do not fit: give one number "
        "for all"
      ) from None
  if not np.issubdtype(counts.dtype, np.integer) or counts.size == 0 or counts.min() < 2:
    raise ValueError(
      f"every coordinate of {who} has two or more values, a whole number, got sizes "
      f"{counts.reshape(-1)[:8].tolist()}"
    )
  return counts


def _state_shape(shape: int | Sequence[int]) -> tuple[int, ...]:
  return tuple(np.atleast_1d(shape).tolist())


def build(sizes: np.ndarray, table: Callable[[int], np.ndarray], name: str) -> Neighbourhood:
  """The neighbourhood built from a table of moves for each size of coordinate.

  Coordinates of size K have the moves table(K) [moves, K]. Coordinates of one size share one table.
  """
  tables = {
    size: _checked(np.asarray(table(size)), name) for size in dict.fromkeys(sizes.reshape(-1).tolist())
  }
  inverses = {size: _inverse(moves) for size, moves in tables.items()}
  largest = max(tables)
  pad = lambda rows: np.pad(rows, ((0, 0), (0, largest - rows.shape[1])), constant_values=-1).astype(np.int32)
  target, source, coordinate, slot = [], [], [], []
  for place, size in enumerate(sizes.reshape(-1).tolist()):
    rows, own = inverses[size]
    slot += [len(coordinate) + move for move in own]
    coordinate += [place] * len(tables[size])
    target.append(pad(tables[size]))
    source.append(pad(rows))
  return Neighbourhood(
    np.concatenate(target),
    np.concatenate(source),
    tuple(coordinate),
    tuple(slot),
    tuple(sizes.reshape(-1).tolist()),
    tuple(sizes.shape),
    name,
  )


def _checked(moves, name):
  """The moves [moves, K] of one coordinate. Raises ValueError for what is no neighbourhood."""
  size = moves.shape[1]
  still = np.argwhere(moves == np.arange(size)[None, :])
  if still.size:
    raise ValueError(
      f"{name}: {still[0][1]} is its own neighbour, and that ratio is one whatever the model: leave this "
      "move out"
    )
  for value in range(size):
    found = moves[:, value][moves[:, value] >= 0]
    if len(np.unique(found)) < len(found):
      twice = next(one for one in found if np.sum(found == one) > 1)
      raise ValueError(
        f"{name}: {value} has the neighbour {twice} twice: leave one of the moves out (of two values, the "
        "step 1 is the step -1)"
      )
  reached, front = {0}, [0]
  joined = [set() for _ in range(size)]
  for row in moves:
    for value in np.flatnonzero(row >= 0):
      joined[value].add(int(row[value]))
      joined[row[value]].add(int(value))
  while front:
    front = [
      other for value in front for other in joined[value] if other not in reached and not reached.add(other)
    ]
  if len(reached) < size:
    alone = next(value for value in range(size) if value not in reached)
    raise ValueError(
      f"{name} is not connected: no moves lead from 0 to {alone}, so ratios cannot compare the two; add a "
      "move between "
      "the parts, or model each by itself"
    )
  return moves


def _inverse(moves):
  """The inverse of moves: (rows [R, K] of preimages, the move of each row).

  There are as many rows a move as one of its values has preimages.
  """
  rows, own = [], []
  for move, images in enumerate(moves):
    before = [np.flatnonzero(images == value) for value in range(len(images))]
    for place in range(max(map(len, before))):
      rows.append([found[place] if place < len(found) else -1 for found in before])
      own.append(move)
  return np.asarray(rows), own
