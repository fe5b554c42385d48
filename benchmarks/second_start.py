"""How long `sample.py` takes from its start to the first pictures: the second call.

A run is trained for a few steps. Then, interleaved and each in a process of its own: `sample.py` of another
checkout of this library (`--base=FOLDER`, or this one) that keeps no compiled programs, and `sample.py` of
this one, whose programs were compiled by an earlier call. The last case opens a file of weights (`--weights`)
the second time, and has the run that the file was written from, in this checkout, to compare with. The
figures are the medians of the seconds and of the CPU seconds (user and system), and of the ratios in each
round; aim at most 0.5.
"""

import os
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np

ROOT = pathlib.Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import timing

CASES = {
  "digits": ("configs/digits.py", 64),
  "digits_unet": ("configs/digits_unet.py", 16),
  "weights": ("configs/digits_diffusers.py", 16),
}
"""Config, and number of pictures."""


def run(root, env, *words):
  """(seconds, CPU seconds) of a Python process; root: of the checkout."""
  env = {name: value for name, value in os.environ.items() if not name.startswith("JAX_COMPILATION")} | env
  start = time.perf_counter()
  child = subprocess.Popen([sys.executable, *words], cwd=root, env=env | dict(PYTHONPATH=str(root)))
  _, status, used = os.wait4(child.pid, 0)
  child.returncode = os.waitstatus_to_exitcode(status)
  if child.returncode:
    raise SystemExit(f"{' '.join(words)} ended with status {child.returncode}")
  return time.perf_counter() - start, used.ru_utime + used.ru_stime


def main():
  parser = timing.arguments(__doc__)
  parser.add_argument("--base", metavar="FOLDER", default=str(ROOT), help="a checkout to compare with")
  args = parser.parse_args()
  rounds = 2 if args.quick else 5
  numbers = {}
  with tempfile.TemporaryDirectory() as folder:
    # As on a user's machine: bytecode is kept, and there is a folder for compiled programs.
    common = dict(PYTHONPYCACHEPREFIX=f"{folder}/bytecode", PYTHONDONTWRITEBYTECODE="")
    off, on = dict(JAX_ENABLE_COMPILATION_CACHE="false"), dict(XDG_CACHE_HOME=f"{folder}/cache")
    for name, (config, num) in CASES.items():
      steps = (
        "--config.training.steps=4",
        "--config.training.checkpoint_every=4",
        "--no-evaluate",
        "--quiet",
      )
      train = ("train.py", f"--config={config}", f"--workdir={folder}/{name}", *steps)
      run(ROOT, common | off, *train)
      opened = f"--workdir={folder}/{name}"
      rest = (f"--num={num}", f"--batch={num}", "--quiet", f"--out={folder}/samples")
      ways = {"base": (args.base, common | off, opened), "second": (str(ROOT), common | on, opened)}
      if name == "weights":
        run(ROOT, common | on, "sample.py", opened, f"--to-diffusers={folder}/published", "--quiet")
        published = (f"--weights={folder}/published", "--solver=dpmpp_2m", "--steps=25")
        ways = {"base": (str(ROOT), common | off, opened), "second": (str(ROOT), common | on, *published)}
      found = {way: [] for way in ways}
      for number in range(rounds + 1):
        for way in list(ways)[:: 1 if number % 2 else -1]:
          where, env, *what = ways[way]
          measured = run(where, env, "sample.py", *what, *rest)
          found[way] += [measured] if number else []  # the first round fills both caches
      found = {way: np.asarray(times) for way, times in found.items()}
      for place, what in enumerate(("seconds", "cpu_seconds")):
        times = {way: found[way][:, place] for way in ways}
        middle, (low, high) = timing.ratio(times, "second", "base")
        numbers |= {f"{name}_{what}_{way}": float(np.median(times[way])) for way in ways}
        numbers[f"{name}_{what}_ratio"] = middle
        print(
          f"{name:<12} {what:<12} {np.median(times['base']):6.2f} without, {np.median(times['second']):6.2f} "
          f"the second time: {middle:.2f} ({low:.2f} to {high:.2f}), aim at most 0.5",
          flush=True,
        )
  timing.write(args.out, numbers)


if __name__ == "__main__":
  main()
