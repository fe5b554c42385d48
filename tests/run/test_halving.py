"""Progressive halving: students of a flow that is known, by one program for all stages."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion import denoisers, losses, processes
from diffusion.run import halving


@pytest.mark.slow
@pytest.mark.standard_promotion
def test_halving_learns_the_flow_of_a_point():
  """For data at one point every step's target is that point: students of any number of steps stay at a
  network that says it."""
  process = processes.vp_cosine()
  template = denoisers.from_function(
    lambda own, x, t, cond: jnp.broadcast_to(own[None], x.shape), process, denoisers.x0()
  )
  close = lambda steps: losses.chain(
    losses.progressive_distillation(process, steps),
    losses.at_times(losses.step_times(steps), roles=losses.roles(model=template, teacher=template)),
  )
  traces = []

  def batches(key):
    traces.append(1)
    return {"x": jnp.full((4, 2), 0.5)}

  learn = halving.learner(close, 0.1, 20, batches)
  students = halving.halve(
    learn, jnp.asarray([0.5, -0.5]), process, np.linspace(1.0, 0.0, 9), jax.random.key(0), stochastic=(2,)
  )
  assert sorted(students.ddim) == [1, 2, 4] and sorted(students.double_step) == [2]
  for params in (*students.ddim.values(), *students.double_step.values()):
    np.testing.assert_allclose(params, [0.5, -0.5], atol=1e-6)
  assert len(traces) == 1  # one program for all stages
  moved, errors = learn(
    jnp.asarray([0.3, 0.0]),
    halving.repeated(losses.student_steps(process, [1.0, 0.5, 0.0]), 8),
    jax.random.key(1),
  )
  np.testing.assert_allclose(moved, [0.3, 0.0], atol=1e-6)
  assert float(errors.max()) < 1e-10 and len(traces) == 1
