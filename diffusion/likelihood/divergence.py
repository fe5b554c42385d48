"""Divergence of a vector field from its directional derivatives: exact, or estimated from probes.

For a probe e with mean zero and covariance I, e^T J e has mean tr J (Hutchinson; arXiv:1810.01367, eq. 7).
Rademacher probes are exact for a diagonal J and never worse in variance than Gaussian ones.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from diffusion.math.directional import WIDTH, random_directions, trace
from diffusion.math.precision import sum_rows

METHODS = ("exact", "rademacher", "gaussian")


def check(method: str, keys: jax.Array | None, probes: int, rows: int) -> None:
  """Raises ValueError on an unknown method, too few probes, or keys that are missing or not one a row."""
  if method not in METHODS:
    raise ValueError(f"divergence {method!r} is unknown: choose {', '.join(METHODS)}")
  if method == "exact":
    return
  if keys is None or keys.shape != (rows,):
    found = "none" if keys is None else f"shape {keys.shape}"
    raise ValueError(
      f"divergence={method!r} draws probes from one key a row, got {found}:"
      f" give keys=jax.random.split(jax.random.key(0), {rows})"
    )
  if probes < 1:
    raise ValueError(f"probes={probes}: one is the least")


def draw_probes(method: str, keys: jax.Array | None, x: jax.Array, probes: int) -> jax.Array | None:
  """Probes [P, B, ...], row i from keys[i] alone; None for the exact divergence, which needs none."""
  if method == "exact":
    return None
  one = lambda key: random_directions(key, (probes, *x.shape[1:]), method, x.dtype)
  return jnp.moveaxis(jax.vmap(one)(keys), 1, 0)


def exact(derivative: Callable[[jax.Array], jax.Array], x: jax.Array) -> jax.Array:
  """The trace of a linear map, by one derivative a dimension: [1, B].

  The map is given by its action on tangents shaped like x.
  """
  return trace(derivative, x)[None]


def estimates(derivative: Callable[[jax.Array], jax.Array], probes: jax.Array) -> jax.Array:
  """e^T J e of each probe: [P, B, ...] -> [P, B]."""
  one = lambda probe: sum_rows(probe * derivative(probe))
  return jax.lax.map(one, probes, batch_size=min(WIDTH, len(probes)))
