"""Posterior sampling where the posterior is known (a mixture of Gaussians, y linear in x with noise),
measured: which method is nearer to it."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffusion import metrics, oracles, processes, solvers, tasks

DIM = 8
STD = 1.0
"""Of the data, about: what the methods that ask for it are told."""


def prior(seed: int = 0) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
  """Weights [6], means [6, 8] and covariances of a mixture in eight dimensions.

  >>> weights, means, covariances = prior()
  >>> means.shape, round(float(weights.sum()), 6), bool(np.linalg.eigvalsh(covariances[0]).min() > 0)
  ((6, 8), 1.0, True)
  """
  rng = np.random.default_rng(seed)
  means = rng.normal(size=(6, DIM))
  roots = 0.35 * rng.normal(size=(6, DIM, DIM)) / np.sqrt(DIM)
  return rng.dirichlet(np.full(6, 5.0)), means, [root @ root.T + 0.01 * np.eye(DIM) for root in roots]


def measurements(noise: float) -> dict[str, tuple[Any, np.ndarray]]:
  """{name: (measurement, its matrix [M, 8])}."""
  blurred = np.exp(-0.5 * (np.subtract.outer(np.arange(DIM), np.arange(DIM)) / 1.0) ** 2)
  blurred /= blurred.sum(1, keepdims=True)
  pooled = np.kron(np.eye(DIM // 2), np.full((1, 2), 0.5))
  mask = np.arange(DIM) % 2
  sensing = tasks.compressed_sensing((DIM,), 3, jax.random.key(0), noise)
  return {
    "inpainting": (tasks.inpainting(mask, noise), np.diag(mask.astype(float))),
    "super_resolution": (tasks.linear(pooled, noise=noise).replace(gram=0.5), pooled),
    "blur": (tasks.linear(blurred, noise=noise), blurred),
    "compressed_sensing": (sensing, np.asarray(sensing.params, np.float64)),
  }


def methods(process: Any, measurement: Any, y: jax.Array, steps: int) -> dict[str, tuple[Any, Any, Any]]:
  """{name: (transform of the denoiser, solver, post_step)} for y [B, *measured]."""
  table = solvers.build("dpmpp_2m", process, steps)
  stochastic = solvers.build("dpmpp_2m_sde", process, steps)
  grid = solvers.grids.karras(process, steps, clean=True)
  same = lambda denoiser: denoiser
  return {
    "prior": (same, table, None),
    "replacement": (same, stochastic, tasks.replacement(process, measurement, y)),
    "replacement, 5 correctors": (
      same,
      solvers.predictor_corrector(
        process, grid, predictor=solvers.ddim, corrector=solvers.annealed, snr=0.3, n_corrector=5
      ),
      tasks.replacement(process, measurement, y),
    ),
    "dps": (tasks.dps(measurement, y), stochastic, None),
    "dps, normalized": (tasks.dps(measurement, y, normalized=True), stochastic, None),
    "dps, spread of x0": (tasks.dps(measurement, y, data_std=STD), stochastic, None),
    "pigdm": (tasks.pigdm(measurement, y, STD), stochastic, None),
    "pigdm, flow": (tasks.pigdm(measurement, y, STD), table, None),
    "daps": (same, tasks.daps(process, grid, measurement, y, data_std=STD), None),
    "ddrm": (same, tasks.ddrm(process, grid, measurement, y), None),
  }


def distances(
  process: Any,
  mixture: Any,
  measurement: Any,
  matrix: np.ndarray,
  *,
  points: int,
  count: int,
  steps: int,
  seed: int = 0,
  chosen: Sequence[str] | None = None,
) -> tuple[dict[str, np.ndarray], dict[str, int]]:
  """Sliced Wasserstein distances of each method's samples to exact ones of the posterior, over measured
  points; infinite where it diverged.

  Args:
    process: a Gaussian process.
    mixture: weights, means, covariances, as of `prior`.
    measurement, matrix: one of `measurements`.
    points: how many x are drawn and measured.
    count: samples a point.
    steps: of every method.
    seed: of the points and of all noise.
    chosen: names of methods; None for all.

  Returns:
    ({name: [points]}, {name: denoiser calls a sample}); 'floor' is the distance of two sets of exact samples.
  """
  weights, means, covariances = mixture
  oracle = oracles.gaussian_mixture(process, weights, means, covariances, dtype=jnp.float32)
  key = lambda number: jax.random.key(1000 * seed + number)
  x, keys = process.prior(jax.random.split(key(3), count), (DIM,)), jax.random.split(key(4), count)
  found, calls = {}, {}
  for point in range(points):
    truth = oracle.sample(key(100 + point), 1)
    y = measurement.observe(truth, jax.random.split(key(200 + point), 1))
    seen = np.abs(matrix).sum(axis=1) > 0
    exact = oracles.conditioned(
      process,
      weights,
      means,
      covariances,
      matrix[seen],
      np.asarray(y[0], np.float64)[seen],
      float(measurement.noise),
    )
    target, again = (np.asarray(exact.sample(key(number), count)) for number in (1, 2))
    found.setdefault("floor", []).append(metrics.sliced_wasserstein(again, target))
    for name, (transform, solver, post_step) in methods(
      process, measurement, jnp.broadcast_to(y, (count, y.shape[1])), steps
    ).items():
      if chosen is None or name in chosen:
        out = np.asarray(solvers.sample(transform(oracle), solver, x, keys=keys, post_step=post_step))
        found.setdefault(name, []).append(
          metrics.sliced_wasserstein(out, target) if np.all(np.isfinite(out)) else np.inf
        )
        calls[name] = solver.cost
  return {name: np.array(each) for name, each in found.items()}, calls


def mixture(config: Any, seed: int) -> dict[str, float]:
  """Ratios of the methods' distances to the posterior: `A_over_B_NOISE` for the pairs, `A_over_prior` and
  `A_over_floor` for the methods.

  A ratio is that of the means over points, its geometric mean over the measurements (and over the noises
  where none is named): so no one measurement with long distances decides. Every seed has a mixture of its
  own, none of which the benchmark has seen.

  Args:
    config: measurements, noises, methods, pairs (A, B), points, count, steps.
    seed: of the mixture, the points and the noise.
  """
  process, own = processes.edm(sigma_min=0.01, sigma_max=20.0), prior(1 + seed)
  means = {}
  for noise in config.noises:
    for name in config.measurements:
      measurement, matrix = measurements(noise)[name]
      each, _ = distances(
        process,
        own,
        measurement,
        matrix,
        points=config.points,
        count=config.count,
        steps=config.steps,
        seed=seed,
        chosen=("prior", *config.methods),
      )
      means[noise, name] = {method: value.mean() for method, value in each.items()}

  def ratio(a, b, noises):
    with np.errstate(divide="ignore", invalid="ignore"):
      return float(
        np.exp(
          np.mean(
            [
              np.log(means[noise, name][a] / means[noise, name][b])
              for noise in noises
              for name in config.measurements
            ]
          )
        )
      )

  found = {
    f"{slug(a)}_over_{slug(b)}_{noise:g}": ratio(a, b, (noise,))
    for a, b in config.pairs
    for noise in config.noises
  }
  for method in config.methods:
    found |= {
      f"{slug(method)}_over_prior": ratio(method, "prior", config.noises),
      f"{slug(method)}_over_floor": ratio(method, "floor", config.noises),
    }
  return found


def slug(name: str) -> str:
  """A method's name as a part of a metric's.

  >>> slug("dps, spread of x0")
  'dps_spread_of_x0'
  """
  return name.replace(",", "").replace(" ", "_")
