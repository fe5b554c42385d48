"""How far each method of posterior sampling is from the true posterior.

The prior is a mixture of Gaussians in 8 dimensions with a closed-form denoiser, so that the posterior of a linear measurement is a mixture
too and is known. For each measurement and method: the sliced Wasserstein distance of its samples to exact ones, beside that of two
sets of exact ones (the floor) and of the prior, with the denoiser calls of a sample. Averaged over several measured points."""

import json
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np

ROOT = pathlib.Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import timing  # pylint: disable=wrong-import-position
from diffusion import metrics, oracles, processes, solvers, tasks  # pylint: disable=wrong-import-position

DIM = 8
STD = 1.0  # of the data, about


def prior():
  """Weights, means and covariances of six components."""
  rng = np.random.default_rng(0)
  means = rng.normal(size=(6, DIM))
  roots = 0.35 * rng.normal(size=(6, DIM, DIM)) / np.sqrt(DIM)
  return rng.dirichlet(np.full(6, 5.0)), means, [root @ root.T + 0.01 * np.eye(DIM) for root in roots]


def measurements(noise):
  """name -> (measurement, its matrix)."""
  blurred = np.exp(-0.5 * (np.subtract.outer(np.arange(DIM), np.arange(DIM)) / 1.0) ** 2)
  blurred /= blurred.sum(1, keepdims=True)
  pooled = np.kron(np.eye(DIM // 2), np.full((1, 2), 0.5))
  mask = np.arange(DIM) % 2
  sensing = tasks.compressed_sensing((DIM,), 3, jax.random.key(0), noise)
  linear = lambda matrix, gram=None: tasks.measurement(
      tasks.operators.projected, (DIM,), params=jnp.asarray(matrix, jnp.float32), noise=noise, linear=True, gram=gram, name="linear")
  return {
      "inpainting": (tasks.inpainting(mask, noise), np.diag(mask.astype(float))),
      "super_resolution": (linear(pooled, 0.5), pooled),
      "blur": (linear(blurred), blurred),
      "compressed_sensing": (sensing, np.asarray(sensing.params, np.float64)),
  }


def methods(process, measurement, y, steps):
  """name -> (transform of the denoiser, solver, post_step)."""
  table = solvers.build("dpmpp_2m", process, steps)
  stochastic = solvers.build("dpmpp_2m_sde", process, steps)
  grid = solvers.grids.karras(process, steps, clean=True)
  same = lambda denoiser: denoiser
  return {
      "prior": (same, table, None),
      "replacement": (same, stochastic, tasks.replacement(process, measurement, y)),
      "replacement, 5 correctors": (
          same, solvers.predictor_corrector(process, grid, predictor=solvers.ddim, corrector=solvers.annealed, snr=0.3, n_corrector=5),
          tasks.replacement(process, measurement, y)),
      "dps": (tasks.dps(measurement, y), stochastic, None),
      "dps, normalized": (tasks.dps(measurement, y, normalized=True), stochastic, None),
      "dps, spread of x0": (tasks.dps(measurement, y, data_std=STD), stochastic, None),
      "pigdm": (tasks.pigdm(measurement, y, STD), stochastic, None),
      "pigdm, flow": (tasks.pigdm(measurement, y, STD), table, None),
      "daps": (same, tasks.daps(process, grid, measurement, y, data_std=STD), None),
      "ddrm": (same, tasks.ddrm(process, grid, measurement, y), None),
  }


def measure(args):
  process = processes.edm(sigma_min=0.01, sigma_max=20.0)
  weights, means, covariances = prior()
  oracle = oracles.gaussian_mixture(process, weights, means, covariances, dtype=jnp.float32)
  count, points, steps = (500, 1, 20) if args.quick else (2000, 4, 100)
  rows = []
  for noise in (0.1,) if args.quick else (0.1, 0.5):
    for name, (measurement, matrix) in measurements(noise).items():
      distances, calls = {}, {}
      for point in range(points):
        truth = oracle.sample(jax.random.key(100 + point), 1)
        y = measurement.observe(truth, jax.random.split(jax.random.key(200 + point), 1))
        used = matrix[np.abs(matrix).sum(1) > 0]
        seen = np.asarray(y[0], np.float64)[np.abs(matrix).sum(1) > 0]
        exact = oracles.conditioned(process, weights, means, covariances, used, seen, noise)
        target, again = (np.asarray(exact.sample(jax.random.key(key), count)) for key in (1, 2))
        distances.setdefault("floor", []).append(metrics.sliced_wasserstein(again, target))
        many = jnp.broadcast_to(y, (count, y.shape[1]))
        x = process.sample_prior(jax.random.key(3), (count, DIM))
        keys = jax.random.split(jax.random.key(4), count)
        for method, (transform, solver, post_step) in methods(process, measurement, many, steps).items():
          out = np.asarray(solvers.sample(transform(oracle), solver, x, keys=keys, post_step=post_step))
          distances.setdefault(method, []).append(metrics.sliced_wasserstein(out, target) if np.all(np.isfinite(out)) else np.inf)
          calls[method] = solver.nfe
      for method, found in distances.items():
        rows.append(dict(measurement=name, noise=noise, method=method, nfe=calls.get(method, 0), sliced_wasserstein=float(np.mean(found))))
      print(f"{name}, noise {noise}: " + ", ".join(f"{m} {np.mean(v):.3f}" for m, v in distances.items()), flush=True)
  return rows


def table(rows):
  """Methods down, measurements across."""
  columns = list(dict.fromkeys((row["measurement"], row["noise"]) for row in rows))
  lines = [f"{'':>28}" + "".join(f"{name + f' {noise:g}':>24}" for name, noise in columns)]
  for method in dict.fromkeys(row["method"] for row in rows):
    values = {(row["measurement"], row["noise"]): row["sliced_wasserstein"] for row in rows if row["method"] == method}
    lines.append(f"{method:>28}" + "".join(f"{values[c]:>24.3f}" if c in values else f"{'-':>24}" for c in columns))
  return "\n".join(lines)


def main():
  args = timing.arguments(__doc__).parse_args()
  rows = measure(args)
  print(table(rows))
  if args.out:
    pathlib.Path(args.out).write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")


if __name__ == "__main__":
  main()
