"""Learning from another run: whether its model, and a run's losses, network and sampler, fit each other."""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from diffusion import losses, processes, solvers
from diffusion.errors import UserError
from diffusion.training import assembly, players, roles


def own_solver(objective: losses.Objective, process: Any) -> Any:
  """The one solver that a student of a teacher's steps is distilled for; None for any other objective."""
  if objective.steps is None:
    return None
  grid, sampler = objective.steps
  grid = losses.halved(grid) if sampler == "ddim" else np.asarray(grid)
  return solvers.build(sampler, process, len(grid) - 1, grid=grid)


def same_solver(first: Any, second: Any) -> bool:
  """Whether two tables have the same coefficients, to the precision of a run."""
  shapes = [[np.shape(leaf) for leaf in jax.tree.leaves(one)] for one in (first, second)]
  pairs = zip(jax.tree.leaves(first), jax.tree.leaves(second))
  return shapes[0] == shapes[1] and all(np.allclose(a, b, rtol=1e-5, atol=1e-6) for a, b in pairs)


def check(parts: assembly.Parts, playing: list[players.Player]) -> None:
  """Raises UserError where other runs and a run's losses, network and sampler do not fit each other."""
  for player in playing:
    objective = player.loss.objective
    runs = [parts.roles[name] for name in objective.needs if parts.roles[name].saved is not None]
    for at, found in (
      ("", _own(parts, objective)),
      *((_named(run), _of_run(parts, run, objective)) for run in runs),
    ):
      for wrong, words in found:
        if wrong:
          raise UserError(at + words)


def _own(parts, objective) -> Iterator[tuple[bool, str]]:
  """(whether it is so, what is wrong and how to mend it) of a run itself."""
  draws, what = "guidance" in objective.conditions, "config.loss.transforms has losses.random_guidance, and "
  size = getattr(parts.network, "guidance_size", None)
  yield (
    draws and not parts.dataset.num_classes,
    f"{what}the data have no classes to guide towards: leave it out",
  )
  yield (
    draws and size == 0,
    f"{what}config.network does not take a weight: set config.network.guidance_size (64, say)",
  )
  own = own_solver(objective, parts.process)
  if own is not None:
    given = assembly.solver(parts.config.get("sampler") or {}, parts.process)
    yield (
      not same_solver(given, own),
      f"config.sampler must be what the student is distilled for: solver={own.name!r}, steps={own.cost} and "
      f"a grid with the times {_times(own.t)} (every other node of one grid is solvers.grids.thinned)",
    )


def _of_run(parts, role, objective) -> Iterator[tuple[bool, str]]:
  """The same of another run, whose model plays a role."""
  saved, here, mend = role.saved, parts.dataset, "take that run's config.data"
  for what, there, own in (
    ("examples of shape", list(saved.shape), list(here.shape)),
    ("classes:", saved.num_classes, here.num_classes),
  ):
    yield there != own, f"that run's data have {what} {there}, and config.data {own}; {mend}"
  different = processes.difference(role.process, parts.process)
  yield (
    bool(different),
    f"that run's process is another than config.process, {different}; take that run's config.process",
  )
  taught = assembly.objective_of(dict(loss=saved.loss, optimizer={}), role.process, saved.num_classes)
  asks, knows = objective.conditions.get("guidance"), taught.conditions.get("guidance")
  around = assembly.template(role)
  guided, by_condition = around.needs_unconditional, "guidance" in around.own_conditions
  yield (
    guided and not saved.num_classes,
    "guidance needs a conditional model, and that run's data have no classes; leave it out",
  )
  yield (
    guided and knows is not None,
    f"that run has learned guidance already, weights {_range(knows)}; leave guidance out",
  )
  train = "train it with config.loss.condition_dropout=0.1"
  yield (
    guided and not taught.drops_condition,
    f"that run was trained without condition dropout, which guidance needs; {train}",
  )
  add = (
    "add dict(factory='losses.random_guidance', low=0.0, high=4.0) to config.loss.transforms, or leave it out"
  )
  yield by_condition and asks is None, f"its guidance.by_condition needs the weights to learn: {add}"
  give = "give its role guidance=[dict(factory='guidance.by_condition')], or leave losses.random_guidance out"
  yield (
    asks is not None and not by_condition and knows is None,
    f"that run has learned no weight of guidance: {give}",
  )
  outside = None not in (asks, knows) and not (knows[0] <= asks[0] and asks[1] <= knows[1])
  yield (
    outside,
    f"that run knows weights {_range(knows)} and config.loss.transforms draws {_range(asks)}: stay within",
  )
  theirs = own_solver(taught, role.process)
  if theirs is not None:
    learn = "learn its steps with losses.progressive_distillation, where they are ddim steps"
    wrong = objective.steps is None or taught.steps[1] != "ddim"
    yield (
      wrong,
      f"that run is itself a student of {theirs.cost} {theirs.name} steps and no denoiser elsewhere; {learn}",
    )
    asked = len(objective.steps[0]) - 1
    words = f"that run makes {theirs.cost} steps at {_times(theirs.t)}, and config.loss asks it for {asked}"
    mend = f"set teacher_steps={theirs.cost} and the grid that it was distilled for (solvers.grids.thinned)"
    yield not roles.same_times(objective.steps[0], theirs.t), f"{words}; {mend}"


def _named(role) -> str:
  return f"config.roles.{role.name}.run={role.source}: "


def _range(weights) -> str:
  return "none" if weights is None else f"from {weights[0]:g} to {weights[1]:g}"


def _times(grid) -> str:
  return ", ".join(f"{t:.4g}" for t in np.asarray(grid)[:4]) + (", ..." if len(grid) > 4 else "")
