"""Derivatives along a line, d^k/dh^k f(x + h v) at h = 0, of any order.

By nested forward mode, or by differences.

Forward mode never forms a gradient, a Jacobian or a Hessian; differences need f alone, all points at once.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from diffusion.math.precision import sum_rows

METHODS = ("jvp", "jet")
KINDS = ("rademacher", "gaussian", "sphere")
WIDTH = 16  # derivatives taken at once


def derivatives(
  f: Callable[[jax.Array], Any], x: jax.Array, v: jax.Array, order: int = 1, *, method: str = "jvp"
) -> tuple[Any, ...]:
  """(f, f', ..., f^(order)) at x along v, exactly.

  Args:
    f: function of one array; returns an array or a pytree of arrays.
    x, v: arrays of one shape and dtype; v need not have norm one.
    order: the highest derivative, 0 or more.
    method: 'jvp' nests forward mode and takes every function (its cost doubles with each order at worst);
      'jet' is Taylor mode (`jax.experimental.jet`), whose cost grows as the square of the order, for
      functions whose every primitive has a Taylor rule: tanh, sin, exp and log have one, softplus has none.

  Returns:
    A tuple of order + 1 values like f(x).

  Raises ValueError for an order below zero, shapes or dtypes that differ, an unknown method, or a function
  without Taylor rules under 'jet'.

  >>> x, v = jnp.array([0.0, 1.0]), jnp.array([1.0, 0.0])
  >>> [float(d) for d in derivatives(lambda x: jnp.sum(x**3) + x[0] * x[1], x, v, 3)]
  [1.0, 1.0, 0.0, 6.0]
  """
  check_line(x, v, order)
  if method not in METHODS:
    raise ValueError(
      f"method {method!r} is unknown: choose one of {', '.join(METHODS)}, or call `differences`"
    )
  if order == 0:
    return (f(x),)
  if method == "jet":
    return _taylor(f, x, v, order)

  def tower(k):
    if k == 0:
      return lambda x: (f(x),)
    lower = tower(k - 1)

    def upper(x):
      values, slopes = jax.jvp(lower, (x,), (v,))
      return (*values, slopes[-1])

    return upper

  return tower(order)(x)


def _taylor(f, x, v, order):
  from jax.experimental import jet  # experimental: where it is gone, everything else here still works

  try:
    value, series = jet.jet(f, (x,), ((v, *[jnp.zeros_like(v)] * (order - 1)),))
  except (NotImplementedError, TypeError, AttributeError, ValueError) as error:
    raise ValueError(
      f"this function has no Taylor rule for one of its steps ({error}): use method='jvp'"
    ) from error
  leaves, treedef = jax.tree.flatten(value)
  series = treedef.flatten_up_to(series)
  return (
    value,
    *(jax.tree.unflatten(treedef, [series[i][k] for i in range(len(leaves))]) for k in range(order)),
  )


def differences(
  f: Callable[[jax.Array], Any], x: jax.Array, v: jax.Array, order: int = 1, *, step: float | jax.Array
) -> tuple[Any, ...]:
  """(f, f', ..., f^(order)) at x along v from order + 1 values of f on a symmetric, equally spaced stencil.

  Points are x + step v (j - order / 2), j = 0..order, evaluated together (arXiv:2007.03317). The error of
  each derivative is O(step^2) or better; for an odd order f(x) itself is interpolated. Rounding adds about
  eps_machine |f| / step^k to the k-th: in float32 take steps of 0.05 to 0.1 of the length on which f varies.

  Raises ValueError for an order below one, a step that is not positive, or shapes or dtypes that differ.

  >>> x, v = jnp.array([1.0, 1.0]), jnp.array([1.0, 0.0])
  >>> [round(float(d), 2) for d in differences(lambda x: jnp.sum(x**2), x, v, 2, step=0.1)]
  [2.0, 2.0, 2.0]
  """
  check_line(x, v, order)
  if order < 1:
    raise ValueError(f"differences need order 1 or more, got {order}")
  if isinstance(step, (int, float)) and not step > 0:
    raise ValueError(f"the step of a difference is positive, got {step}: 0.1 is a start")
  offsets, weights = stencil(order)
  points = jax.vmap(lambda offset: x + offset * step * v)(jnp.asarray(offsets, x.dtype))
  values = jax.vmap(f)(points)

  def derivative(k):
    return jax.tree.map(
      lambda leaf: jnp.tensordot(jnp.asarray(weights[k], leaf.dtype), leaf, 1) / step**k, values
    )

  return tuple(derivative(k) for k in range(order + 1))


def random_directions(
  key: jax.Array, shape: tuple[int, ...], kind: str, dtype: DTypeLike = jnp.float32
) -> jax.Array:
  """Independent random directions with E v v^T = I: [num, ...].

  They are signs, normal, or uniform on the sphere of radius sqrt(D). Raises ValueError for another kind.

  >>> random_directions(jax.random.key(0), (2, 3), "rademacher").shape
  (2, 3)
  """
  if kind not in KINDS:
    raise ValueError(f"there are no directions {kind!r}: choose one of {', '.join(KINDS)}")
  if kind == "rademacher":
    return jax.random.rademacher(key, shape, dtype)
  v = jax.random.normal(key, shape, dtype)
  if kind == "gaussian":
    return v
  rows = v.reshape(shape[0], -1)
  length = jnp.sqrt(jnp.sum(rows * rows, axis=1, keepdims=True) / rows.shape[1])
  return (rows / length).reshape(shape)


def trace(derivative: Callable[[jax.Array], jax.Array], x: jax.Array, *, width: int = WIDTH) -> jax.Array:
  """The trace of a linear map, by one derivative a dimension: [B].

  The map is given by its action on tangents shaped like x. The trace is in at least float32.

  Args:
    derivative: v [B, ...] -> [B, ...], such as the derivative of a score at x along v.
    x: [B, ...].
    width: derivatives held in memory at a time.

  >>> trace(lambda v: v * jnp.array([[1.0, 2.0, 4.0]]), jnp.zeros((2, 3))).tolist()
  [7.0, 7.0]
  """
  size = int(np.prod(x.shape[1:]))

  @jax.checkpoint  # else a backward pass would keep the residuals of all derivatives
  def diagonal(index):
    unit = (jnp.arange(size) == index).astype(x.dtype).reshape(1, *x.shape[1:]) + jnp.zeros_like(
      x
    )  # which inside a shard_map varies as x does
    return sum_rows(unit * derivative(unit))

  return jnp.sum(jax.lax.map(diagonal, jnp.arange(size), batch_size=min(width, size)), axis=0)


def stencil(order: int) -> tuple[np.ndarray, np.ndarray]:
  """The finite-difference stencil of all derivatives up to an order.

  It is (offsets [P], weights [P, P]) with P = order + 1: row k of the weights gives the k-th derivative for
  step one.

  The polynomial through P values, differentiated at zero; float64.

  >>> [row.round(2).tolist() for row in stencil(2)]
  [[-1.0, 0.0, 1.0], [[0.0, 1.0, 0.0], [-0.5, 0.0, 0.5], [1.0, -2.0, 1.0]]]
  """
  offsets = np.arange(order + 1) - order / 2
  powers = np.stack([offsets**k / math.factorial(k) for k in range(order + 1)], axis=1)
  weights = np.linalg.inv(powers)
  weights[np.abs(weights) < 1e-12] = 0.0
  return offsets, weights


def check_line(x: jax.Array, v: jax.Array, order: int) -> None:
  """Raises ValueError unless x and v are alike and the order is a whole number, zero or more."""
  if not isinstance(order, int) or order < 0:
    raise ValueError(f"the order of a derivative is a whole number, 0 or more, got {order!r}")
  if jnp.shape(x) != jnp.shape(v) or jnp.result_type(x) != jnp.result_type(v):
    raise ValueError(
      f"x and its direction v have one shape and one dtype, got {jnp.shape(x)} {jnp.result_type(x)} and "
      f"{jnp.shape(v)} {jnp.result_type(v)}"
    )
