"""Symmetric matrices, one a row of a batch, in the forms that a Hessian or a covariance takes.

Full, diagonal, diagonal plus signed low rank.

All answer the same questions, so a loss or a posterior does not know which it has; in low rank none of them
forms a D x D matrix.
"""

import dataclasses
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.typing import ArrayLike

PRECISION = "highest"  # sums of D squares of either sign: nothing to spare


def _column(factor, values):
  """A number, or one a row [B], to multiply values [B, ...]."""
  factor = jnp.asarray(factor, values.dtype)
  return factor.reshape(factor.shape + (1,) * (values.ndim - factor.ndim)) if factor.ndim else factor


@struct.dataclass
class Full:
  """The matrices themselves, matrix: [B, D, D], symmetric."""

  matrix: jax.Array

  @property
  def dimension(self) -> int:
    return self.matrix.shape[-1]

  def rescaled(self, c: ArrayLike) -> "Full":
    """c^2 M, c a number or [B]."""
    return Full(_column(c, self.matrix) ** 2 * self.matrix)

  def plus_identity(self, c: ArrayLike) -> "Full":
    """M + c I, c a number or [B]."""
    return Full(
      self.matrix + _column(c, self.matrix) * jnp.eye(self.dimension, dtype=self.matrix.dtype)[None]
    )

  def plus_outer(self, v: jax.Array, sign: int = 1) -> "Full":
    """M + v v^T, or M - v v^T for sign -1; v: [B, D]."""
    return Full(self.matrix + sign * v[:, :, None] * v[:, None, :])

  def times(self, v: jax.Array) -> jax.Array:
    """M v: [B, D] -> [B, D]."""
    return jnp.einsum("bde,be->bd", self.matrix, v, precision=PRECISION)

  def quadratic(self, v: jax.Array) -> jax.Array:
    """v^T M v: [B, D] -> [B]."""
    return jnp.sum(v * self.times(v), axis=-1)

  def trace(self) -> jax.Array:
    """[B]."""
    return jnp.trace(self.matrix, axis1=-2, axis2=-1)

  def square_norm(self) -> jax.Array:
    """The sum of the squares of all entries, [B]."""
    return jnp.sum(jnp.square(self.matrix), axis=(-2, -1))

  def expected_target_square(self) -> float:
    """The mean square of the target I - z z^T for standard normal z.

    E ||I - z z^T||^2 = D^2 + D: what no model can explain, of the entries that this form has.
    """
    return float(self.dimension**2 + self.dimension)

  def diagonal_entries(self) -> jax.Array:
    """[B, D]."""
    return jnp.diagonal(self.matrix, axis1=-2, axis2=-1)

  def dense(self) -> jax.Array:
    """[B, D, D]."""
    return self.matrix


@struct.dataclass
class Diagonal:
  """The diagonals alone, diagonal: [B, D]; of whatever is added only the diagonal is kept."""

  diagonal: jax.Array

  @property
  def dimension(self) -> int:
    return self.diagonal.shape[-1]

  def rescaled(self, c: ArrayLike) -> "Diagonal":
    """c^2 M, c a number or [B]."""
    return Diagonal(_column(c, self.diagonal) ** 2 * self.diagonal)

  def plus_identity(self, c: ArrayLike) -> "Diagonal":
    """M + c I, c a number or [B]."""
    return Diagonal(self.diagonal + _column(c, self.diagonal))

  def plus_outer(self, v: jax.Array, sign: int = 1) -> "Diagonal":
    """The diagonal of M + v v^T, or of M - v v^T for sign -1; v: [B, D]."""
    return Diagonal(self.diagonal + sign * jnp.square(v))

  def times(self, v: jax.Array) -> jax.Array:
    """M v: [B, D] -> [B, D]."""
    return self.diagonal * v

  def quadratic(self, v: jax.Array) -> jax.Array:
    """v^T M v: [B, D] -> [B]."""
    return jnp.sum(self.diagonal * jnp.square(v), axis=-1)

  def trace(self) -> jax.Array:
    """[B]."""
    return jnp.sum(self.diagonal, axis=-1)

  def square_norm(self) -> jax.Array:
    """The sum of the squares of the diagonal, [B]."""
    return jnp.sum(jnp.square(self.diagonal), axis=-1)

  def expected_target_square(self) -> float:
    """E sum (1 - z^2)^2 = 2 D for standard normal z."""
    return 2.0 * self.dimension

  def diagonal_entries(self) -> jax.Array:
    """[B, D]."""
    return self.diagonal

  def dense(self) -> jax.Array:
    """[B, D, D]."""
    return self.diagonal[:, :, None] * jnp.eye(self.dimension, dtype=self.diagonal.dtype)[None]


