"""Divergence of a vector field from its directional derivatives: exact, or estimated from probes.

For a probe e with mean zero and covariance I, e^T J e has mean tr J (Hutchinson; arXiv:1810.01367, eq. 7). Rademacher
probes are exact for a diagonal J and never worse in variance than Gaussian ones.
"""

import jax
import jax.numpy as jnp
import numpy as np

METHODS = ("exact", "rademacher", "gaussian")

# Directional derivatives taken at once.
WIDTH = 16


def check(method, keys, probes, rows):
  """Raises ValueError on an unknown method, too few probes, or keys that are missing or not one a row."""
  if method not in METHODS:
    raise ValueError(f"divergence {method!r} is unknown: choose {', '.join(METHODS)}")
  if method == "exact":
    return
  if keys is None or keys.shape != (rows,):
    found = "none" if keys is None else f"shape {keys.shape}"
    raise ValueError(
        f"divergence={method!r} draws probes from one key a row, got {found}:"
        f" give keys=jax.random.split(jax.random.key(0), {rows})")
  if probes < 1:
    raise ValueError(f"probes={probes}: one is the least")


def draw_probes(method, keys, x, probes):
  """Probes [P, B, ...], row i from keys[i] alone; None for the exact divergence, which needs none."""
  if method == "exact":
    return None
  draw = jax.random.rademacher if method == "rademacher" else jax.random.normal
  one = lambda key: draw(key, (probes, *x.shape[1:]), x.dtype)
  return jnp.moveaxis(jax.vmap(one)(keys), 1, 0)


def exact(derivative, x):
  """Trace of a linear map given by its action on tangents shaped like x: [1, B], one derivative a dimension."""
  size = int(np.prod(x.shape[1:]))

  def diagonal(index):
    unit = jnp.broadcast_to((jnp.arange(size) == index).astype(x.dtype).reshape(1, *x.shape[1:]), x.shape)
    return _row_sum(unit * derivative(unit))

  return jnp.sum(_in_chunks(diagonal, jnp.arange(size)), axis=0, keepdims=True)


def estimates(derivative, probes):
  """e^T J e of each probe: [P, B, ...] -> [P, B]."""
  return _in_chunks(lambda probe: _row_sum(probe * derivative(probe)), probes)


def _row_sum(x):
  return jnp.sum(x.reshape(x.shape[0], -1), axis=1)


def _in_chunks(fn, xs):
  """fn over the leading axis, WIDTH items at a time; the last chunk is filled up, so there is one program."""
  count = xs.shape[0]
  if count <= WIDTH:
    return jax.vmap(fn)(xs)
  chunks = -(-count // WIDTH)
  xs = jnp.concatenate([xs, jnp.repeat(xs[-1:], chunks * WIDTH - count, axis=0)])
  out = jax.lax.map(jax.vmap(fn), xs.reshape(chunks, WIDTH, *xs.shape[1:]))
  return out.reshape(chunks * WIDTH, *out.shape[2:])[:count]
