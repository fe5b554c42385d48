"""A teacher: the model of a finished run, from which a distillation loss learns and which nothing trains.

    config.teacher = dict(workdir=FOLDER, ema=None, guided=True, interval=())

`guided` puts guidance whose weight comes with the condition around its denoiser. The first start adds
`saved`, what the teacher is, to the run's config, and its parameters to the train state, where checkpoints
keep them: from then on the teacher's folder is not needed.
"""

import os

import numpy as np

from diffusion import configuration, losses, processes
from diffusion.errors import UserError
from diffusion.factories import plain
from diffusion.training import checkpoints, ema, model, student, warm_start, workdir as workdirs

KEYS = ("workdir", "ema", "guided", "interval", "saved")


def resolve(config, workdir: str, say=print):
  """The config with config.teacher.saved: from the run in `workdir` if it has a checkpoint, else from the
  teacher's folder.

  Without config.teacher it is the config itself; the one given is never changed.

  Raises UserError for a key that config.teacher does not have, a folder without a run, and a run without a
  checkpoint or a denoiser.
  """
  section = config.get("teacher")
  if not section:
    return config
  model.check_keys(section, KEYS, "config.teacher")
  if not isinstance(section.get("workdir"), str) or not section.workdir:
    raise UserError(
      "config.teacher.workdir is the folder of the run to learn from, such as 'runs/digits'; it is "
      f"{section.get('workdir')!r}"
    )
  if not isinstance(section.get("guided", False), bool):
    raise UserError(
      "config.teacher.guided is True (guidance around the teacher) or False (the teacher itself); it is "
      f"{section.guided!r}"
    )
  saved = _kept(workdir) or _found(section, say)
  config = config.copy_and_resolve_references()
  with config.unlocked():
    config.teacher.saved = saved
  return config


def _kept(workdir):
  """What a run with a checkpoint has written of its teacher, whose folder may be gone by now, or trained on;
  None if there is nothing."""
  if not checkpoints.steps(workdirs.checkpoints(workdir)):
    return None
  return (workdirs.read(workdir).get("teacher") or {}).get("saved")


def _found(section, say):
  """What the teacher is, read from its folder."""
  where = f"config.teacher.workdir={section.workdir}"
  if not os.path.exists(os.path.join(section.workdir, "config.json")):
    raise UserError(f"{where}: there is no run; train the teacher first, or name the folder of one")
  config = workdirs.read(section.workdir)
  chosen = checkpoints.choose(workdirs.checkpoints(section.workdir), say=say)
  if chosen is None:
    raise UserError(f"{where}: that run has no checkpoint yet; train it first")
  if not config.get("denoiser"):
    raise UserError(
      f"{where}: that run's network is no denoiser, so nothing can be distilled from it; name the folder of "
      "one with a section 'denoiser'"
    )
  averages = list(ema.half_lives(config.training.get("ema_half_life_images", ())))
  average = (averages or ["none"])[0] if section.get("ema") is None else str(section.ema)
  if average not in (*averages, "none"):
    raise UserError(
      f"config.teacher.ema={average}: that run has no such average; it has {', '.join(averages) or 'none'}, "
      "and 'none' for the raw weights"
    )
  dataset = configuration.build(config.data, where=f"{where}, config.data")
  return dict(
    step=checkpoints.read_meta(chosen)["step"],
    ema=average,
    shape=tuple(dataset.shape),
    num_classes=dataset.num_classes,
    **{name: plain(config[name]) for name in ("process", "network", "denoiser", "loss")},
  )


def load(parts: model.Parts, state, say=print):
  """The state with the teacher's parameters and mutable collections, from the checkpoint that
  config.teacher.saved names."""
  section = parts.config.teacher
  chosen = checkpoints.choose(workdirs.checkpoints(section.workdir), section.saved.step, say=say)
  weights, collections = warm_start.read(chosen, section.saved.ema)
  where = f"config.teacher.workdir={section.workdir}"
  average = (
    "parameters" if section.saved.ema == "none" else f"average of half-life {section.saved.ema} images"
  )
  say(f"teacher from {chosen}, {average}{', guided' if section.get('guided') else ''}")
  loss_state = state.loss_state
  fixed = {**loss_state["fixed"], "teacher": warm_start.fit(weights, loss_state["fixed"]["teacher"], where)}
  found = dict(loss_state["collections"])
  if "teacher" in found:
    found["teacher"] = warm_start.fit(collections, found["teacher"], where)
  return state.replace(loss_state={**loss_state, "fixed": fixed, "collections": found})


