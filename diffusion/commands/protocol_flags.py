"""The flags of `sample.py --evaluate --protocol=...` and of `--explain`."""

import argparse

from diffusion.config.errors import UserError

PROTOCOLS = ("adm", "edm", "edm2", "score_sde", "clean", "torch_fidelity")
"""What --protocol may be, the names of `metrics.protocols`; --help need not import those."""

OWN = ("features", "statistics", "samples", "write_statistics")
"""Flags that mean something only with --protocol."""

DRAWING = ("solver", "steps", "grid", "tolerance", "option", "guidance", "interval", "seed", "batch")
"""Flags that say how samples are drawn."""

SPLITS = ("train", "held_out")
"""Words that stand for a run's own data."""


def add(parser: argparse.ArgumentParser) -> None:
  """Adds the flags."""
  parser.add_argument(
    "--protocol",
    metavar="NAME",
    help=f"with --evaluate: measure as a published tool does, {', '.join(PROTOCOLS)}; needs --features",
  )
  parser.add_argument(
    "--features",
    nargs="+",
    metavar="FILE",
    help="weights that features are taken with: torch-fidelity's pt_inception-2015-12-05, DINOv2's",
  )
  parser.add_argument(
    "--statistics",
    nargs="+",
    metavar="FILE",
    help="what to compare with: a file of statistics (.npz, EDM2's .pkl), real images as for --samples, or "
    "train or held_out for the run's own data",
  )
  parser.add_argument(
    "--samples",
    metavar="PATH",
    help="images in place of the run's samples: an .npz, a folder or zip of pictures, a folder of --shards, "
    "or train or held_out",
  )
  parser.add_argument(
    "--write-statistics",
    metavar="FILE",
    help="also writes the statistics of the images, in the protocol's layout",
  )
  parser.add_argument(
    "--explain",
    nargs=2,
    metavar=("A", "B"),
    help="says which conventions make the numbers of two metrics.json differ and by how much; FILE:NAME "
    "where a file has several protocols",
  )


def check(args: argparse.Namespace) -> None:
  """UserError for flags that do not go together."""
  given = [f"--{name.replace('_', '-')}" for name in OWN if getattr(args, name) is not None]
  if args.explain:
    others = [
      *given,
      *(f"--{name}" for name in ("protocol", "evaluate", "fit", "task") if getattr(args, name)),
    ]
    others = [flag for flag in others if flag != "--samples"]
    if others:
      raise UserError(f"--explain compares two files that are there, so {others[0]} has no place beside it")
    return
  if args.protocol is None:
    if given:
      raise UserError(f"{given[0]} only means something together with --protocol: add it, or leave it out")
    return
  if args.protocol not in PROTOCOLS:
    raise UserError(f"--protocol={args.protocol} is not known: choose one of {', '.join(PROTOCOLS)}")
  if not args.evaluate:
    raise UserError("--protocol only means something together with --evaluate: add it")
  if not args.features:
    raise UserError("--protocol needs the weights that features are taken with: add --features=FILE")
  words = [word for word in (args.samples, *(args.statistics or ())) if word in SPLITS]
  if not args.workdir and (args.samples is None or words):
    raise UserError(
      f"without a run there are no {words[0] + ' data' if words else 'samples'}: give --workdir, or images "
      "by --samples"
    )
  drawing = [name for name in DRAWING if getattr(args, name) is not None]
  if args.samples is not None and drawing:
    raise UserError(f"--samples names images that are there, so --{drawing[0]} has no place beside it")
  extra = [name for name in ("label", "first") if getattr(args, name) is not None]
  if extra:
    raise UserError(
      f"--protocol draws the classes in turn from the first sample on, so --{extra[0]} has no place beside it"
    )


def without_run(args: argparse.Namespace) -> bool:
  """Whether no --workdir is needed."""
  return bool(args.explain or (args.protocol and args.samples))
