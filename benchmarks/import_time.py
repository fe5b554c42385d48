"""How long `import diffusion` takes beside `import jax, flax.linen, optax`, in fresh interpreters.

Two numbers: the package alone (its parts load on first use), and the package with every core part."""

import pathlib
import subprocess
import sys
import time

import numpy as np

ROOT = pathlib.Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import timing

PROGRAMS = {
  "base": "import jax, flax.linen, optax",
  "package": "import diffusion",
  "core parts": "import diffusion.processes, diffusion.networks, diffusion.denoisers, diffusion.oracles, "
  "diffusion.losses, diffusion.guidance, diffusion.solvers",
}


def run(code):
  """Seconds that a fresh interpreter needs for some imports."""
  start = time.perf_counter()
  subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
  return time.perf_counter() - start


def main():
  args = timing.arguments(__doc__).parse_args()
  rounds = 3 if args.quick else 11
  for code in PROGRAMS.values():
    run(code)  # bytecode and disk caches
  times = {name: [] for name in PROGRAMS}
  for _ in range(rounds):
    for name, code in PROGRAMS.items():
      times[name].append(run(code))
  times = {name: np.asarray(values) for name, values in times.items()}
  numbers = {}
  for name in ("package", "core parts"):
    middle, (low, high) = timing.ratio(times, name, "base")
    numbers[name.replace(" ", "_") + "_ratio"] = middle
    print(
      f"import {name:<11} / import jax, flax.linen, optax: {middle:.3f} ({low:.3f} to {high:.3f}), aim at "
      "most 1.3"
    )
  timing.write(args.out, numbers | {"base_seconds": float(np.median(times["base"]))})


if __name__ == "__main__":
  main()
