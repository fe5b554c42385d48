"""Learning from another run: the steps of a teacher, and whether teacher, loss, network and sampler fit each other."""

from typing import Any

import jax
import numpy as np

from diffusion import losses, processes, solvers
from diffusion.errors import UserError
from diffusion.training import assembly, roles


def own_solver(objective: losses.Objective, process: Any) -> Any:
  """The one solver that a student of a teacher's steps is distilled for; None for any other objective."""
  if objective.steps is None:
    return None
  grid, sampler = objective.steps
  grid = losses.halved(grid) if sampler == "ddim" else np.asarray(grid)
  return solvers.build(sampler, process, len(grid) - 1, grid=grid)


def same_solver(first: Any, second: Any) -> bool:
  """Whether two tables have the same coefficients, to the precision of a run."""
  if jax.tree.map(np.shape, jax.tree.leaves(first)) != jax.tree.map(np.shape, jax.tree.leaves(second)):
    return False
  return all(
    np.allclose(a, b, rtol=1e-5, atol=1e-6) for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second))
  )


def check(parts: Any) -> None:
  """Raises UserError where other runs, the losses, the network and the sampler of a run do not fit each other."""
  for player in assembly.players_of(parts):
    _check_weights(
      parts, player.loss.objective, where := "config.loss.transforms has losses.random_guidance, and "
    )
    for name in player.loss.objective.needs:
      if parts.roles[name].saved is not None:
        _check_run(parts, parts.roles[name], player.loss.objective, where)


def _check_weights(parts, objective, where):
  if "guidance" in objective.conditions and not parts.dataset.num_classes:
    raise UserError(
      f"{where}the data have no classes to guide towards: leave it out to distil an unguided model"
    )
  if "guidance" in objective.conditions and getattr(parts.network, "guidance_size", None) == 0:
    raise UserError(
      f"{where}config.network does not take a weight: set config.network.guidance_size (64, say)"
    )
  own = own_solver(objective, parts.process)
  if own is not None and not same_solver(
    assembly.solver(parts.config.get("sampler") or {}, parts.process), own
  ):
    raise UserError(
      f"config.sampler must be what the student is distilled for: solver={own.name!r}, steps={own.nfe} and a grid with the "
      f"times {_times(own.t)} (every other node of one grid is solvers.grids.thinned)"
    )


def _check_run(parts, role, objective, where):
  at, saved = f"config.roles.{role.name}.run={role.source}", role.saved
  for what, there, here in (
    ("examples of shape", list(saved.shape), list(parts.dataset.shape)),
    ("classes:", saved.num_classes, parts.dataset.num_classes),
  ):
    if there != here:
      raise UserError(
        f"{at}: that run's data have {what} {there}, and config.data {here}; take that run's config.data"
      )
  apart = processes.apart(role.process, parts.process)
  if apart:
    raise UserError(
      f"{at}: that run's process is another than config.process, {apart}; take that run's config.process"
    )
  taught = assembly.objective_of(dict(loss=saved.loss, optimizer={}), role.process, saved.num_classes)
  asks, learned = objective.conditions.get("guidance"), taught.conditions.get("guidance")
  template = assembly.template(role)
  if template.needs_unconditional:
    if not saved.num_classes:
      raise UserError(
        f"{at}: guidance needs a conditional model, and that run's data have no classes; leave guidance out"
      )
    if learned is not None:
      raise UserError(
        f"{at}: that run has learned guidance already, weights {_range(learned)}; leave guidance out"
      )
    if not taught.drops_condition:
      raise UserError(
        f"{at}: guidance needs a model that knows the data without a label too, and that run was trained without "
        "condition dropout; train it with config.loss.condition_dropout=0.1"
      )
  by_condition = "guidance" in template.own_conditions
  if by_condition and asks is None:
    raise UserError(
      f"{at}: its guidance.by_condition needs the weights to learn: add dict(factory='losses.random_guidance', "
      "low=0.0, high=4.0) to config.loss.transforms, or leave it out"
    )
  if asks is not None and not by_condition and learned is None:
    raise UserError(
      f"{where}that run has learned no weight of guidance: give its role guidance=[dict(factory='guidance.by_condition')]"
    )
  if asks is not None and learned is not None and not (learned[0] <= asks[0] and asks[1] <= learned[1]):
    raise UserError(
      f"{at}: that run knows weights {_range(learned)} and config.loss.transforms draws {_range(asks)}: stay within"
    )
  theirs = own_solver(taught, role.process)
  if theirs is not None and (objective.steps is None or taught.steps[1] != "ddim"):
    raise UserError(
      f"{at}: that run is itself a student of {theirs.nfe} {theirs.name} steps and no denoiser at other times; "
      "learn its steps with losses.progressive_distillation, if they are ddim steps"
    )
  if theirs is not None and not roles.same_times(objective.steps[0], theirs.t):
    raise UserError(
      f"{at}: that run makes {theirs.nfe} steps at {_times(theirs.t)}, and config.loss asks it for others: set "
      f"teacher_steps={theirs.nfe} and the grid that it was distilled for (solvers.grids.thinned)"
    )


def _range(weights):
  return f"from {weights[0]:g} to {weights[1]:g}"


def _times(grid):
  return ", ".join(f"{t:.4g}" for t in np.asarray(grid)[:4]) + (", ..." if len(grid) > 4 else "")
