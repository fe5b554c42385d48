"""The ratio as an integral over t at fixed x."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from diffusion.density_ratio.quadrature_nodes import Nodes, gauss_legendre
from diffusion.math.precision import at_least_single
from diffusion.processes.base import GaussianProcess
from diffusion.processes.paths import Path, as_path


def log_ratio(
  time_score: Callable[[jax.Array, jax.Array, Any], jax.Array],
  path: Path | GaussianProcess,
  x: jax.Array,
  *,
  nodes: Nodes | int = 64,
  cond: Any = None,
) -> jax.Array:
  """log p_1(x) - log p_0(x): the integral of the time score at fixed x (arXiv:2111.11010, eq. 5).

  Args:
    time_score: (x [B, ...], t [B], cond) -> [B].
    path: a path or a Gaussian process; p_0 and p_1 are at its t_min and t_max.
    x: [B, ...].
    nodes: from `gauss_legendre` or `bridges`, or a number of Gauss-Legendre nodes equal in t.
    cond: handed to the time score.

  Returns:
    [B], nats.

  Raises:
    ValueError: nodes outside of the path, or so close together that the precision of x does not tell them
      apart.

  >>> from diffusion import oracles, processes
  >>> path = processes.spherical()                                          # from N(0, 1) to N(0, 1/4)
  >>> oracle = oracles.path_mixture(path, second=([1.0], [[0.0]], [0.25]))
  >>> log_ratio(oracle.time_score, path, jnp.zeros((1, 1))).round(4).tolist()
  [0.693...]
  """
  path = as_path(path, "log_ratio")
  nodes = gauss_legendre(path, nodes) if isinstance(nodes, int) else nodes
  dtype = at_least_single(x.dtype)
  t, weight = on_device(nodes, path, dtype)
  rows = jnp.zeros(x.shape[:1], dtype)

  def add(total, node):
    value = time_score(x, jnp.full_like(rows, node[0]), cond)
    if value.shape != rows.shape:
      raise ValueError(
        f"time_score returned shape {value.shape} for {x.shape[0]} rows: it is one number per example"
      )
    return total + node[1] * value.astype(dtype), None

  return jax.lax.scan(add, rows, (t, weight))[0]


def on_device(nodes: Nodes, path: Path, dtype: DTypeLike) -> tuple[jax.Array, jax.Array]:
  """Nodes and weights of a quadrature in one precision: (t, weight).

  Raises ValueError where the precision is too low for them, or they are outside of the path.
  """
  t = np.asarray(nodes.t, np.float64)
  slack = 1e-9 * (float(path.t_max) - float(path.t_min))
  if t.min() < float(path.t_min) - slack or t.max() > float(path.t_max) + slack:
    raise ValueError(
      f"nodes from {t.min():.6g} to {t.max():.6g} leave {path.name}, which runs from {path.t_min} to "
      f"{path.t_max}"
    )
  if np.any(np.abs(t.astype(dtype).astype(np.float64) - t) > 0.05 * np.asarray(nodes.weight)):
    raise ValueError(
      f"{jnp.dtype(dtype).name} does not tell neighbouring nodes of {path.name} apart: use float64 "
      "(jax.config.update('jax_enable_x64', True) and x in float64), or a path whose own clock resolves its "
      "end, such "
      "as processes.log_variance()"
    )
  return jnp.asarray(t, dtype), jnp.asarray(np.asarray(nodes.weight), dtype)
