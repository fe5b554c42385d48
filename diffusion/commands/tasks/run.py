"""A task from the command line: open the run, do it, write PNG and NPZ, say what it cost."""

import argparse
import os
from typing import Any

import numpy as np

from diffusion.commands.opened import open_model
from diffusion.commands.sample import check_batch, destination
from diffusion.commands.tasks.classifying import classify
from diffusion.commands.tasks.editing import edit
from diffusion.commands.tasks.restoring import restore
from diffusion.commands.tasks.translating import translate
from diffusion.config.errors import UserError
from diffusion.run.opening import check_no_class, make_sampler

DO = dict(
  inpaint=restore, colorize=restore, super_resolve=restore, edit=edit, translate=translate, classify=classify
)


def run(args: argparse.Namespace, sampler: dict[str, Any]) -> str:
  """Does what --task says; returns the sentence that says what was done.

  Args:
    args: the parsed command line of sample.py, after `flags.check`.
    sampler: changes to the config's sampler, None for those not given.

  Raises:
    UserError: a run without a denoiser or without images, and whatever a task refuses; before anything is
      sampled.
  """
  opened = open_model(args)
  check_batch(args.batch, opened)
  if opened.parts.parameterization is None:
    make_sampler(opened)  # says why there is none
  if opened.parts.process.kind != "gaussian":
    raise UserError(
      f"--task={args.task} is for Gaussian processes, and this run's, '{opened.parts.process.name}', is "
      f"{opened.parts.process.kind}: sample it without --task"
    )
  if not opened.objective.denoises:
    raise UserError(
      f"--task={args.task} needs a denoiser at every noise level, and this run is a student of few steps "
      f"({opened.objective.name}): use the run that it learned from"
    )
  shape = opened.parts.dataset.shape
  if len(shape) != 3 or shape[2] not in (1, 3):
    raise UserError(
      f"--task={args.task} is for images of 1 or 3 channels, and this run's data have shape {list(shape)}: "
      "use diffusion.tasks on them in Python"
    )
  told = [one.name for one in opened.parts.dataset.conditions]
  if told:
    raise UserError(
      f"--task={args.task} tells the model a class at most, and this one is told {', '.join(told)} too: use "
      "diffusion.tasks in Python"
    )
  if args.task in ("inpaint", "colorize", "super_resolve", "edit"):
    if args.label is None:
      check_no_class(opened, -1, f"--task={args.task} without --label")
    check_no_class(opened, args.label)
  name = [args.task, f"seed{args.seed}", f"from{args.first}", *([opened.mark] if opened.mark else [])]
  out = args.out or os.path.join(args.workdir, "_".join(name))
  out = destination(out, [*(args.input or ()), *([args.mask] if args.mask else ())])
  found = DO[args.task](args, sampler, opened)
  np.savez(out + ".npz", **found.arrays)
  found.draw(out + ".png")
  return f"{found.words}; wrote {out}.png{f' ({found.shown})' if found.shown else ''} and {out}.npz"
