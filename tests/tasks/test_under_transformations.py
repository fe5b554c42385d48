"""Restoring, editing and classifying inside a user's own jit, and over devices by shard_map.

What comes out is what comes out outside.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from diffusion import oracles, processes, solvers, tasks

ROWS = 4
MASK = np.array([1.0, 0.0, 1.0])
PROCESS = processes.edm(sigma_min=0.01, sigma_max=10.0)
PRIOR = oracles.gaussian_mixture(
  PROCESS, None, [[1.0, 0.0, -1.0], [-1.0, 0.5, 0.3]], 0.1, labels=[0, 1], dtype=jnp.float32
)
GRID = solvers.grids.karras(PROCESS, 4, clean=True)
TABLE = solvers.ancestral(PROCESS, GRID)


EPS = float(np.finfo(np.float32).eps)


def inputs():
  """x, y and keys, one each a row."""
  key = jax.random.key(0)
  x = PROCESS.prior(jax.random.split(key, ROWS), (3,))
  y = (
    jax.random.normal(jax.random.fold_in(key, 1), (ROWS, 3), jnp.float32)
    * jnp.asarray(MASK, jnp.float32)[None]
  )
  return x, y, jax.random.split(jax.random.fold_in(key, 2), ROWS)


def through(transform=None, solver=TABLE, post_step=None):
  """(x, y, keys) -> samples, by a measurement made on the way, as a user would write it."""

  def run(x, y, keys):
    seen = tasks.inpainting(MASK, 0.3)
    model = PRIOR if transform is None else transform(seen, y)(PRIOR)
    built = solver if not callable(solver) or isinstance(solver, solvers.Table) else solver(seen, y)
    return solvers.sample(model, built, x, keys=keys, post_step=post_step and post_step(seen, y))

  return run


USES = {
  "dps": through(tasks.dps),
  "dps, normalized": through(functools.partial(tasks.dps, normalized=True)),
  "pigdm": through(tasks.pigdm),
  "replacement": through(post_step=lambda seen, y: tasks.replacement(PROCESS, seen, y)),
  "ddrm": through(solver=lambda seen, y: tasks.ddrm(PROCESS, GRID, seen, y)),
  "daps": through(solver=lambda seen, y: tasks.daps(PROCESS, GRID, seen, y)),
  "daps, nonlinear": through(
    solver=lambda seen, y: tasks.daps(PROCESS, GRID, tasks.measurement(squares, (3,), noise=0.3), y, moves=3)
  ),
  "observe": lambda x, y, keys: tasks.inpainting(MASK, 0.3).observe(x, keys),
  "edit": lambda x, y, keys: tasks.edit(PRIOR, TABLE, x, keys, mask=MASK, repeats=2).x,
  "surprise": lambda x, y, keys: tasks.surprise(PRIOR, x, num_steps=2).score,
  "translate": lambda x, y, keys: (
    tasks.translate(PRIOR, PRIOR, x, num_steps=2, target_cond={"label": jnp.ones(x.shape[0], jnp.int32)}).x
  ),
  "classify": lambda x, y, keys: (
    tasks.classify(PRIOR, x, 2, keys, jnp.asarray([0.5, 1.0], jnp.float32)).log_prob
  ),
}


def squares(params, x):
  del params
  return jnp.square(x)


@pytest.mark.parametrize(
  "name", ["daps", *(pytest.param(n, marks=pytest.mark.slow) for n in USES if n != "daps")]
)
def test_uses_run_inside_a_users_jit_and_shard_map(name):
  x, y, keys = inputs()
  expected = USES[name](x, y, keys)
  assert np.all(np.isfinite(np.asarray(expected, np.float32)[np.asarray(expected) > -np.inf]))
  # A sample between two modes makes more of a rounding than 1e-5: as much as one of x itself moves its row.
  moved = [
    np.abs(np.asarray(USES[name](x * jnp.float32(1 + step), y, keys)) - expected) for step in (EPS, -EPS)
  ]
  moved = np.nan_to_num(np.max(moved, axis=0))
  moved = moved.reshape(ROWS, -1).max(axis=1).reshape((ROWS,) + (1,) * (moved.ndim - 1))

  def check(found):
    close = np.isclose(found, expected, rtol=1e-5, atol=1e-5)
    assert (close | (np.abs(np.asarray(found) - expected) <= 2 * moved)).all(), (found, expected, moved)

  check(jax.jit(USES[name])(x, y, keys))
  rows = PartitionSpec("d")
  mesh = Mesh(np.array(jax.devices()[:2]), ("d",))
  sharded = jax.jit(jax.shard_map(USES[name], mesh=mesh, in_specs=(rows, rows, rows), out_specs=rows))
  check(sharded(x, y, keys))
