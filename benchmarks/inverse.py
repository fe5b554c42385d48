"""How far each method of posterior sampling is from the true posterior.

The prior is a mixture of Gaussians in 8 dimensions with a closed-form denoiser, so that the posterior of a
linear measurement is a mixture too and is known. For each measurement and method: the sliced Wasserstein
distance of its samples to exact ones, beside that of two sets of exact ones (the floor) and of the prior,
with the denoiser calls of a sample. Averaged over several measured points."""

import json
import pathlib
import sys

import numpy as np

ROOT = pathlib.Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import timing

from diffusion import processes
from experiments.inverse_problems import posteriors


def measure(args):
  process, prior = processes.edm(sigma_min=0.01, sigma_max=20.0), posteriors.prior()
  count, points, steps = (500, 1, 20) if args.quick else (2000, 4, 100)
  rows = []
  for noise in (0.1,) if args.quick else (0.1, 0.5):
    for name, (measurement, matrix) in posteriors.measurements(noise).items():
      distances, calls = posteriors.distances(
        process, prior, measurement, matrix, points=points, count=count, steps=steps
      )
      for method, found in distances.items():
        rows.append(
          dict(
            measurement=name,
            noise=noise,
            method=method,
            nfe=calls.get(method, 0),
            sliced_wasserstein=float(np.mean(found)),
          )
        )
      print(
        f"{name}, noise {noise}: " + ", ".join(f"{m} {np.mean(v):.3f}" for m, v in distances.items()),
        flush=True,
      )
  return rows


def table(rows):
  """Methods down, measurements across."""
  columns = list(dict.fromkeys((row["measurement"], row["noise"]) for row in rows))
  lines = [f"{'':>28}" + "".join(f"{name + f' {noise:g}':>24}" for name, noise in columns)]
  for method in dict.fromkeys(row["method"] for row in rows):
    values = {
      (row["measurement"], row["noise"]): row["sliced_wasserstein"] for row in rows if row["method"] == method
    }
    lines.append(
      f"{method:>28}" + "".join(f"{values[c]:>24.3f}" if c in values else f"{'-':>24}" for c in columns)
    )
  return "\n".join(lines)


def main():
  args = timing.arguments(__doc__).parse_args()
  rows = measure(args)
  print(table(rows))
  if args.out:
    pathlib.Path(args.out).write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")


if __name__ == "__main__":
  main()
