"""Stages of distillation by halving the steps, one program for all of them.

A student learns two steps of its teacher and is the teacher of the next.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from diffusion import losses
from diffusion.run.fit import minimise
from diffusion.run.step import ClosedLoss


class Students(NamedTuple):
  """Parameters by number of steps: for DDIM, and for `solvers.double_step`."""

  ddim: dict[int, Any]
  double_step: dict[int, Any]


def learner(
  close: Callable[[Any], ClosedLoss], rate: float, updates: int, batch: Callable[[jax.Array], Any]
) -> Callable[..., tuple[Any, jax.Array]]:
  """The function that trains a student: learn(teacher, steps, key) -> (student, errors [updates]).

  It takes `updates` updates of Adam from the teacher's parameters, the rate falling linearly to nought.

  Args:
    close: function `StudentSteps` -> the closed loss, with the roles 'model' and 'teacher'.
    rate: the first learning rate.
    updates: how many.
    batch: function key -> batch, called inside the scan.

  One jitted function: other teachers, keys and steps (of the same number, see `repeated`) do not trace it
  again.
  """
  transform = optax.chain(
    optax.clip_by_global_norm(1.0), optax.adam(optax.linear_schedule(rate, 0.0, updates), b2=0.99)
  )

  @jax.jit
  def learn(teacher, steps, key):
    loss = close(steps)
    data_key, draw_key, init_key = jax.random.split(key, 3)
    loss_params, state = loss.init(init_key)
    start = {"model": teacher, "loss": loss_params}
    found = minimise(
      loss, transform, batch, start, state, data_key, draw_key, {"teacher": teacher}, steps=updates
    )
    return found.params["model"], found.history

  return learn


def repeated(steps: losses.StudentSteps, count: int) -> losses.StudentSteps:
  """The same steps, each as often as makes `count` in all.

  Another length would be another program. The shares stay equal.

  >>> from diffusion import processes
  >>> repeated(losses.student_steps(processes.edm(), [4.0, 2.0, 1.0, 0.5, 0.0]), 4).t.tolist()
  [4.0, 4.0, 1.0, 1.0]
  """
  if count % len(steps.t):
    raise ValueError(f"{len(steps.t)} steps do not go into {count}")
  return jax.tree.map(lambda leaf: np.repeat(leaf, count // len(leaf)), steps)


def halve(
  learn: Callable[..., tuple[Any, jax.Array]],
  teacher: Any,
  process: Any,
  grid: np.ndarray,
  key: jax.Array,
  stochastic: tuple[int, ...] = (),
) -> Students:
  """Students of half the steps, of a quarter, ..., of one, by progressive distillation.

  Each is the teacher of the next (arXiv:2202.00512, algorithm 2).

  Args:
    learn: from `learner`.
    teacher: the parameters that make a DDIM step between neighbours of `grid`.
    process, grid: [n+1] decreasing times, n a power of two.
    key: of all stages.
    stochastic: numbers of steps for which a student of `solvers.double_step` is distilled too, from the DDIM
      student of as many.

  Returns:
    `Students`, for n/2, n/4, ..., 1 steps.
  """
  count = len(grid) - 1
  ddim, double_step = {}, {}
  stage = lambda params, grid, sampler: learn(
    params,
    repeated(losses.student_steps(process, grid, sampler), count),
    jax.random.fold_in(key, 2 * len(grid) + (sampler != "ddim")),
  )[0]
  while len(grid) > 2:
    teacher = stage(teacher, grid, "ddim")
    grid = losses.halved(grid)
    ddim[len(grid) - 1] = teacher
    if len(grid) - 1 in stochastic:
      double_step[len(grid) - 1] = stage(teacher, grid, "double_step")
  return Students(ddim, double_step)
