"""The config of a distilled model.

The steps of a teacher that it makes at once, and the weights of guidance that it knows.
"""

import inspect
from collections.abc import Mapping

import jax
import numpy as np

from diffusion import configuration, losses, solvers
from diffusion.errors import UserError
from diffusion.factories import plain

OF_STEPS = ("teacher_steps", "teacher_grid", "sampler")
"""Keys of config.loss where the objective learns a teacher's steps; what they say can only be built with the
process."""


def taught(section, process):
  """(times [n+1], sampler) of the teacher's steps that a config's loss section learns, None for a loss of no
  steps.

  section: for a factory with an argument `teacher_grid`, `teacher_steps` (a whole number), `teacher_grid` (as
  config.sampler.grid: a name, a section with a factory, or nothing for DDIM's own) and `sampler` ('ddim' or
  'double_step').
  """
  factory = configuration.resolve(section["factory"], "config.loss") if "factory" in section else None
  if not inspect.isroutine(factory) or "teacher_grid" not in configuration.arguments(factory):
    return None
  steps, grid = section.get("teacher_steps"), plain(section.get("teacher_grid")) or None
  if not isinstance(steps, int):
    raise UserError(
      f"config.loss.teacher_steps is the number of the teacher's steps, such as 64; it is {steps!r}"
    )
  try:
    if isinstance(grid, Mapping):
      grid = configuration.build(grid, process, steps, where="config.loss.teacher_grid")
    return solvers.times("ddim", process, steps, grid), section.get("sampler", "ddim")
  except (ValueError, TypeError) as error:
    raise UserError(f"config.loss.teacher_grid: {error}") from error


def own_solver(section, process):
  """The one solver that a student of a teacher's steps was distilled for, by its loss section; None for any
  other loss."""
  found = taught(section, process)
  if found is None:
    return None
  grid, sampler = found
  try:
    losses.student_steps(process, grid, sampler)  # says what is wrong with them
    grid = losses.halved(grid) if sampler == "ddim" else grid
    return solvers.build(sampler, process, len(grid) - 1, grid=grid)
  except ValueError as error:
    raise UserError(f"config.loss: {error}") from error


def same_solver(first, second) -> bool:
  """Whether two solvers are the same table, to the precision of a run."""
  if not isinstance(first, solvers.Table) or not isinstance(second, solvers.Table):
    return False
  if jax.tree.map(np.shape, jax.tree.leaves(first)) != jax.tree.map(np.shape, jax.tree.leaves(second)):
    return False
  return all(
    np.allclose(a, b, rtol=1e-5, atol=1e-6) for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second))
  )


def guidance_range(section):
  """(low, high) of the weights of guidance that a loss section's `losses.random_guidance` draws, None without
  one.

  >>> guidance_range(dict(transforms=[dict(factory="losses.random_guidance", high=2.0)]))
  (0.0, 2.0)
  """
  for transform in map(plain, section.get("transforms") or ()):
    if named(transform) is losses.random_guidance:
      defaults = {
        name: argument.default for name, argument in configuration.arguments(losses.random_guidance).items()
      }
      return tuple(float(transform.get(end, defaults[end])) for end in ("low", "high"))
  return None


def named(transform):
  """The factory that a section among config.loss.transforms names; None if it is no such section, which
  building it will say."""
  known = isinstance(transform, Mapping) and isinstance(transform.get("factory"), str)
  return configuration.resolve(transform["factory"], "config.loss.transforms") if known else None
