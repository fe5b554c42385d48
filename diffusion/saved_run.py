"""A finished or running training run, opened for sampling and evaluation."""

from typing import Any, NamedTuple

import jax

from diffusion import configuration, guidance, solvers
from diffusion.errors import UserError
from diffusion.training import checkpoints, model, sharding, student, workdir as workdirs


class SavedRun(NamedTuple):
  """What a workdir holds.

  Attributes:
    parts: config, data set, process, network, parameterisation (`training.model.Parts`).
    state: the train state of the checkpoint.
    params: the averaged weights, or those that were asked for.
    field: what the network computes with them (`losses.Field`).
    denoiser: the network with them as a denoiser; None if the run's config makes none of it.
    step: training steps of the checkpoint.
    mesh: the devices it was put on.
  """

  parts: Any
  state: Any
  params: Any
  field: Any
  denoiser: Any
  step: int
  mesh: Any

  @property
  def config(self):
    return self.parts.config

  def place(self, array):
    """A [batch, ...] array split over the devices."""
    return jax.device_put(array, sharding.batch_sharding(self.mesh))


def open_run(workdir, checkpoint=None, ema=None, mesh=None) -> SavedRun:
  """Reads a run's config and its newest undamaged checkpoint.

  Args:
    workdir: folder of the run.
    checkpoint: step of the checkpoint, or None for the newest.
    ema: half-life in images of the average to use, as text; None for the config's first, 'none' for the raw
      weights.
    mesh: devices; all of them by default.

  Raises:
    UserError: no run, no checkpoint, or a damaged one.
  """
  config = workdirs.read(workdir)
  folder = workdirs.checkpoints(workdir)
  path = checkpoints.choose(folder, checkpoint)
  if path is None:
    raise UserError(
      f"no checkpoint in {folder}: train first with python train.py --config=... --workdir={workdir}"
    )
  parts = model.assemble(config)
  mesh = mesh or sharding.make_mesh()
  shapes = model.shape_state(parts)
  places = sharding.state_sharding(mesh, shapes)
  template = jax.tree.map(
    lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), shapes, places
  )
  state = checkpoints.read_state(path, template)
  denoiser = None if parts.parameterization is None else model.trained_denoiser(parts, state, ema)
  return SavedRun(
    parts,
    state,
    model.trained_params(parts, state, ema),
    model.trained_field(parts, state, ema),
    denoiser,
    checkpoints.read_meta(path)["step"],
    mesh,
  )


def make_sampler(run: SavedRun, **changes):
  """(denoiser, solver) that a config's `sampler` section describes, with some of its keys changed.

  Args:
    run: the opened run.
    **changes: solver (a name, or the .npz of a saved table, which has its own steps), steps, grid (a name, or
    a section with
      a factory), tolerance (of an adaptive solver, in place of steps and grid), guidance, interval, options
      (added to the config's own where the solver is the config's), denoise; None keeps the config's value.

  Raises:
    UserError: an unknown solver, grid or option, guidance without a conditional model, a weight or an
      interval of guidance that a distilled run did not learn, another solver than a student of steps was
      distilled for, or a run that learned no denoiser.
  """
  if run.denoiser is None:
    raise UserError(
      f"this run's network gives {', '.join(model.methods(run.parts.network))} and is no denoiser, so no "
      "solver samples from it: "
      "evaluate it with --evaluate, or open it with diffusion.saved_run.open_run and use its field"
    )
  section = sampler_section(run, changes)
  name = section.get("solver", "dpmpp_2m")
  process, denoiser = run.denoiser.process, run.denoiser
  solver = (
    _saved_solver(name, process, changes) if str(name).endswith(".npz") else model.solver(section, process)
  )
  # What a student of steps says at one of its times is where that step should end. At other times, or in
  # another solver's formula, it is neither that nor a mean, and more steps make samples worse. Nobody who
  # asks for more steps wants that, so it is an error and not a warning.
  own = student.own_solver(run.config.loss, process)
  if own is not None and not student.same_solver(solver, own):
    raise UserError(
      f"this run is a student of {own.cost} {own.name} steps and knows no other times: leave out --solver, "
      "--steps, --grid and --option; for other numbers "
      f"of steps sample the run it learned from ({run.config.teacher.workdir}) or distil another"
    )
  weight, interval = section.get("guidance") or 0.0, section.get("interval")
  learned = student.guidance_range(run.config.loss)
  if learned is not None:
    return _with_learned(denoiser, float(weight), interval, learned), solver
  if weight:
    if not run.parts.dataset.num_classes:
      raise UserError(
        f"guidance {weight} needs a model with classes and this one has none: leave out --guidance"
      )
    try:
      denoiser = guidance.classifier_free(float(weight), tuple(interval) if interval else None)(denoiser)
    except ValueError as error:
      raise UserError(str(error)) from error
  return denoiser, solver


def _with_learned(denoiser, weight, interval, learned):
  """The denoiser at one of the weights of guidance that it has learned: one evaluation a call."""
  low, high = learned
  if not low <= weight <= high:
    raise UserError(
      f"guidance {weight:g} is outside of what this distilled run has learned, weights from {low:g} to "
      f"{high:g}: give --guidance in that range"
    )
  if interval:
    raise UserError(
      f"this run has learned guidance at the noise levels of its teacher, and --interval={tuple(interval)} "
      "can not change them: leave it out "
      "(in the config: config.sampler.interval=())"
    )
  return guidance.learned(weight)(denoiser)


def sampler_section(run: SavedRun, changes) -> dict:
  """The config's `sampler` section with changes; None keeps a value, and what belongs to the config's own
  solver goes with it."""
  own = dict(run.config.get("sampler", {}))
  name = changes.get("solver") or own.get("solver", "dpmpp_2m")
  if name != own.get("solver"):
    adaptive = name in solvers.ADAPTIVE
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
  """The table of a file; UserError if it is none, belongs to another process, or has other steps than those
  asked for."""
  try:
    table = solvers.load(path, process)
  except ValueError as error:
    raise UserError(f"--solver: {error}") from error
  if changes.get("options") or changes.get("tolerance") is not None:
    raise UserError(f"{path} is a finished table: leave out options and a tolerance")
  if changes.get("grid") or changes.get("steps") not in (None, table.cost):
    raise UserError(
      f"{path} has {table.cost} evaluations at times of its own: leave out --steps and --grid, or fit another "
      "with them"
    )
  return table


def class_of(dataset, name, flag="--label"):
  """The class number that a name or a number stands for; UserError, which names the flag, if there is
  none."""
  names = [str(known) for known in dataset.class_names]
  text = str(name)
  if not dataset.num_classes:
    raise UserError(f"{flag}={text}: this model has no classes, so leave out {flag}")
  if text in names:
    return names.index(text)
  if text.lstrip("-").isdigit() and -1 <= int(text) < dataset.num_classes:
    return int(text)
  raise UserError(
    f"{flag}={text} is not a class{configuration.closest(text, names)}: give 0 to {dataset.num_classes - 1}"
    f"{' or one of ' + ', '.join(names) if names else ''}, or -1 for no class"
  )
