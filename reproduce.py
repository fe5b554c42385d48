"""Measures what the configs claim and writes the ledger: docs/ledger.md for people, docs/ledger.json for
programs."""

import argparse
import os
import sys

from diffusion.commands import train as command

EPILOG = """
A config makes a claim: the number of a paper, or a known truth, with a tolerance. This command runs the
config's own measurement (config.measure: a function of the config and a seed), compares, and writes down what
came out, also where the claim does not hold. Only the rows of configs that ran are replaced.

examples:
  python reproduce.py --list                 which claims there are, and what the ledger says of them
  python reproduce.py --jobs=2               run them all, two at a time
  python reproduce.py finite_difference      those whose path contains the word (or matches a pattern with *)
  python reproduce.py my_configs/mine.py     a config file of your own
  python reproduce.py --fast --check         a few quick ones, once each, written nowhere: for every commit

A measurement that takes under five minutes is repeated with three seeds, for the mean and the spread
(standard deviation); seeds count from 0.

exit status: 0 done, whether the claims hold or not; 1 a measurement stopped with an error, or, with --check,
a claim that the ledger calls reproduced no longer holds; 2 a mistake you can mend; 130 or 143 stopped: what
had finished is written.
"""


def main(argv: list[str]) -> None:
  parser = command.Parser(
    prog="reproduce.py",
    description=__doc__,
    epilog=EPILOG,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  parser.add_argument(
    "pattern",
    nargs="*",
    metavar="PATTERN",
    help="part of a config's path, a pattern with * and ?, or a file; all by default",
  )
  parser.add_argument(
    "--configs", default="experiments", metavar="DIR", help="where the configs are (default: experiments)"
  )
  parser.add_argument(
    "--out",
    metavar="DIR",
    help="folder of ledger.md and ledger.json (default: docs, and nowhere with --fast)",
  )
  parser.add_argument("--fast", "--quick", action="store_true", help="only claims marked fast, with one seed")
  parser.add_argument("--seeds", type=int, metavar="N", help="this many seeds, however long they take")
  parser.add_argument(
    "--jobs",
    type=int,
    default=1,
    metavar="N",
    help="measure so many configs at a time, each on its share of the cores (default: 1)",
  )
  parser.add_argument("--list", action="store_true", help="list the claims and run nothing")
  parser.add_argument(
    "--check", action="store_true", help="compare with the ledger in docs (or --out), write nothing"
  )
  flags = parser.parse_args(argv)
  sys.path.append(os.getcwd())  # a config may name measurements in modules of the reader's own

  from experiments import reproduction

  reproduction.run(
    flags.pattern,
    configs=flags.configs,
    out=flags.out,
    fast=flags.fast,
    seeds=flags.seeds,
    list_only=flags.list,
    check=flags.check,
    jobs=flags.jobs,
  )


if __name__ == "__main__":
  sys.exit(command.run(main))
