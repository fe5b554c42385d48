"""Memory of a sampler does not grow with its number of steps, as the compiler accounts for it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from every_solver import EVERY

from diffusion import denoisers, oracles, processes, solvers
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


@pytest.mark.parametrize(
  "name",
  [
    *("time_shift", "daps", "ddrm", "watched", "recovery_langevin", "masked_ancestral", "remasking"),
    *(
      pytest.param(name, marks=pytest.mark.slow)
      for name in ("path_planning", "confidence_unmasking", "euler_rates", "gibbs_corrector")
    ),
  ],
)
def test_memory_of_every_other_kind_does_not_grow_with_steps(name):
  """The same of solvers that are no tables, eight samples wide: the grid's own numbers and at most one state
  more."""
  case = EVERY[name]
  keys = jax.random.split(jax.random.key(0), 8)
  x, used = case.start(keys), []
  for n in (16, 256):
    solver = case.build(n)
    found = _run.lower(case.denoiser().inner, solver, x, keys, None, None).compile().memory_analysis()
    size = sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(solver))
    used.append(found.temp_size_in_bytes + found.output_size_in_bytes - 2 * size)
  assert used[1] - used[0] <= x.nbytes, used


def test_memory_of_a_rematerialised_gradient_does_not_grow_with_steps():
  """Gradients through 8 and 64 steps within 1.3 of each other, of a denoiser whose activations are 128 times
  its state; without it they grow with the steps."""
  process, width, count = processes.vp_linear(), 512, 4
  params = jax.ShapeDtypeStruct((width, width), jnp.float32)
  x = jax.ShapeDtypeStruct((256, count), jnp.float32)

  def network(params, x, t, cond):
    h = jnp.tile(x, (1, width // count))
    for _ in range(2):
      h = jnp.tanh(h @ params)
    return h.reshape(x.shape[0], -1, count).mean(1)

  def memory(n, remat):
    solver = solvers.build("ddim", process, n)
    own = lambda params: denoisers.from_function(network, process, denoisers.x0(), params)
    loss = lambda params, x: jnp.sum(solvers.sample(own(params), solver, x, remat=remat) ** 2)
    found = jax.jit(jax.grad(loss)).lower(params, x).compile().memory_analysis()
    return found.temp_size_in_bytes

  few, many = memory(8, True), memory(64, True)
  assert many < 1.3 * few, (few, many)
  assert memory(64, False) > 4 * many


def test_a_trajectory_costs_one_state_a_step():
  """The same measure sees memory where there is some."""
  process = processes.vp_linear()
  few, many = (solvers.build("ddim", process, n) for n in (16, 256))
  grown = memory(many, True)[0] - memory(few, True)[0]
  assert grown >= 4 * SHAPE[0] * SHAPE[1] * 240
