"""The loss section of a config: the objective that it names, what goes around it, and how times are drawn."""

from collections.abc import Mapping
from typing import Any

from diffusion import losses, solvers
from diffusion.config import factories
from diffusion.config.errors import UserError
from diffusion.config.factories import plain
from diffusion.run.parts import players

AROUND_THE_OBJECTIVE = ("weight", "times", "condition_dropout", "uncertainty", "transforms", "reweight")
"""Keys of config.loss that are not arguments of the objective's factory."""


def closed_loss(
  section: Any,
  process: Any,
  conditional: Any,
  templates: Mapping[str, Any],
  trains: tuple[str, ...] = ("model",),
  where: str = "config.loss",
) -> losses.Loss:
  """The closed loss of a loss section: its objective, how times are drawn, and the roles that it asks.

  Args:
    section: its `factory` makes the objective from the process (None without one); around it come, in this
      order, `condition_dropout` (a rate), `transforms` (a list of sections), `weight` (a section),
      `uncertainty` (true or false), and the section `times` with `reweight`. Of these, what the factory has
      an argument of that name for goes to the factory. An objective of a teacher's steps has their times if
      `times` is left out.
    process: of the run; None where its losses are of clean data.
    conditional: whether the data have conditions, without which `condition_dropout` does nothing.
    templates: {role: denoiser}.
    trains: the roles that learn from it.
    where: the section's name in messages.

  Raises UserError for whatever does not fit, a role that the objective needs and the config lacks among it.
  """
  objective, times = _objective(section, process, conditional, where)
  if process is None and times is None:
    times = losses.uniform_times(0.0, 1.0)  # which nobody reads
  for role in objective.needs:
    if role not in templates:
      raise UserError(
        f"{where}: {section['factory']} learns from the role '{role}' and config.roles has none of that "
        f"name: add "
        f"roles=dict({role}=dict(run=FOLDER)) with the folder of a finished run, or another kind of role"
      )
  asked = {role: templates[role] for role in dict.fromkeys((*trains, *objective.needs))}
  try:
    cast = losses.roles(trainable=trains, **asked)
    return losses.chain(
      objective, losses.at_times(times, roles=cast, reweight=bool(plain(section).get("reweight")))
    )
  except ValueError as error:
    raise UserError(f"{where}: {error}") from error


def objective_of(config: Any, process: Any, conditional: Any) -> losses.Objective:
  """The objective that trains the model of a config, with what its transforms state. Raises UserError."""
  (section,) = [one for one in players.sections(config) if "model" in one["trains"]]
  return _objective(section["loss"], process, conditional, section["where"])[0]


def _objective(section, process, conditional, where):
  """(the objective with its transforms, the sampler of times or None)."""
  section = plain(section)
  factory = factories.resolve(section["factory"], where) if "factory" in section else None
  own = factories.arguments(factory) if callable(factory) else {}
  around = {key: section.get(key) for key in AROUND_THE_OBJECTIVE if key not in own}  # else it is an argument
  section = {key: value for key, value in section.items() if key not in around}
  if "teacher_grid" in own:
    section["teacher_grid"] = _teacher_grid(section, process, where)
    section.pop("teacher_steps", None)
  try:
    objective = factories.build(section, process, where=where)
  except (AttributeError, TypeError, UserError) as error:
    if process is not None:
      raise
    raise UserError(
      f"{where}: {section.get('factory')} is not of clean data, and the config has no section 'process' "
      f"({error}): add process=dict(factory='processes.edm') or another of diffusion.processes"
    ) from error
  transforms = []
  try:
    if around.get("condition_dropout") and conditional:
      transforms.append(losses.condition_dropout(around["condition_dropout"]))
    for index, transform in enumerate(around.get("transforms") or ()):
      transforms.append(factories.build(transform, where=f"{where}.transforms[{index}]"))
    if around.get("weight"):
      transforms.append(losses.weight_by(factories.build(around["weight"], where=f"{where}.weight")))
    if around.get("uncertainty"):
      transforms.append(losses.uncertainty())
    times = factories.build(around["times"], where=f"{where}.times") if around.get("times") else None
    if objective.steps is not None and times is None:
      times = losses.low_discrepancy(losses.step_times(losses.student_steps(process, *objective.steps)))
    return losses.chain(objective, *transforms), times
  except ValueError as error:
    raise UserError(f"{where}: {error}") from error


def _teacher_grid(section, process, where):
  """The times [n + 1] of a teacher's steps, of `teacher_steps` and `teacher_grid`.

  The grid is a name, a section, or DDIM's own.
  """
  steps, grid = section.get("teacher_steps"), section.get("teacher_grid") or None
  if not isinstance(steps, int):
    raise UserError(
      f"{where}.teacher_steps is the number of the teacher's steps, such as 64; it is {steps!r}"
    )
  try:
    if isinstance(grid, Mapping):
      grid = factories.build(grid, process, steps, where=f"{where}.teacher_grid")
    return solvers.times("ddim", process, steps, grid)
  except (ValueError, TypeError) as error:
    raise UserError(f"{where}.teacher_grid: {error}") from error
