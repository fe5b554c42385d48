"""Trains a model from a config, then samples and evaluates it.

If the folder holds a started run, it is resumed.
"""

import argparse
import os
import sys

from diffusion.commands import train as command
from diffusion.config import loading
from diffusion.run import compile_cache, distributed

EPILOG = """
examples:
  python train.py --config=configs/digits.py --workdir=runs/digits
  python train.py --config=configs/toy2d.py:moons --workdir=runs/moons --config.training.steps=500
  python train.py --config=configs/distill_digits.py:stage_one --workdir=runs/distilled/stage_one
  python train.py --config=... --workdir=... --distributed --coordinator=host0:1234 --processes=2 --process=0

The same command again goes on from the newest checkpoint, bit for bit as if it had not been interrupted.
Only the run's length, its logging, checkpointing, placement and sampling may be changed on the way.
A learning rate that falls until the end of the run (cosine, linear) moves with its length: set
config.optimizer.decay_steps to keep it where it is.

The folder gets config.json, checkpoints/, log.jsonl and tensorboard/ (or what config.training.sinks says),
and at the end the evaluation's files (metrics.json and pictures).

exit status: 0 done; 2 a mistake you can mend, said in one line; 130 or 143 stopped by Ctrl-C or SIGTERM
after saving: run the same command to go on; 75 (134 where JAX's runtime aborts) another process of the run is
gone: run all again.

"""
EPILOG += (
  compile_cache.HELP
  + """
Several processes that are one run (--distributed) keep nothing there by themselves.
"""
)


def main(argv):
  overrides, rest = loading.split_overrides(argv)
  parser = command.Parser(
    prog="train.py",
    description=__doc__,
    epilog=EPILOG,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  parser.add_argument(
    "--config",
    required=True,
    metavar="FILE[:VARIANT]",
    help="Python file whose get_config() (or get_config(VARIANT)) returns the config",
  )
  parser.add_argument(
    "--workdir", required=True, metavar="DIR", help="folder of the run; made if it does not exist"
  )
  parser.add_argument(
    "--config.KEY=VALUE",
    dest="_",
    nargs="?",
    metavar="",
    default=None,
    help="changes one value of the config, for example --config.training.steps=100; may be given many times",
  )
  parser.add_argument("--no-evaluate", action="store_true", help="only train")
  parser.add_argument(
    "--profile", action="store_true", help="record a few steps into DIR/profile, for TensorBoard or Perfetto"
  )
  distributed.add_flags(parser)
  parser.add_argument("--quiet", action="store_true", help="no progress bar")
  flags = parser.parse_args(rest)
  distributed.start(flags)
  sys.path.append(os.getcwd())  # a config may name factories in modules of the reader's own
  if not flags.distributed:  # what one process compiles and another loads may differ where compilers measure
    compile_cache.keep()
  config = loading.load(flags.config, overrides)

  from diffusion.run import loop

  loop.train(config, flags.workdir, quiet=flags.quiet, profile=flags.profile)
  if flags.no_evaluate:
    return
  if flags.distributed:
    if distributed.first():
      print(f"trained; to evaluate it, on one process: python sample.py --workdir={flags.workdir} --evaluate")
    return
  from diffusion.commands import evaluation

  print(evaluation.report(evaluation.evaluate_run(flags.workdir, quiet=flags.quiet)))
  print(f"wrote {flags.workdir}/metrics.json and the pictures beside it")


if __name__ == "__main__":
  sys.exit(command.run(main))
