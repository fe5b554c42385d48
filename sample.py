"""Samples from a trained model, or evaluates it. `python sample.py --help` lists the options."""

import argparse
import os
import sys

from diffusion.commands import opened, protocol_flags, train as command
from diffusion.commands.tasks import flags as task_flags
from diffusion.config.errors import UserError
from diffusion.run import compile_cache, distributed

DESCRIPTION = """\
Samples from the newest (or a named) checkpoint of a run, or from a published model, evaluates it, or
restores, edits, translates and classifies images with it.

  python sample.py --workdir=runs/digits --num=64 --label=3 --guidance=1.5 --out=threes
  python sample.py --workdir=runs/digits --solver=dpmpp_2m --steps=12 --grid=karras
  python sample.py --workdir=runs/digits --solver=dpm_solver_adaptive --tolerance=0.01
  python sample.py --workdir=runs/digits --num=1000000 --shards=runs/million --processes=4 --process=0
  python sample.py --workdir=runs/text --prompt "def " --infill "a___b" --num=4
  python sample.py --workdir=runs/digits --evaluate
  python sample.py --workdir=runs/cifar10 --evaluate --protocol=edm --features=FILE --statistics=FILE
  python sample.py --explain runs/a/metrics.json runs/b/metrics.json
  python sample.py --workdir=runs/digits --task=inpaint --mask=half --draws=32 --out=halves
  python sample.py --workdir=runs/digits --task=edit --input strokes.png --strength 0.3 0.6 1.2
  python sample.py --workdir=runs/digits --fit --steps=8
  python sample.py --workdir=runs/digits --guidance=1 --export=digits.jax
  python sample.py --workdir=runs/digits --solver=runs/digits/solvers/best_8_guidance0.5.npz
  python sample.py --weights=edm-cifar10-32x32-cond-vp.pkl --num=64 --out=published

Sample i depends on (--seed, i) alone: --num=8 --first=8 gives images 8 to 15 of --num=64. Of a run between
two data sets it starts from record i of the second, held out, in order and again from the first.
With --shards the same command goes on where it stopped. Processes write each their own shards and need not
know of each other: start N of them with --processes=N --process=0 ... N-1, or let the cluster say with
--distributed.
What is not given comes from the run's config.

"""
DESCRIPTION += compile_cache.HELP


DEFAULTS = dict(num=64, first=0, seed=0, batch=64)
SHARD_SIZE = 8192


