"""The flags of `sample.py --task=...`, and which of them belong to which task."""

import argparse
import math

from diffusion.config.errors import UserError

TASKS = ("inpaint", "colorize", "super_resolve", "edit", "translate", "classify")
METHODS = ("pigdm", "ddrm", "daps", "dps", "replacement")
"""The first is the default: on held-out digits its energy score is the least but for dps, which on MNIST is
the worse of the two: see docs/uses.md."""
OWN_SOLVERS = ("ddrm", "daps")

EVERYWHERE = (
  "task",
  "workdir",
  "weights",
  "codec",
  "told",
  "data",
  "out",
  "num",
  "first",
  "seed",
  "batch",
  "checkpoint",
  "ema",
  "input",
  "quiet",
)
"""Flags that every task takes."""

_SAMPLES = ("draws", "label", "guidance", "interval", "solver", "steps", "grid", "option")
"""Flags of every task that samples with a solver."""

TAKES = {
  "inpaint": ("mask", "noise", "method", *_SAMPLES),
  "colorize": ("noise", "method", *_SAMPLES),
  "super_resolve": ("factor", "noise", "method", *_SAMPLES),
  "edit": ("mask", "strength", "repeats", *_SAMPLES),
  "translate": ("other_workdir", "label", "to_label", "guidance", "interval", "steps"),
  "classify": ("draws",),
}
"""What each task takes besides."""

OWN = (
  "input",
  "mask",
  "factor",
  "noise",
  "method",
  "strength",
  "repeats",
  "other_workdir",
  "to_label",
  "draws",
)
"""Flags that mean something only with a task."""

STRENGTH = 0.75
"""In sigma/alpha: what `tasks.recommended` took for crude paintings of digits in [-1, 1] (docs/sdedit.png),
the unit of configs/digits.py too."""

MOST_ROWS, MOST_SAMPLES = 12, 6
"""Of images, and of results for each, in a picture; twice as many images are classified in one."""

DEFAULTS = dict(first=0, seed=0, batch=64)

ARRAYS = {
  "input": "[N, H, W, C] the images given (not where they were the measurement), in the data's values",
  "index": "[N] their numbers in the files or in the held-out data",
  "label": "[N] their classes, -1 where unknown",
  "measurement": "[N, ...] of inpaint, super_resolve, colorize: what was known of them, in the data's values",
  "mask": "[H, W, C] of inpaint and edit: 1 where pixels are made anew, 0 where they stay",
  "strength": "[S] of edit: the noise levels sigma/alpha",
  "x": "results in the model's units: [N, draws, H, W, C], of edit [N, S, draws, H, W, C], of translate [N, "
  "H, W, C]; of a model of latents its latents [..., h, w, c]",
  "stored": "x in the data's values, decoded, rounded and cut to their range",
  "mean": "of stored over the draws",
  "spread": "standard deviation of stored over the draws",
  "latent": "[N, H, W, C] of translate: the noise between the two ends, in the process's units",
  "back": "[N, H, W, C] of translate: the results carried back, in the data's values",
  "to_label": "[N] of translate: the class asked for",
  "log_prob": "[N, classes] of classify: log p(class | image)",
  "found": "[N] of classify: the most probable class",
  "draws": "of classify: how many noise levels",
}
"""What the NPZ of a task holds."""

DESCRIPTION = (
  """\
Images in, images out: PATH.npz with the arrays below, PATH.png side by side with column titles.
Without --input the first held-out images of the run's data are taken, so that every task can be tried at
once.

  inpaint        what --mask hides, given the rest: posterior samples, their mean and their spread
  super_resolve  an image from the means of its --factor x --factor blocks (an input of the small size is that
                 measurement)
  colorize       a colour image from the mean of its channels (a grey input is that measurement)
  edit           SDEdit: strokes or a composite noised to --strength and denoised, everywhere or inside --mask
  translate      DDIB: the same latent decoded as class --to-label, or by the model of --other-workdir
  classify       p(class | image) from how well each class predicts the noise

"""
  + f"A picture has the first {MOST_ROWS} images (classify: {2 * MOST_ROWS}) and {MOST_SAMPLES} results of "
  "each; PATH.npz has all of them:\n\n" + "\n".join(f"  {name:<13}{what}" for name, what in ARRAYS.items())
)


