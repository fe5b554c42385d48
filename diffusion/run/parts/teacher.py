"""Learning from another run: whether its model, and a run's losses, network and sampler, fit each other."""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from diffusion import losses, processes, solvers
from diffusion.config.errors import UserError
from diffusion.run.parts import assembly, codec, loss_config, players, sampler_config


def of_published(unconditional: bool, denoises: bool) -> losses.Objective:
  """What is known of how a published model was trained.

  Args:
    unconditional: whether it learned the data without a class too.
    denoises: whether it learned posterior means.
  """
  return losses.Objective("published", _unknown, _unknown, drops_condition=unconditional, denoises=denoises)


def _unknown(*_: Any, **__: Any) -> Any:
  raise ValueError("how a published model was trained is not said in its file")


def own_solver(objective: losses.Objective, process: Any) -> Any:
  """The one solver that a student of a teacher's steps is distilled for; None for any other objective."""
  if objective.steps is None:
    return None
  grid, sampler = objective.steps
  grid = losses.halved(grid) if sampler == "ddim" else np.asarray(grid)
  return solvers.build(sampler, process, len(grid) - 1, grid=grid)


def same_numbers(first: Any, second: Any) -> bool:
  """Whether two grids or tables hold the same arrays, to the precision of a run."""
  first, second = jax.tree.leaves(first), jax.tree.leaves(second)
  same = lambda a, b: np.shape(a) == np.shape(b) and np.allclose(a, b, rtol=1e-5, atol=1e-6)
  return len(first) == len(second) and all(map(same, first, second))


def check(parts: assembly.Parts, playing: list[players.Player]) -> None:
  """Raises UserError where other runs and a run's losses, network and sampler do not fit each other."""
  for player in playing:
    objective = player.loss.objective
    for wrong, words in _own(parts, objective):
      if wrong:
        raise UserError(words)
    for role in (parts.roles[name] for name in objective.needs if parts.roles[name].saved is not None):
      for wrong, words in _of_run(parts, role, objective):
        if wrong:
          raise UserError(f"config.roles.{role.name}.{role.kind}={role.source}: {words}")


def _own(parts: Any, objective: Any) -> Iterator[tuple[bool, str]]:
  """(whether it is so, what is wrong and how to mend it) of a run itself."""
  draws, what = "guidance" in objective.conditions, "config.loss.transforms has losses.random_guidance, and"
  size, classes = getattr(parts.network, "guidance_size", None), parts.dataset.num_classes
  yield draws and not classes, f"{what} the data have no classes to guide towards: leave it out"
  takes = "does not take a weight: set config.network.guidance_size (64, say)"
  yield draws and size == 0, f"{what} config.network {takes}"
  own = own_solver(objective, parts.process)
  if own is not None:
    given = sampler_config.solver(parts.config.get("sampler") or {}, parts.process)
    grid = f"a grid with the times {_times(own.t)} (every other node of one grid is solvers.grids.thinned)"
    wanted = f"what the student is distilled for: solver={own.name!r}, steps={own.cost} and {grid}"
    yield not same_numbers(given, own), f"config.sampler must be {wanted}"


def _of_run(parts: Any, role: Any, objective: Any) -> Iterator[tuple[bool, str]]:
  """The same of another run, whose model plays a role."""
  saved, here, mend = role.saved, parts.dataset, "take that run's config.data"
  published = role.kind == "weights"  # it sees what the networks of this run see
  there, own = list(saved.shape), list(parts.shape if published else here.shape)
  yield there != own, f"that run's data have examples of shape {there}, and config.data {own}; {mend}"
  there, own = saved.num_classes, here.num_classes
  yield there != own, f"that run's data have classes: {there}, and config.data {own}; {mend}"
  same = codec.same(saved.get("codec"), parts.config.get("codec"))
  yield (
    not published and not same,
    "that run sees its data through another config.codec; take that run's config.codec",
  )
  different = processes.difference(role.process, parts.process)
  mend = "take that run's config.process"
  yield bool(different), f"that run's process is another than config.process, {different}; {mend}"

  taught: Any = (
    of_published(saved.unconditional, saved.denoises)
    if published
    else loss_config.objective_of(dict(loss=saved.loss, optimizer={}), role.process, saved.num_classes)
  )
  asks, knows = objective.conditions.get("guidance"), taught.conditions.get("guidance")
  around = assembly.template(role)
  guided, by_condition = around.needs_unconditional, "guidance" in around.own_conditions
  what = "guidance needs a conditional model, and that run's data have no classes"
  yield guided and not saved.num_classes, f"{what}; leave it out"
  what = f"that run has learned guidance already, weights {_range(knows)}"
  yield guided and knows is not None, f"{what}; leave guidance out"
  what = "that run was trained without condition dropout, which guidance needs"
  yield guided and not taught.drops_condition, f"{what}; train it with config.loss.condition_dropout=0.1"
  mend = "add dict(factory='losses.random_guidance', low=0.0, high=4.0) to config.loss.transforms"
  what = "its guidance.by_condition needs the weights to learn"
  yield by_condition and asks is None, f"{what}: {mend}, or leave it out"
  mend = "give its role guidance=[dict(factory='guidance.by_condition')], or leave losses.random_guidance out"
  learned = by_condition or knows is not None
  yield asks is not None and not learned, f"that run has learned no weight of guidance: {mend}"
  outside = asks and knows and not (knows[0] <= asks[0] and asks[1] <= knows[1])
  what = f"that run knows weights {_range(knows)} and config.loss.transforms draws {_range(asks)}"
  yield bool(outside), f"{what}: stay within"

  theirs = own_solver(taught, role.process)
  if theirs is not None:
    what = f"that run is itself a student of {theirs.cost} {theirs.name} steps and no denoiser elsewhere"
    mend = "learn its steps with losses.progressive_distillation, where they are ddim steps"
    times, _ = objective.steps or ((), None)
    yield not len(times) or taught.steps[1] != "ddim", f"{what}; {mend}"
    asked = f"and config.loss asks it for {len(times) - 1}"
    mend = f"set teacher_steps={theirs.cost} and the grid that it was distilled for (solvers.grids.thinned)"
    what = f"that run makes {theirs.cost} steps at {_times(theirs.t)}, {asked}"
    yield not same_numbers(times, theirs.t), f"{what}; {mend}"


def _range(weights) -> str:
  return "none" if weights is None else f"from {weights[0]:g} to {weights[1]:g}"


def _times(grid) -> str:
  return ", ".join(f"{t:.4g}" for t in np.asarray(grid)[:4]) + (", ..." if len(grid) > 4 else "")
