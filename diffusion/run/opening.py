"""A model opened for sampling and evaluation, its weights alone: of a finished or running training run."""

import dataclasses
import json
import os
from collections.abc import Mapping
from typing import Any

import jax

from diffusion import solvers
from diffusion.config import factories
from diffusion.config.errors import UserError
from diffusion.run import sharding
from diffusion.run.opened import Opened
from diffusion.run.parts import assembly, codec, sampler_config, teacher
from diffusion.run.saved import averages, checkpoints, weights, workdir as workdirs


@dataclasses.dataclass(frozen=True)
class SavedRun(Opened):
  """What a workdir holds; its `params` are the averaged weights, or those that were asked for.

  Attributes:
    step: training steps of the checkpoint.
    average: half-life in images or relative length, as text, of the average that `params` is; 'none' for the
      raw weights.
    checkpoint: the folder of the checkpoint.
    made: of what, where the average is made of snapshots (`saved.averages.Average`).
  """

  step: int
  average: str
  checkpoint: str
  made: Any = None

  @property
  def objective(self) -> Any:
    """The objective that trained the model, with what it states (`losses.Objective`)."""
    return assembly.model_player(self.parts).loss.objective

  @property
  def title(self) -> str:
    """Its step."""
    return f"step {self.step}"

  @property
  def source(self) -> str:
    """The folder of its checkpoint."""
    return self.checkpoint

  @property
  def mark(self) -> str:
    """Its step."""
    return f"step{self.step}"

  @property
  def record(self) -> dict[str, Any]:
    """Its step."""
    return {"step": self.step} | self.guide_record

  @property
  def said(self) -> str:
    """Of what its average is made, and what guides it."""
    return (f"; {self.made.said}" if self.made else "") + super().said

  @property
  def own_identity(self) -> dict[str, Any]:
    """The checkpoint, its digest, and which average."""
    with open(os.path.join(self.checkpoint, "digests.json")) as file:
      digest = json.load(file)["sha256"]
    return {
      "checkpoint": self.step,
      "weights": digest,
      "ema": self.average,
      **({"made_of": [list(part[1:]) for part in self.made.parts]} if self.made else {}),
    }

  def loss_inputs(self, player: Any = None) -> tuple[Any, Any]:
    """(params, state) for a player's loss, with `params` as the model's; the rest that it asks is read now.

    Args:
      player: of `assembly.players_of`; the one that trains the model by default.
    """
    player = assembly.model_player(self.parts) if player is None else player
    template = _placed(assembly.shape_state(self.parts), self.mesh)
    return weights.loss_inputs(self.checkpoint, template, player, model=self.params)


def open_run(
  workdir: str, checkpoint: int | None = None, ema: str | None = None, mesh: Any = None
) -> SavedRun:
  """Reads a run's config and, of its newest undamaged checkpoint, the model's weights.

  Args:
    workdir: folder of the run.
    checkpoint: step of the checkpoint, or None for the newest.
    ema: half-life in images of the average to use, as text, or its relative length, which is made of the
      run's snapshots where it did not keep it; None for the config's first, 'none' for the raw weights.
    mesh: devices; all of them by default.

  Raises:
    UserError: no run, no checkpoint or no such average, or a damaged one.
  """
  config = workdirs.read(workdir)
  folder = workdirs.checkpoints(workdir)
  path = checkpoints.choose(folder, checkpoint)
  if path is None:
    raise UserError(
      f"no checkpoint in {folder}: train first with python train.py --config=... --workdir={workdir}"
    )
  parts = assembly.assemble(config)
  mesh = mesh or sharding.make_mesh()
  average = averages.choose(path, config, ema)
  like = _placed(assembly.shape_network(parts, parts.network), mesh)
  params, collections = average.read(like)
  codec_params = None
  if parts.codec is not None:
    like = (_placed(jax.eval_shape(parts.codec.init), mesh), {})
    codec_params, _ = weights.read_weights(path, codec.PLACE, None, like)
  return SavedRun(
    parts,
    params,
    assembly.denoiser(parts, params, collections),
    mesh,
    codec_params,
    checkpoints.read_meta(path)["step"],
    average.name or "none",
    path,
    average if average.parts else None,
  )


def _placed(shapes, mesh):
  """Shapes with a place on the mesh for each."""
  return sharding.placed(shapes, sharding.state_sharding(mesh, shapes))


