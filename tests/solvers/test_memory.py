"""Memory of a sampler does not grow with its number of steps, as the compiler accounts for it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion import oracles, processes, solvers
from diffusion.solvers.executor import _run

SHAPE = (16, 64)


def memory(solver, trajectory=False):
  """(bytes of temporaries and outputs, bytes of the table itself) of the compiled program."""
  process = processes.vp_linear()
  oracle = oracles.gaussian(process, jnp.zeros(SHAPE[1]), jnp.eye(SHAPE[1]))
  x = jax.ShapeDtypeStruct(SHAPE, jnp.float32)
  keys = jax.random.split(jax.random.key(0), SHAPE[0]) if solver.stochastic else None
  found = _run.lower(oracle, solver, x, keys, None, None, trajectory=trajectory).compile().memory_analysis()
  return found.temp_size_in_bytes + found.output_size_in_bytes, sum(
    np.asarray(leaf).nbytes for leaf in jax.tree.leaves(solver)
  )


@pytest.mark.parametrize("name", ["dpmpp_3m", "unipc", "heun", "dpmpp_2m_sde", "predictor_corrector"])
def test_memory_does_not_grow_with_steps(name):
  """Sixteen times the steps: at most the table's own numbers more, where one stored state a step would be 4
  KiB each."""
  process = processes.vp_linear()
  few, many = (solvers.build(name, process, n) for n in (16, 256))
  (used, size), (used_by_many, size_of_many) = memory(few), memory(many)
  state = 4 * SHAPE[0] * SHAPE[1]
  assert used_by_many - used <= 2 * (size_of_many - size) + state
  assert used_by_many - used < 0.1 * state * (many.cost - few.cost)


def test_a_trajectory_costs_one_state_a_step():
  """The same measure sees memory where there is some."""
  process = processes.vp_linear()
  few, many = (solvers.build("ddim", process, n) for n in (16, 256))
  grown = memory(many, True)[0] - memory(few, True)[0]
  assert grown >= 4 * SHAPE[0] * SHAPE[1] * 240
