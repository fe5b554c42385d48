"""Differences of log-density along a curve in x and t.

From the time score and the data score together.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffusion.density_ratio.quadrature import on_device
from diffusion.density_ratio.quadrature_nodes import Nodes, gauss_legendre
from diffusion.math.precision import at_least_single
from diffusion.processes.base import GaussianProcess, Number
from diffusion.processes.paths import Path, as_path


def log_difference(
  time_score: Callable[[jax.Array, jax.Array, Any], jax.Array],
  score: Callable[[jax.Array, jax.Array, Any], jax.Array],
  path: Path | GaussianProcess,
  start: tuple[jax.Array, Number],
  stop: tuple[jax.Array, Number],
  *,
  nodes: Nodes | int = 64,
  curve: Callable[[jax.Array], jax.Array] | None = None,
  cond: Any = None,
) -> jax.Array:
  """The difference of log p_t(x) between two points, by a line integral of the scores.

  log p_t(x) at `stop` less that at `start` is the integral of s_t dt + s_x . dx along a curve
  (arXiv:2111.11010, section 4.3).

  Args:
    time_score: (x, t, cond) -> [B]; not called where both ends are at one time.
    score: (x, t, cond) -> [B, ...]; not called where both ends are at one place and there is no curve.
    path: the path or process that both belong to.
    start, stop: pairs (x [B, ...], t a number).
    nodes: on the path's interval between the two times (for two equal times on [0, 1] of the curve), or their
      number.
    curve: None for the straight line, or place in [0, 1] -> x [B, ...], differentiable, from start to stop.
    cond: handed to both scores.

  Returns:
    [B], nats.

  Raises:
    ValueError: times outside of the path, or x of different shapes.

  >>> from diffusion import oracles, processes
  >>> path = processes.vp_linear()
  >>> oracle = oracles.gaussian(path, jnp.ones(1), 0.25)
  >>> x, z = jnp.full((1, 1), 0.5), jnp.full((1, 1), -1.0)
  >>> found = log_difference(oracle.time_score, oracle.score, path, (x, 0.1), (z, 0.9))
  >>> exact = oracle.log_prob(z, jnp.array([0.9])) - oracle.log_prob(x, jnp.array([0.1]))
  >>> bool(abs(found - exact)[0] < 1e-4)
  True
  """
  path = as_path(path, "log_difference")
  (x_start, t_start), (x_stop, t_stop) = start, stop
  t_start, t_stop = float(t_start), float(t_stop)
  for t in (t_start, t_stop):
    if not float(path.t_min) <= t <= float(path.t_max):
      raise ValueError(
        f"log_difference got the time {t}, but {path.name} runs from {path.t_min} to {path.t_max}"
      )
  if x_start.shape != x_stop.shape:
    raise ValueError(f"a curve joins points of one shape, got {x_start.shape} and {x_stop.shape}")
  dtype = at_least_single(x_start.dtype)
  moves, waits = curve is not None or x_start is not x_stop, t_start == t_stop
  places, lengths = _places(nodes, path, t_start, t_stop, dtype)
  straight = lambda place: x_start + place.astype(x_start.dtype) * (x_stop - x_start)
  curve = straight if curve is None else curve
  rows = jnp.zeros(x_start.shape[:1], dtype)

  def add(total, node):
    place, t, length = node
    t = jnp.full_like(rows, t)
    value = rows
    if moves:
      x, slope = jax.jvp(curve, (place,), (jnp.ones_like(place),))
      push = score(x, t, cond) * slope
      value += jnp.sum(push.reshape(push.shape[0], -1).astype(dtype), axis=1)
    else:
      x = x_start
    if not waits:
      value += jnp.asarray(t_stop - t_start, dtype) * time_score(x, t, cond).astype(dtype)
    return total + length * value, None

  times = t_start + (t_stop - t_start) * places
  return jax.lax.scan(add, rows, tuple(jnp.asarray(a, dtype) for a in (places, times, lengths)))[0]


def log_ratio_along(
  time_score: Callable[[jax.Array, jax.Array, Any], jax.Array],
  score: Callable[[jax.Array, jax.Array, Any], jax.Array],
  path: Path | GaussianProcess,
  x: jax.Array,
  z: jax.Array | None = None,
  *,
  nodes: Nodes | int = 64,
  curve: Callable[[jax.Array], jax.Array] | None = None,
  end_log_prob: Callable[[jax.Array], jax.Array] | None = None,
  cond: Any = None,
) -> jax.Array:
  """The log ratio log p_1(x) - log p_0(x) by way of a point z at the end of the path.

  The way leads from (x, t_min) to (z, t_max), then from z to x at t_max.

  The fixed-x integral asks for time scores far from where the data of most times are; on a curve that follows
  them the time score and the score are asked where they were trained.

  Args:
    time_score, score, path, nodes, curve, cond: those of `log_difference`; the curve leads from x to z.
    x: [B, ...].
    z: [B, ...], by default zeros.
    end_log_prob: log p_1 [B, ...] -> [B] where it is known (a prior), instead of the second integral.

  Returns:
    [B], nats.
  """
  path = as_path(path, "log_ratio_along")
  z = jnp.zeros_like(x) if z is None else z
  there = log_difference(
    time_score, score, path, (x, path.t_min), (z, path.t_max), nodes=nodes, curve=curve, cond=cond
  )
  if end_log_prob is not None:
    return there + end_log_prob(x) - end_log_prob(z)
  number = nodes if isinstance(nodes, int) else len(nodes.t)
  back = log_difference(time_score, score, path, (z, path.t_max), (x, path.t_max), nodes=number, cond=cond)
  return there + back


def _places(nodes, path, t_start, t_stop, dtype):
  """Places in [0, 1] and their weights, in float64."""
  if t_start == t_stop or (isinstance(nodes, int) and t_start > t_stop):
    number = nodes if isinstance(nodes, int) else len(nodes.t)
    if number < 1:
      raise ValueError(f"an integral needs at least one node, got {number}")
    u, w = np.polynomial.legendre.leggauss(number)
    return 0.5 * (u + 1.0), 0.5 * w
  low, high = sorted((t_start, t_stop))
  nodes = gauss_legendre(path, nodes, t_min=low, t_max=high) if isinstance(nodes, int) else nodes
  on_device(nodes, dataclasses.replace(path, t_min=low, t_max=high), dtype)
  return (nodes.t - t_start) / (t_stop - t_start), nodes.weight / (high - low)