@struct.dataclass
class LowRank:
  """A symmetric matrix as a diagonal and signed terms of rank one.

  It is diag(diagonal) + sum_j signs_j f_j f_j^T with f_j = factors[:, :, j] (arXiv:2111.04726, there with +
  alone).

  diagonal: [B, D]; factors: [B, D, r]; signs: r numbers +1 or -1, static. Every question costs O(D r^2) or
  less.

  >>> m = LowRank(jnp.zeros((1, 3)), jnp.ones((1, 3, 2)), (1, -1))
  >>> float(m.square_norm()[0]), float(m.plus_outer(jnp.ones((1, 3))).square_norm()[0])
  (0.0, 9.0)
  """

  diagonal: jax.Array
  factors: jax.Array
  signs: tuple[int, ...] = struct.field(pytree_node=False)

  @property
  def dimension(self) -> int:
    return self.diagonal.shape[-1]

  @property
  def rank(self) -> int:
    """How many factors there are."""
    return self.factors.shape[-1]

  def rescaled(self, c: ArrayLike) -> "LowRank":
    """c^2 M, c a number or [B]."""
    return LowRank(
      _column(c, self.diagonal) ** 2 * self.diagonal, _column(c, self.factors) * self.factors, self.signs
    )

  def plus_identity(self, c: ArrayLike) -> "LowRank":
    """M + c I, c a number or [B]."""
    return dataclasses.replace(self, diagonal=self.diagonal + _column(c, self.diagonal))

  def plus_outer(self, v: jax.Array, sign: int = 1) -> "LowRank":
    """M + v v^T, or M - v v^T for sign -1, with one factor more; v: [B, D]."""
    return LowRank(
      self.diagonal, jnp.concatenate([self.factors, v[:, :, None]], axis=-1), (*self.signs, sign)
    )

  def minus(self, other: "LowRank") -> "LowRank":
    """M - other, with the factors of both."""
    factors = jnp.concatenate([self.factors, other.factors], axis=-1)
    return LowRank(self.diagonal - other.diagonal, factors, (*self.signs, *(-sign for sign in other.signs)))

  def times(self, v: jax.Array) -> jax.Array:
    """M v: [B, D] -> [B, D]."""
    shares = self._signs() * jnp.einsum("bdr,bd->br", self.factors, v, precision=PRECISION)
    return self.diagonal * v + jnp.einsum("bdr,br->bd", self.factors, shares, precision=PRECISION)

  def quadratic(self, v: jax.Array) -> jax.Array:
    """v^T M v: [B, D] -> [B]."""
    along = jnp.einsum("bdr,bd->br", self.factors, v, precision=PRECISION)
    return jnp.sum(self.diagonal * jnp.square(v), axis=-1) + jnp.sum(
      self._signs() * jnp.square(along), axis=-1
    )

  def trace(self) -> jax.Array:
    """[B]."""
    return jnp.sum(self.diagonal, axis=-1) + jnp.sum(
      self._signs() * jnp.sum(jnp.square(self.factors), axis=1), axis=-1
    )

  def square_norm(self) -> jax.Array:
    """The sum of the squares of all entries, [B].

    It is sum a^2 + 2 a . diag(F S F^T) + sum_jk s_j s_k (F^T F)_jk^2.
    """
    gram = jnp.einsum("bdr,bdq->brq", self.factors, self.factors, precision=PRECISION)
    own = self.diagonal_entries() - self.diagonal
    both = self._signs()[:, :, None] * self._signs()[:, None, :]
    return jnp.sum(self.diagonal * (self.diagonal + 2.0 * own), axis=-1) + jnp.sum(
      both * jnp.square(gram), axis=(-2, -1)
    )

  def expected_target_square(self) -> float:
    """E ||I - z z^T||^2 = D^2 + D for standard normal z."""
    return float(self.dimension**2 + self.dimension)

  def diagonal_entries(self) -> jax.Array:
    """[B, D]."""
    return self.diagonal + jnp.sum(self._signs()[:, None, :] * jnp.square(self.factors), axis=-1)

  def dense(self) -> jax.Array:
    """[B, D, D], for small D."""
    outer = jnp.einsum(
      "bdr,br,ber->bde",
      self.factors,
      jnp.broadcast_to(self._signs(), self.factors.shape[::2]),
      self.factors,
      precision=PRECISION,
    )
    return Diagonal(self.diagonal).dense() + outer

  def _signs(self):
    """[1, r]."""
    return jnp.asarray(np.asarray(self.signs), self.factors.dtype)[None, :]


FORMS = (Full, Diagonal, LowRank)
Symmetric: TypeAlias = Full | Diagonal | LowRank


def as_symmetric(value: Symmetric | jax.Array, dimension: int, who: str = "hessian") -> Symmetric:
  """A form as it is, an array [B, D, D] as `Full`. Raises ValueError for anything else, or another dimension.

  >>> as_symmetric(jnp.ones((2, 3, 3)), 3).trace().tolist()
  [3.0, 3.0]
  """
  if not isinstance(value, FORMS):
    if jnp.ndim(value) != 3 or jnp.shape(value)[1:] != (dimension, dimension):
      raise ValueError(
        f"{who} is one matrix a row, [B, {dimension}, {dimension}], or symmetric.Diagonal or "
        "symmetric.LowRank; got "
        f"{'shape ' + str(jnp.shape(value)) if hasattr(value, 'shape') else type(value).__name__}"
      )
    return Full(value)
  if value.dimension != dimension:
    raise ValueError(
      f"{who} is of {value.dimension} dimensions, and the data of {dimension}: give one entry for each "
      "number of an example"
    )
  if isinstance(value, LowRank):
    check_rank(value.rank, dimension, who)
    if len(value.signs) != value.rank:
      raise ValueError(
        f"{who} has {value.rank} factors and {len(value.signs)} signs: give one sign, 1 or -1, a factor"
      )
  return value


def check_rank(rank: int, dimension: int, who: str) -> None:
  """Raises ValueError unless the rank is a whole number from 0 to the dimension."""
  if not isinstance(rank, int) or rank < 0:
    raise ValueError(f"{who} takes a rank that is a whole number, 0 or more, got {rank!r}")
  if rank > dimension:
    raise ValueError(
      f"{who} has rank {rank}, above the {dimension} dimensions of an example: take rank {dimension} or "
      "less, or the full form"
    )