def check(parts: model.Parts) -> None:
  """Raises UserError where the teacher, the loss, the network and the sampler of a run do not fit each
  other."""
  loss = parts.config.loss
  weights, own = student.guidance_range(loss), student.own_solver(loss, parts.process)
  if weights is not None:
    if not parts.dataset.num_classes:
      raise UserError(
        "config.loss.transforms has losses.random_guidance, and the data have no classes to guide towards: "
        "leave it out to distil an unguided model"
      )
    if getattr(parts.network, "guidance_size", None) == 0:
      raise UserError(
        "config.loss.transforms has losses.random_guidance, and config.network does not take a weight: set "
        "config.network.guidance_size (64, say)"
      )
  if parts.teacher is None:
    return
  where, saved = f"config.teacher.workdir={parts.config.teacher.workdir}", parts.config.teacher.saved
  if tuple(saved.shape) != tuple(parts.dataset.shape):
    raise UserError(
      f"{where}: the teacher's data have shape {list(saved.shape)} and config.data "
      f"{list(parts.dataset.shape)}; take the teacher's config.data"
    )
  if saved.num_classes != parts.dataset.num_classes:
    raise UserError(
      f"{where}: the teacher's data have {saved.num_classes} classes and config.data "
      f"{parts.dataset.num_classes}; take the teacher's config.data"
    )
  if processes.apart(parts.teacher.process, parts.process):
    raise UserError(
      f"{where}: the teacher's process is {_written(saved.process)} and config.process is "
      f"{_written(parts.config.process)}: take the teacher's"
    )
  _check_weights(parts, where, weights)
  _check_steps(parts, where, own)


def _check_weights(parts, where, weights):
  """UserError unless teacher and student have a weight of guidance alike."""
  saved, learned = parts.config.teacher.saved, student.guidance_range(parts.config.teacher.saved.loss)
  if parts.config.teacher.get("guided"):
    if not saved.num_classes:
      raise UserError(
        f"{where}: guided=True needs a conditional teacher, and this one's data have no classes; set "
        "config.teacher.guided=False"
      )
    if learned is not None:
      raise UserError(
        f"{where}: the teacher has learned guidance already, weights {_range(learned)}; set "
        "config.teacher.guided=False"
      )
    if not _drops(saved.loss):
      raise UserError(
        f"{where}: guided=True needs a teacher that knows the data without a label too, and this one was "
        "trained with condition_dropout "
        f"{saved.loss.get('condition_dropout', 0)}; train it with config.loss.condition_dropout=0.1"
      )
    if weights is None:
      raise UserError(
        "config.teacher.guided=True needs the weights of guidance to learn: add "
        "dict(factory='losses.random_guidance', low=0.0, high=4.0) to "
        "config.loss.transforms, or set guided=False"
      )
    return
  if parts.config.teacher.get("interval"):
    raise UserError(
      f"config.teacher.interval={tuple(parts.config.teacher.interval)} is of guidance around the teacher, "
      "which guided=False leaves out: set interval=()"
    )
  if weights is None:
    return
  if learned is None:
    needs = (
      " (its network has no guidance_size)"
      if getattr(parts.teacher.network, "guidance_size", None) == 0
      else ""
    )
    raise UserError(
      f"{where}: the teacher has learned no weight of guidance{needs}, and config.loss.transforms has "
      "losses.random_guidance: distil it with "
      "config.teacher.guided=True first, or leave random_guidance out"
    )
  if weights[0] < learned[0] or weights[1] > learned[1]:
    raise UserError(
      f"{where}: the teacher knows weights {_range(learned)} and config.loss.transforms draws "
      f"{_range(weights)}: stay within the teacher's"
    )


def _check_steps(parts, where, own):
  """UserError unless the steps are those that the teacher makes, and config.sampler those that the student
  learns."""
  loss, theirs = parts.config.loss, student.taught(parts.config.teacher.saved.loss, parts.process)
  if theirs is not None:
    known, sampler = theirs
    known = losses.halved(known) if sampler == "ddim" else known
    if own is None or sampler != "ddim":
      raise UserError(
        f"{where}: the teacher is itself a student of {len(known) - 1} {sampler} steps and no denoiser at "
        "other times; "
        + (
          "learn its steps with losses.progressive_distillation"
          if sampler == "ddim"
          else "only a student of ddim steps can be halved again"
        )
      )
    grid, _ = student.taught(loss, parts.process)
    if len(grid) != len(known) or not np.allclose(grid, known, rtol=1e-5, atol=1e-6):
      raise UserError(
        f"{where}: the teacher makes {len(known) - 1} steps at {_times(known)}, and config.loss asks it for "
        f"{len(grid) - 1} at {_times(grid)}: "
        f"set teacher_steps={len(known) - 1} and the grid that it was distilled for (every other node of one "
        "grid is solvers.grids.thinned)"
      )
  if own is None:
    return
  built = model.solver(parts.config.get("sampler") or {}, parts.process)
  if not student.same_solver(built, own):
    raise UserError(
      f"config.sampler must be what the student is distilled for: solver={own.name!r}, steps={own.cost} and a "
      f"grid with the times {_times(own.t)} "
      "(every other node of one grid is solvers.grids.thinned); it is "
      f"{built.name} with {built.cost} evaluations"
    )


def _drops(loss) -> bool:
  """Whether labels were dropped in training; of an objective that is not this library's nobody knows."""
  named = [student.named(transform) for transform in loss.get("transforms") or ()]
  objective = configuration.resolve(loss["factory"], "config.loss")
  return (
    bool(loss.get("condition_dropout"))
    or losses.condition_dropout in named
    or not objective.__module__.startswith("diffusion.")
  )


def _written(section) -> str:
  return ", ".join(f"{key}={value}" for key, value in plain(section).items())


def _range(weights) -> str:
  return f"from {weights[0]:g} to {weights[1]:g}"


def _times(grid) -> str:
  return ", ".join(f"{t:.4g}" for t in grid[:4]) + (", ..." if len(grid) > 4 else "")