def add(parser: argparse.ArgumentParser) -> None:
  """Adds the flags of tasks, as a group of their own."""
  group = parser.add_argument_group("tasks", DESCRIPTION)
  group.add_argument("--task", choices=TASKS, help="what to do with the images of --input")
  group.add_argument(
    "--input",
    nargs="+",
    metavar="FILE",
    help="PNG or JPEG files of one image each (what is transparent counts as black, also in a mask), or NPZ "
    "files with the array stored (or x) [n, H, W, C] in the data's values and, if known, label [n], whole "
    "numbers",
  )
  group.add_argument(
    "--mask",
    metavar="WHERE",
    help="what is made anew, by inpaint (default: half) or edit (default: everything): half (the right one), "
    "box (in the middle), random:0.5 (that share of the pixels), or a file, a PNG (white is made anew) or an "
    "NPZ with mask [H, W] of 0 and 1",
  )
  group.add_argument(
    "--factor",
    type=int,
    metavar="F",
    help="side of the blocks that super_resolve knows the means of (default: 2)",
  )
  group.add_argument(
    "--noise",
    type=float,
    metavar="S",
    help="standard deviation of the noise in the measurement, in the data's values, 0 to 255 in most "
    "pictures (default: 0, where inpaint puts the known pixels back exactly at the end)",
  )
  group.add_argument(
    "--method",
    choices=METHODS,
    help="how to sample given a measurement (default: pigdm); docs/uses.md compares them; dps is the "
    "published one in a form for any number of steps; ddrm and daps are solvers of their own and cost no "
    "pass back",
  )
  group.add_argument(
    "--strength",
    type=float,
    nargs="+",
    metavar="T0",
    help="noise level sigma/alpha at which an edit starts, in the model's units: more is more realistic and "
    f"less faithful; several are a sweep (default: {STRENGTH:g}, what crude paintings of 8x8 digits needed, "
    "see docs/sdedit.png: try several on other data)",
  )
  group.add_argument(
    "--repeats",
    type=int,
    metavar="K",
    help="how often an edit is noised and denoised, each time from the last result (default: 1)",
  )
  group.add_argument(
    "--other-workdir",
    metavar="FOLDER",
    help="run whose model an image is translated to (default: the same), at its newest checkpoint and first "
    "average; --checkpoint and --ema are those of --workdir",
  )
  group.add_argument(
    "--to-label", metavar="CLASS", help="class that an image is translated to; --label is the one it has"
  )
  group.add_argument(
    "--draws",
    type=int,
    metavar="K",
    help="results for each image (default: 16 posterior samples, 4 edits), or noise levels at which classify "
    "compares the classes (default: 100)",
  )


def check(args: argparse.Namespace) -> None:
  """Raises UserError for flags that do not belong together, and fills in the defaults of the task."""
  name = lambda flag: "--" + flag.replace("_", "-")
  given = [flag for flag, value in vars(args).items() if value not in (None, False)]
  if not math.isfinite(args.guidance or 0.0):
    raise UserError(f"--guidance={args.guidance:g} is no weight: give a number, or leave it out")
  if args.task is None:
    lone = [flag for flag in given if flag in OWN]
    if lone:
      raise UserError(
        f"{name(lone[0])} only means something together with --task: add one of {', '.join(TASKS)}, or leave "
        "it out"
      )
    return
  for flag in given:
    if flag not in EVERYWHERE + TAKES[args.task]:
      others = [task for task in TASKS if flag in TAKES[task]]
      raise UserError(
        f"{name(flag)} means nothing to --task={args.task}"
        + (f", it belongs to {', '.join(others)}" if others else "")
        + ": leave it out"
      )
  for flag in ("solver", "option"):
    if args.method in OWN_SOLVERS and flag in given:
      raise UserError(
        f"--method={args.method} is a solver of its own: leave out {name(flag)}, or take --method=pigdm, dps "
        "or replacement"
      )
  if args.interval and not args.guidance:
    raise UserError(
      "--interval says at which noise levels --guidance acts, and --task has none of its own: add "
      "--guidance=W, or leave it out"
    )
  if args.guidance and args.task != "translate" and (args.label is None or str(args.label) == "-1"):
    raise UserError(
      f"--guidance={args.guidance:g} leads towards a class and none is given: add --label=CLASS, or leave it "
      "out"
    )
  for flag in ("num", "batch", "draws", "repeats", "factor", "steps"):
    value = getattr(args, flag)
    if value is not None and value < 1:
      raise UserError(f"{name(flag)}={value} must be at least 1")
  if args.noise is not None and not 0 <= args.noise < float("inf"):
    raise UserError(f"--noise={args.noise} is a standard deviation, so it is 0 or more")
  for flag, value in DEFAULTS.items():
    if getattr(args, flag) is None:
      setattr(args, flag, value)
  if args.first < 0 or not 0 <= args.seed < 2**31:
    raise UserError(
      f"--first={args.first} and --seed={args.seed}: both start at 0, and a seed ends at {2**31 - 1}"
    )