def parser():
  """The command line."""
  p = command.Parser(
    prog="sample.py",
    description=DESCRIPTION,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  p.add_argument(
    "--workdir",
    metavar="FOLDER",
    help="folder that train.py wrote (needed but for --weights and --solver=list)",
  )
  p.add_argument(
    "--out", metavar="PATH", help="writes PATH.png and PATH.npz (default: a telling name in FOLDER)"
  )
  p.add_argument("--num", type=int, metavar="N", help="how many samples (default: 64)")
  p.add_argument("--first", type=int, metavar="I", help="index of the first one (default: 0)")
  p.add_argument("--seed", type=int, metavar="S", help="which sequence of samples (default: 0)")
  p.add_argument(
    "--label",
    metavar="CLASS",
    help="one class for all, by number or name; -1 for none (default: the classes in turn)",
  )
  p.add_argument(
    "--batch", type=int, metavar="B", help="samples drawn together; the last batch is padded (default: 64)"
  )
  p.add_argument(
    "--shards",
    metavar="FOLDER",
    help="writes the samples to FOLDER as NPZ files of a fixed number each, without pictures",
  )
  p.add_argument(
    "--shard-size",
    type=int,
    metavar="N",
    help=f"samples in one file (default: {SHARD_SIZE}); best a multiple of --batch",
  )
  distributed.add_flags(p)
  p.add_argument(
    "--solver",
    metavar="NAME",
    help="for example heun, dpmpp_2m, ddim, ancestral, predictor_corrector, heun_velocity between two sets, "
    "masked_ancestral of whole numbers, or a .npz that --fit wrote; list prints all",
  )
  p.add_argument("--steps", type=int, metavar="N", help="steps of the solver")
  p.add_argument(
    "--grid",
    metavar="NAME",
    help="spacing of the steps: uniform, quadratic, vp_time, asinh, log_snr, karras (default: the solver's "
    "own)",
  )
  p.add_argument(
    "--tolerance",
    type=float,
    metavar="T",
    help="how exact an adaptive solver is, relative and absolute; it takes no --steps",
  )
  p.add_argument(
    "--option",
    type=opened.named_value,
    action="append",
    metavar="NAME=VALUE",
    help="of the solver, for example eta=0.5 or order=2; may be given several times",
  )
  p.add_argument(
    "--guidance",
    type=float,
    metavar="W",
    help="classifier-free guidance (1 + W) conditional - W unconditional; 0 for none; a distilled run knows "
    "a range of W",
  )
  p.add_argument(
    "--interval",
    type=float,
    nargs=2,
    metavar=("LOW", "HIGH"),
    help="noise levels sigma/alpha between which to guide",
  )
  p.add_argument(
    "--guided-channels",
    type=int,
    metavar="N",
    help="how many channels --guidance acts on, the first ones (default: all; 3 for what the authors of DiT "
    "and SiT do)",
  )
  p.add_argument(
    "--checkpoint", type=int, metavar="STEP", help="training step of the checkpoint (default: the newest)"
  )
  p.add_argument(
    "--ema",
    metavar="AVERAGE",
    help="which averaged weights: a half-life in images that the run keeps, or, of a run with snapshots "
    "(config.training.ema_snapshot_every), any relative length such as 0.15; none for the raw ones",
  )
  p.add_argument(
    "--evaluate",
    action="store_true",
    help="measure the model on held-out data instead, and write metrics.json and the pictures",
  )
  p.add_argument(
    "--fit",
    action="store_true",
    help="fit a sampler of --steps to the guided model, from --solver or the best of several, on --num "
    "noises; writes FOLDER/solvers/SOLVER_STEPS.npz",
  )
  p.add_argument(
    "--to-diffusers",
    metavar="FOLDER",
    help="write the network of weights.architectures, its scheduler and autoencoder as diffusers does",
  )
  p.add_argument(
    "--export",
    metavar="FILE",
    help="write the whole sampler (weights, steps, guidance, decoding) as FILE.jax, a program that JAX runs "
    "without this library on cpu, cuda and tpu, with its inputs for these samples as FILE.npz, explained in "
    "FILE.json; needs the package flatbuffers",
  )
  p.add_argument(
    "--infill",
    metavar="TEXT",
    help="of a run of text: what samples hold, after --prompt if there is one; each _ is a hole that is "
    "filled by one character, and what comes after the text is written freely",
  )
  p.add_argument("--hole", metavar="CHAR", help="the character that marks a hole in --infill, in place of _")
  p.add_argument("--quiet", action="store_true", help="no progress bar")
  opened.add(p)
  protocol_flags.add(p)
  task_flags.add(p)
  return p


def main(argv):
  args = parser().parse_args(argv)
  if args.solver == "list":
    from diffusion import solvers

    print(solvers.listing())
    return
  opened.check(args)
  protocol_flags.check(args)
  if args.explain:
    from diffusion.commands.evaluation import explain

    print(explain.run(args))
    return
  if not args.workdir and not protocol_flags.without_run(args):
    parser().error("one of the following arguments is required: --workdir, --weights")
  sys.path.append(os.getcwd())  # a config may name factories in modules of the reader's own
  compile_cache.keep()
  of_sampler = ("solver", "steps", "grid", "tolerance", "guidance", "interval", "guided_channels")
  sampler = {name: getattr(args, name) for name in of_sampler}
  sampler["options"] = dict(args.option) if args.option else None
  task_flags.check(args)
  if args.task:
    from diffusion.commands.tasks import run

    print(run.run(args, sampler))
    return
  if args.to_diffusers:
    from diffusion.commands import to_diffusers

    given = {name for name, value in vars(args).items() if value not in (None, False)} - {
      "workdir",
      "to_diffusers",
      "checkpoint",
      "ema",
      "quiet",
    }
    if given:
      raise UserError(
        f"--to-diffusers only writes weights, so --{min(given).replace('_', '-')} has no place beside it"
      )
    print(to_diffusers.run(args.workdir, args.to_diffusers, args.checkpoint, args.ema))
    return
  many = ("distributed", "coordinator", "processes", "process", "shard_size")
  given = [name for name in many if getattr(args, name) not in (None, False)]
  if given and not args.shards:
    raise UserError(
      f"--{given[0].replace('_', '-')} only means something together with --shards: add it, or leave it out"
    )
  if args.shards:
    given = [name for name in ("out", "evaluate", "fit", "export") if getattr(args, name)]
    if given:
      raise UserError(f"--shards writes samples to its folder, so --{given[0]} has no place beside it")
    process, processes = distributed.share(args)
    from diffusion.commands import shards as shards_command

    _set_defaults(args, shard_size=SHARD_SIZE, **DEFAULTS)
    print(shards_command.run(args, sampler, process, processes))
  elif args.export:
    given = [name for name in ("out", "evaluate", "fit") if getattr(args, name)]
    if given:
      raise UserError(f"--export writes a program and no samples, so --{given[0]} has no place beside it")
    from diffusion.commands import export as export_command

    _set_defaults(args, **DEFAULTS)
    print(export_command.run(args, sampler))
  elif args.fit:
    given = [name for name in ("first", "evaluate") if getattr(args, name)]
    if given:
      raise UserError(f"--fit only fits, so --{given[0]} has no place beside it")
    from diffusion.commands import fit as fit_command

    print(fit_command.run(args, sampler))
  elif args.protocol:
    from diffusion.commands.evaluation import protocol

    print(protocol.run(args, sampler))
  elif args.evaluate:
    said = ("first",) if args.weights else DEFAULTS
    given = [name for name in ("out", "label", *said) if getattr(args, name) is not None]
    if given:
      raise UserError(
        f"--evaluate draws what config.evaluation says (samples, batch, seed), so --{given[0]} has no place "
        "beside it"
      )
    from diffusion.commands import evaluation

    model = opened.open_model(args)
    os.makedirs(args.workdir, exist_ok=True)
    found = evaluation.evaluate(model, args.workdir, quiet=args.quiet, **sampler)
    print(evaluation.report(found))
    print(f"wrote {args.workdir}/metrics.json and the pictures beside it")
  else:
    from diffusion.commands import sample as sampling_command

    _set_defaults(args, **DEFAULTS)
    print(sampling_command.run(args, sampler))


def _set_defaults(args, **defaults):
  for name, value in defaults.items():
    if getattr(args, name) is None:
      setattr(args, name, value)


if __name__ == "__main__":
  sys.exit(command.run(main))