def make_sampler(run: Opened, **changes: Any) -> tuple[Any, Any]:
  """(denoiser, solver) that a config's `sampler` section describes, with some of its keys changed.

  Args:
    run: the opened run.
    **changes: solver (a name, or the .npz of a saved table, which has its own steps), steps, grid (a name, or
    a section with
      a factory), tolerance (of an adaptive solver, in place of steps and grid), guidance, interval,
      guided_channels, options
      (added to the config's own where the solver is the config's), denoise; None keeps the config's value.

  Raises:
    UserError: an unknown solver, grid or option, guidance without a conditional model, a weight or an
      interval of guidance that a distilled run did not learn, another solver than a student of steps was
      distilled for, or a run that learned no denoiser.
  """
  if run.parts.parameterization is None:
    raise UserError(
      f"this run's network gives {', '.join(assembly.own_views(run.parts.network))} and no posterior mean, "
      "so no solver samples from it: "
      "evaluate it with --evaluate, or open it with diffusion.opening.open_run and ask its denoiser"
    )
  section = sampler_section(run, changes)
  name = section["solver"]
  process, denoiser = run.denoiser.process, run.denoiser
  solver = None if changes.get("solver") is not None else run.own_sampler(changes.get("steps"))
  given = [key for key in ("grid", "tolerance", "options") if changes.get(key) is not None]
  if solver is not None and given:
    raise UserError(
      f"{given[0]} is of a solver that is named, and {run.title} is sampled as its authors do: add "
      "--solver=NAME"
    )
  if solver is None and str(name).endswith(".npz"):
    solver = _saved_solver(name, process, changes)
  elif solver is None:
    solver = sampler_config.solver(section, process)
  # What a student of steps says at one of its times is where that step should end. At other times, or in
  # another solver's formula, it is neither that nor a mean, and more steps make samples worse. Nobody who
  # asks for more steps wants that, so it is an error and not a warning.
  objective = run.objective
  own = teacher.own_solver(objective, process)
  if own is not None and not teacher.same_numbers(solver, own):
    raise UserError(
      f"this run is a student of {own.cost} {own.name} steps and knows no other times: leave out --solver, "
      "--steps, --grid and --option; for other numbers "
      f"of steps sample the run it learned from ({run.parts.roles['teacher'].source}) or distil another"
    )
  sampler_config.check_channels(section, run.parts.shape)
  if run.guide is None:
    guided = sampler_config.guide(objective, run.parts.dataset, section)(denoiser)
  else:
    guided = run.guide.around(denoiser, *sampler_config.guide_by_another(objective, section))
  sampler_config.check_asked(solver, guided)
  return guided, solver


def sampler_section(run: Opened, changes: Mapping[str, Any]) -> dict[str, Any]:
  """The config's `sampler` section with changes.

  None keeps a value. What belongs to the config's own solver goes where another takes its place.
  """
  own = {"solver": solvers.DEFAULT[run.parts.process.kind], **run.config.get("sampler", {})}
  name = changes.get("solver") or own["solver"]
  if name != own["solver"]:
    adaptive = name in solvers.CHOOSE_STEPS
    own = {
      key: value
      for key, value in own.items()
      if key not in ("options", "tolerance", *(("steps", "grid") if adaptive else ()))
    }
  section = own | {key: value for key, value in changes.items() if value is not None}
  if own.get("options") and changes.get("options"):
    section["options"] = {**own["options"], **changes["options"]}
  return section


def _saved_solver(path, process, changes):
  """The solver's table from a file.

  Raises UserError if the file holds none, belongs to another process, or has other steps than those asked
  for.
  """
  try:
    table = solvers.load(path, process)
  except ValueError as error:
    raise UserError(f"--solver: {error}") from error
  if changes.get("options") or changes.get("tolerance") is not None:
    raise UserError(f"{path} is a finished table: leave out options and a tolerance")
  if changes.get("grid") or changes.get("steps") not in (None, table.cost):
    raise UserError(
      f"{path} has {table.cost} evaluations at times of its own: leave out --steps and --grid, or fit "
      f"another "
      "with them"
    )
  return table


def class_of(dataset: Any, name: Any, flag: str = "--label") -> int:
  """The class number that a name or a number stands for.

  Raises UserError, which names the flag, if there is none, or if no training record has it.
  """
  names = [str(known) for known in dataset.class_names]
  text = str(name)
  if not dataset.num_classes:
    raise UserError(f"{flag}={text}: this model has no classes, so leave out {flag}")
  number = None
  if text in names:
    number = names.index(text)
  elif text.lstrip("-").isdigit() and -1 <= int(text) < dataset.num_classes:
    number = int(text)
  if number is None:
    raise UserError(
      f"{flag}={text} is not a class{factories.closest(text, names)}: give 0 to {dataset.num_classes - 1}"
      f"{' or one of ' + ', '.join(names) if names else ''}, or -1 for no class"
    )
  if number not in (-1, *dataset.classes):
    raise UserError(
      f"{flag}={text}: no training record has this class, so the model knows nothing of it; give one of "
      f"{', '.join(str(one) for one in dataset.classes[:20])}"
    )
  return number


def check_no_class(run: Opened, label: Any, asked: str = "--label=-1") -> None:
  """UserError where samples without a class are asked of a run that never saw a record without one.

  Args:
    run: the opened run.
    label: the class asked for, as text or number; -1 for none, None for the classes in turn.
    asked: what asks for no class, for the message.
  """
  if label is None or not run.parts.dataset.num_classes or run.objective.drops_condition:
    return
  if str(label) == "-1":
    raise UserError(
      f"{asked} asks for samples of no class, and this model never saw a record without its class: "
      "name a class, or train with "
      "config.loss.condition_dropout=0.1"
    )
