"""A measurement y = A(x) + noise as one object.

The operator, its adjoint where it is linear, and the noise.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.core import Tracer

from diffusion.math.precision import sum_rows
from diffusion.processes.base import Number, expand


@struct.dataclass
class Measurement:
  """y [B, *measured] = operator(params, x [B, *event]) + noise z; see `measurement`.

  Attributes:
    params: what the operator needs (a mask, a matrix, a kernel).
    noise: standard deviation of the Gaussian noise, in the units of the model; 0 for exact measurements.
    gram: c where A A^T = c times the identity on what is measured, else None.
    operator: (params, x) -> y.
    event: shape of one x.
    linear: whether it is linear in x.
    name: for messages.
  """

  params: Any
  noise: Number
  gram: Number | None
  operator: Callable[[Any, jax.Array], jax.Array] = struct.field(pytree_node=False)
  event: tuple[int, ...] = struct.field(pytree_node=False)
  linear: bool = struct.field(pytree_node=False)
  name: str = struct.field(pytree_node=False)

  def __call__(self, x: jax.Array) -> jax.Array:
    """A(x) without noise: [B, *event] -> [B, *measured]."""
    return self.operator(self.params, x)

  @property
  def measured(self) -> tuple[int, ...]:
    """Shape of one y."""
    return self.operator_shape(1)[1:]

  def operator_shape(self, rows: int) -> tuple[int, ...]:
    """Shape of y for so many rows of x, with nothing computed."""
    return jax.eval_shape(
      self.operator, self.params, jax.ShapeDtypeStruct((rows, *self.event), jnp.float32)
    ).shape

  def observe(self, x: jax.Array, keys: jax.Array) -> jax.Array:
    """A(x) + noise, row i from keys[i] alone."""
    y = self(x)
    z = jax.vmap(lambda key: jax.random.normal(key, y.shape[1:], y.dtype))(keys)
    return y + jnp.asarray(self.noise, y.dtype) * self.seen(z)

  def seen(self, y: jax.Array) -> jax.Array:
    """The part of a vector shaped like y that lies in the operator's range.

    It is told for a linear operator with a gram; it is y itself for any other.
    """
    if not self.linear or self.gram is None:
      return y
    return self(self.adjoint(y)) / jnp.asarray(self.gram, y.dtype)

  def adjoint(self, y: jax.Array) -> jax.Array:
    """A^T y: [B, *measured] -> [B, *event]. Raises ValueError for an operator that is not linear."""
    self.check_linear("the adjoint")
    zero = jnp.zeros_like(y.reshape(y.shape[0], -1)[:, 0])  # which inside a shard_map varies as y does
    return jax.vjp(
      self, jnp.broadcast_to(zero.reshape(-1, *[1] * len(self.event)), (y.shape[0], *self.event))
    )[1](y)[0]

  def solve(self, spread: jax.Array, residual: jax.Array) -> jax.Array:
    """The solution (spread_i A A^T + noise^2)^-1 residual_i for each row, spread [B].

    It is in closed form with a gram, else by conjugate gradients. Measurements without noise need a spread
    above zero.
    """
    self.check_linear("this method")
    spread = spread.astype(residual.dtype)
    variance = jnp.square(jnp.asarray(self.noise, residual.dtype))
    if self.gram is not None:
      return residual / expand(spread * jnp.asarray(self.gram, residual.dtype) + variance, residual)

    def product(v):
      return expand(spread, v) * self(self.adjoint(v)) + variance * v

    return conjugate_gradients(product, residual, min(int(np.prod(residual.shape[1:])), MOST_ITERATIONS))

  def count(self, y: jax.Array) -> jax.Array:
    """How many numbers a y tells.

    This is the dimension of the range of a linear operator with a gram, else the size of one y.
    """
    if not self.linear or self.gram is None:
      return jnp.asarray(float(np.prod(y.shape[1:])), y.dtype)
    # z^T P z for signs z is the trace of a projection P that only drops entries, or none.
    signs = jnp.asarray(np.random.default_rng(0).choice([-1.0, 1.0], (1, *y.shape[1:])), y.dtype)
    return jnp.sum(signs * self.seen(signs))

  def steepness(self, x: jax.Array, moves: int = 8) -> jax.Array:
    """The largest squared singular value of A's Jacobian at each row of x, [B].

    It is the gram, or found by power iteration from below.
    """
    if self.linear and self.gram is not None:
      return jnp.full(x.shape[:1], self.gram, x.dtype)
    across, back = jax.linearize(self, x)[1], jax.vjp(self, x)[1]
    size = lambda v: jnp.sqrt(sum_rows(jnp.square(v)))

    def move(carry, _):
      v, _ = carry
      v = back(across(v))[0]
      found = size(v)
      return (v / expand(jnp.maximum(found, jnp.finfo(x.dtype).tiny), v), found), None

    start = jnp.asarray(np.random.default_rng(0).standard_normal(x.shape[1:]), x.dtype)[
      None
    ] + jnp.zeros_like(x)
    start = start / expand(size(start), start)
    return jax.lax.scan(move, (start, size(start)), None, length=moves)[0][1]

  def log_likelihood(self, y: jax.Array, x: jax.Array) -> jax.Array:
    """log p(y | x) up to its normaliser, in nats: [B]."""
    return -0.5 * sum_rows(jnp.square((y - self(x)) / jnp.asarray(self.noise, y.dtype)))

  def check_linear(self, who: str) -> None:
    """Raises ValueError for an operator that is not linear."""
    if not self.linear:
      raise ValueError(
        f"{who} needs a linear operator and {self.name} is not one: take dps or daps, which do not"
      )

  def check(self, x_shape: Sequence[int], y_shape: Sequence[int]) -> None:
    """Raises ValueError unless x and y are what the operator takes and gives."""
    if tuple(x_shape[1:]) != self.event:
      raise ValueError(
        f"{self.name} measures data of shape {list(self.event)} and these have {list(x_shape[1:])}: make it "
        "for their shape"
      )
    if tuple(y_shape) != (x_shape[0], *self.measured):
      raise ValueError(
        f"{self.name} gives measurements {[x_shape[0], *self.measured]} and y has shape {list(y_shape)}: "
        "give one measurement a sample"
      )


MOST_ITERATIONS = 50


def conjugate_gradients(
  product: Callable[[jax.Array], jax.Array], b: jax.Array, iterations: int
) -> jax.Array:
  """The solution of a positive definite system for each row, by conjugate gradients.

  It takes `iterations` steps. b: [B, ...], whose rows do not meet.
  """
  dot = lambda u, v: jnp.sum((u * v).reshape(u.shape[0], -1), axis=1)
  tiny = jnp.finfo(b.dtype).tiny

  def step(carry, _):
    x, r, p, rr = carry
    ap = product(p)
    length = rr / jnp.maximum(dot(p, ap), tiny)
    x, r = x + expand(length, p) * p, r - expand(length, p) * ap
    new = dot(r, r)
    return (x, r, r + expand(new / jnp.maximum(rr, tiny), p) * p, new), None

  start = (jnp.zeros_like(b), b, b, dot(b, b))
  return jax.lax.scan(step, start, None, length=iterations)[0][0]


def measurement(
  operator: Callable[[Any, jax.Array], jax.Array],
  event: Sequence[int],
  *,
  params: Any = None,
  noise: Number = 0.0,
  linear: bool = False,
  gram: float | None = None,
  name: str = "measurement",
) -> Measurement:
  """A measurement of one's own.

  Args:
    operator: pure function (params, x [B, *event]) -> y [B, *measured]. Build it once: a new function
      recompiles.
    event: shape of one x, such as (8, 8, 1).
    params: its first argument, a pytree.
    noise: standard deviation of the noise.
    linear: whether it is linear; checked on random points.
    gram: c where A A^T = c times the identity on what is measured: systems are then solved in closed form.
      Checked.
    name: for messages.

  Raises:
    ValueError: an operator that does not take such data, is not linear, has another gram, or a negative
      noise.

  >>> first = measurement(lambda params, x: x[:, :1], (3,), noise=0.1, linear=True, gram=1.0)
  >>> first.adjoint(jnp.ones((1, 1))).tolist(), first.measured
  ([[1.0, 0.0, 0.0]], (1,))
  """
  event = tuple(int(n) for n in event)
  if not isinstance(noise, Tracer) and not np.all(np.asarray(noise) >= 0):
    raise ValueError(f"{name}: noise is a standard deviation, so it is 0 or more, got {noise}")
  found = Measurement(params, noise, gram, operator, event, bool(linear), name)
  try:
    shape = found.operator_shape(2)
  except (TypeError, ValueError) as error:
    raise ValueError(f"{name} does not take data of shape {list(event)}: {error}") from error
  if shape[:1] != (2,):
    raise ValueError(f"{name} returned shape {list(shape)} for two examples: the first axis is the batch's")
  if linear:
    _check_claims(found, shape)
  return found


def _check_claims(found, shape):
  """Linearity and gram on random points."""
  rng = np.random.default_rng(0)
  x, y = (jnp.asarray(rng.normal(size=(2, *one)), jnp.float32) for one in (found.event, shape[1:]))
  both = found(x[:1] + 2.0 * x[1:])
  if isinstance(both, Tracer):
    return  # made under jit, of numbers not known yet
  both = np.asarray(both)
  if not np.allclose(both, found(x[:1]) + 2.0 * found(x[1:]), atol=1e-3 * (1.0 + np.abs(both).max())):
    raise ValueError(
      f"{found.name} was called linear, and A(x + 2 x') is not A(x) + 2 A(x'): leave linear=False"
    )
  if found.gram is not None:
    seen = np.asarray(found(found.adjoint(y)))
    again = np.asarray(found(found.adjoint(jnp.asarray(seen))))
    if not np.allclose(again, found.gram * seen, atol=1e-3 * (1.0 + np.abs(again).max())):
      raise ValueError(
        f"{found.name}: A A^T is not {found.gram} times the identity on what is measured: leave gram out"
      )
