"""The exponential of one matrix of jump rates, for any length of time.

By its modes where it is reversible, else by sums of what is not negative.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from diffusion.processes.base import array_namespace

TERMS = 16  # of the exponential series at one half, which leaves 2e-20
FORGOTTEN = 60.0  # lifetimes of the slowest mode after which it is 1e-26


@struct.dataclass
class JumpMatrix:
  """Rates R [S, S] with exp(R sigma) for any sigma: see `jump_matrix`.

  Attributes:
    rates: R.
    stationary: [S], the law that jumps keep.
    modes: (eigenvalues [S], right [S, S], left [S, S]) of a reversible R, else None.
    longest: sigma after which nothing is left of the start.
    fastest: the largest rate of leaving a state.
    squarings: how often the exponential of a short time is squared.
  """

  rates: Any
  stationary: Any
  modes: Any
  longest: Any
  fastest: Any
  squarings: int = struct.field(pytree_node=False)

  def exponential(self, sigma: Any) -> Any:
    """exp(R sigma) [..., S, S] for sigma [...] >= 0, up to infinity: rows sum to one, none negative."""
    xp = array_namespace(sigma)
    like = lambda value: xp.asarray(value, sigma.dtype)
    sigma = xp.minimum(sigma, like(self.longest))[..., None, None]
    lead = (1,) * (sigma.ndim - 2)
    eye = like(np.eye(self.rates.shape[0])).reshape(*lead, *self.rates.shape)
    if self.modes is not None:
      values, right, left = (like(part) for part in self.modes)
      gone = xp.expm1(sigma * values.reshape(*lead, 1, -1))
      moved = _product(xp, right.reshape(*lead, *right.shape) * gone, left)
      return xp.maximum(eye + moved, 0.0)
    # exp(-q h) sum (q h)^n P^n / n! with P = 1 + R / q and h = sigma / 2^squarings, then squared.
    fastest = like(self.fastest)
    jumps = like(self.rates) / fastest + like(np.eye(self.rates.shape[0]))
    count = sigma * fastest * like(2.0**-self.squarings)
    found = eye + 0.0 * sigma
    for n in range(TERMS, 0, -1):
      found = eye + count / n * _product(xp, found, jumps)
    return self._squared(xp, found / xp.sum(found, axis=-1, keepdims=True))

  def _squared(self, xp, matrix):
    def once(_, matrix):
      square = _product(xp, matrix, matrix)
      return square / xp.sum(square, axis=-1, keepdims=True)

    if xp is jnp:
      return jax.lax.fori_loop(0, self.squarings, once, matrix)
    for step in range(self.squarings):
      matrix = once(step, matrix)
    return matrix


def jump_matrix(rates: Any, who: str) -> JumpMatrix:
  """Checks a matrix of jump rates and takes it apart, once, in float64 on the host.

  A reversible one has real modes that are found to all digits; any other is exponentiated by uniformisation
  and squaring, each number of which is a sum of what is not negative.

  Raises ValueError for what is no square matrix, a negative rate, rows that do not sum to zero, a state that
  no rate leaves, states that do not all lead to one another.

  >>> jump_matrix([[-1.0, 1.0], [3.0, -3.0]], "a test").stationary.round(3).tolist()
  [0.75, 0.25]
  """
  rates = np.asarray(rates, np.float64)
  if rates.ndim != 2 or rates.shape[0] != rates.shape[1] or len(rates) < 2 or not np.isfinite(rates).all():
    raise ValueError(
      f"{who} takes a matrix [S, S] of jump rates from row to column, finite, S at least 2, got shape "
      f"{rates.shape}"
    )
  off, largest = rates - np.diag(np.diag(rates)), np.abs(rates).max()
  if off.min() < 0:
    i, j = np.unravel_index(off.argmin(), off.shape)
    raise ValueError(f"{who}: the rate from {i} to {j} is {off[i, j]:g}: rates of jumps are 0 or above")
  sums = rates.sum(axis=1)
  if np.abs(sums).max() > 1e-6 * max(largest, 1e-300):
    i = np.abs(sums).argmax()
    raise ValueError(
      f"{who}: row {i} of the rates sums to {sums[i]:.3g}, not to 0: put minus the sum of its rates, "
      f"{-off[i].sum():g}, on the diagonal"
    )
  stuck = np.flatnonzero(off.sum(axis=1) == 0)
  if stuck.size:
    raise ValueError(
      f"{who}: no rate leaves state {stuck[0]}, so that noise ends there: give it one, or take "
      "processes.masked for a state that absorbs"
    )
  _check_connected(off, who)
  rates = off - np.diag(off.sum(axis=1))
  stationary = _stationary(rates)
  flow = stationary[:, None] * off
  modes, decay = None, -np.sort(-np.linalg.eigvals(rates).real)[1]
  if np.abs(flow - flow.T).max() <= 1e-10 * flow.max():
    root = np.sqrt(stationary)
    values, basis = np.linalg.eigh(0.5 * (s := root[:, None] * rates / root[None, :]) + 0.5 * s.T)
    values[-1], decay = 0.0, values[-2]
    modes = (values, basis / root[:, None], basis.T * root[None, :])
  longest, fastest = FORGOTTEN / -decay, off.sum(axis=1).max()
  squarings = max(0, int(np.ceil(np.log2(2.0 * fastest * longest))))
  return JumpMatrix(rates, stationary, modes, longest, fastest, squarings)


def _stationary(rates):
  """The law p with p R = 0, without subtractions (Grassmann, Taksar and Heyman)."""
  matrix, size = rates.copy(), len(rates)
  for k in range(size - 1, 0, -1):
    matrix[:k, k] /= matrix[k, :k].sum()
    matrix[:k, :k] += np.outer(matrix[:k, k], matrix[k, :k])
  law = np.ones(size)
  for k in range(1, size):
    law[k] = law[:k] @ matrix[:k, k]
  return law / law.sum()


def _check_connected(off, who):
  """Raises ValueError unless jumps lead from every state to every other."""
  for jumps, says in ((off, "from 0 to {}"), (off.T, "from {} to 0")):
    reached, front = {0}, [0]
    while front:
      front = [
        k
        for i in front
        for k in np.flatnonzero(jumps[i] > 0).tolist()
        if k not in reached and not reached.add(k)
      ]
    if len(reached) < len(off):
      alone = next(k for k in range(len(off)) if k not in reached)
      raise ValueError(
        f"{who} is not connected: no jumps lead {says.format(alone)}; add a rate between the parts, or model "
        "each by itself"
      )


def _product(xp, first, second):
  if xp is np:
    return first @ second
  return jnp.matmul(first, second, precision=jax.lax.Precision.HIGHEST)
