"""The model that a command line names: of a run, --workdir, or of a published file, --weights."""

import argparse
import ast
import dataclasses
import os
from typing import Any

from diffusion.config.errors import UserError
from diffusion.run.opened import Opened
from diffusion.run.opening import open_run

OF_WEIGHTS = ("codec", "data", "told")
"""Flags that say more of --weights. A prompt does too, and of a run of text."""

TEXT = ("prompt", "infill", "hole")
"""Flags of text that samples of a run keep."""

OF_RUN = ("checkpoint", "ema")
"""Flags that say more of a run in --workdir."""


def named_value(text: str) -> tuple[str, Any]:
  """('eta', 0.5) of 'eta=0.5'; what is no Python literal is text.

  >>> named_value("order=2"), named_value("norm=batch")
  (('order', 2), ('norm', 'batch'))
  """
  name, equals, value = text.partition("=")
  if not equals or not name.isidentifier():
    raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE, such as eta=0.5")
  try:
    return name, ast.literal_eval(value)
  except (ValueError, SyntaxError):
    return name, value


def add(parser: argparse.ArgumentParser) -> None:
  """Adds the flags of published models, as a group of their own."""
  group = parser.add_argument_group(
    "published models",
    "A file that others trained in place of a run of train.py: everything above and below takes it.\n"
    "docs/published.md lists what is known.",
  )
  group.add_argument(
    "--weights",
    metavar="PATH",
    help="a pickle of EDM or EDM2, a folder of diffusers, a .pt of DiT or SiT: the model, with the sampler "
    "of its authors unless --solver names another; results go to --workdir (default: runs/NAME)",
  )
  group.add_argument(
    "--codec",
    metavar="PATH",
    help="the AutoencoderKL whose latents the model was trained on: the folder that diffusers saves (a "
    "pipeline has its own)",
  )
  group.add_argument(
    "--told",
    type=named_value,
    action="append",
    metavar="NAME=VALUE",
    help="what a file of authors does not say of its model, such as _class_name=DiT, sde=subvpsde or "
    "distillation=True; may be given several times",
  )
  group.add_argument(
    "--guide-weights",
    metavar="PATH",
    help="a second network, worse or without classes, that guides the model, of --weights or of a run: "
    "(1 + W) model - W PATH with W of --guidance (autoguidance; EDM2's guidance is 1 + W)",
  )
  group.add_argument(
    "--prompt",
    nargs="+",
    metavar="TEXT",
    help="what a model of Stable Diffusion is told, or what samples of a run of text begin with; several "
    "take turns (default: the empty one)",
  )
  group.add_argument(
    "--data",
    metavar="PATH",
    help="pictures that the model is measured on and that tasks take theirs of: a folder or a zip of PNG and "
    "JPEG files, or an NPZ with x and label",
  )


def check(args: argparse.Namespace) -> None:
  """Raises UserError for flags of a run and of a file together, and names the folder of a file's results."""
  given = lambda names: [name for name in names if getattr(args, name) is not None]
  if args.weights is None:
    _check_text(args, given(TEXT))
    for name in given(OF_WEIGHTS):
      if name == "told" and args.guide_weights is not None:
        continue
      raise UserError(f"--{name} says more of --weights=PATH: add it, or leave out --{name}")
    return
  for name in given(OF_RUN):
    raise UserError(f"--{name} is of a run of train.py, and --weights={args.weights} is none: leave it out")
  if args.workdir is None:
    name = os.path.basename(os.path.abspath(os.path.expanduser(args.weights)))
    args.workdir = os.path.join("runs", os.path.splitext(name)[0])
  if os.path.exists(os.path.join(args.workdir, "config.json")):
    raise UserError(
      f"--workdir={args.workdir} is a run of train.py, and what is made of --weights={args.weights} would "
      "lie among its files: name another folder"
    )


def _check_text(args, given):
  """UserError for text given to a command that draws no samples of a run."""
  others = ("task", "evaluate", "fit", "export", "protocol", "to_diffusers")
  other = next((name for name in others if getattr(args, name)), None)
  if given and other:
    raise UserError(
      f"--{given[0]} gives text that samples keep, so it has no place beside --{other.replace('_', '-')}"
    )


def open_model(args: argparse.Namespace, mesh: Any = None) -> Opened:
  """The model of a command line, opened.

  Args:
    args: the parsed command line of sample.py.
    mesh: devices; all of them by default.

  Raises:
    UserError: as `open_run`, `published.open_weights` and `guide.open_guide`.
  """
  found = _open(args, mesh)
  if args.guide_weights is None:
    return found
  from diffusion.run import guide, published

  guide_of = guide.open_guide(args.guide_weights, found, _told(args), published.on(found.mesh))
  return dataclasses.replace(found, guide=guide_of)


def _told(args):
  return None if args.told is None else dict(args.told)


def _open(args, mesh):
  if args.weights is None:
    return open_run(args.workdir, args.checkpoint, args.ema, mesh=mesh)
  from diffusion.run.published import open_weights  # the published networks, which no run needs

  named = {"num_samples": args.num, "batch": args.batch, "seed": args.seed}
  return open_weights(
    args.weights,
    codec=args.codec,
    data_path=args.data,
    prompts=args.prompt,
    told=_told(args),
    evaluation={name: value for name, value in named.items() if value is not None},
    mesh=mesh,
  )
