"""The cost of each form of score matching.

Time and temporary memory of one gradient of an energy's parameters.

SM takes the trace exactly by D directional derivatives of the score, SSM one of them, forward over reverse;
FD-SSM three values of the energy, DSM one score at noisy points, FD-DSM two energies. A dense network
D-512-512-1, batch 128; times are medians over interleaved repeats, memory what the compiled program holds at
once beside its arguments."""

import pathlib
import sys

import jax
import numpy as np

ROOT = pathlib.Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import timing

from experiments.finite_difference import score_matching

FORMS = ("SM", "SSM", "FD-SSM", "DSM", "FD-DSM")


def main():
  parser = timing.arguments(__doc__)
  parser.add_argument(
    "--dimensions",
    type=int,
    nargs="+",
    default=[16, 64, 784],
    metavar="D",
    help="sizes of an example (default: 16 64 784)",
  )
  args = parser.parse_args()
  jax.config.update("jax_enable_compilation_cache", False)
  batch, width = (32, 64) if args.quick else (128, 512)
  numbers = {"batch": batch, "width": width}
  print(f"network D-{width}-{width}-1, batch {batch}, on {jax.devices()[0].device_kind}")
  print(f"{'D':>5} {'form':8}{'ms':>10}{'of SSM':>9}{'MiB':>10}{'of SSM':>9}")
  for dimension in args.dimensions:
    programs = {form: score_matching.program(form, dimension, batch, width) for form in FORMS}
    calls = {
      form: (lambda run=run, arguments=arguments: run(*arguments))
      for form, (run, arguments) in programs.items()
    }
    slow = {"SM"} if dimension > 100 else set()  # hundreds of times the others: once is enough to see it
    quick = {form: call for form, call in calls.items() if form not in slow}
    timing.interleaved(quick, 1)
    times = timing.interleaved(quick, 2 if args.quick else 15)
    times |= timing.interleaved({form: calls[form] for form in slow}, 1 if args.quick else 2)
    memory = {form: score_matching.temporary_bytes(run) for form, (run, _) in programs.items()}
    for form in FORMS:
      seconds = float(np.median(times[form]))
      relative, held = seconds / float(np.median(times["SSM"])), memory[form] / 2**20
      share = memory[form] / max(memory["SSM"], 1)
      print(f"{dimension:5} {form:8}{1e3 * seconds:10.2f}{relative:9.2f}{held:10.2f}{share:9.2f}", flush=True)
      numbers[f"{dimension}/{form}"] = {"seconds": seconds, "seconds_of_ssm": relative, "bytes": memory[form]}
  timing.write(args.out, numbers)


if __name__ == "__main__":
  main()
