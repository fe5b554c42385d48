"""AND by summed scores (arXiv:2206.01714) and the correctors that mend it (arXiv:2302.11552), measured beside
the exact product of two mixtures."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffusion import guidance, metrics, oracles, processes, solvers

REACH = 3.0
"""Half of the side of the square that the product is tabulated on."""


def parts(process: Any, seed: int) -> Any:
  """A ring of eight Gaussians (label 0), a column of five (label 1) and a wide one (label 2), which is nearly
  all of the unconditional law."""
  turn = np.random.default_rng(seed).uniform(0, np.pi / 4)
  angle = turn + np.pi / 4 * np.arange(8)
  means = np.concatenate(
    [
      np.stack([np.cos(angle), np.sin(angle)], axis=1),
      np.stack([np.full(5, 0.2), np.linspace(-1.2, 1.2, 5)], axis=1),
      np.zeros((1, 2)),
    ]
  )
  weights = np.concatenate([np.full(8, 0.01 / 8), np.full(5, 0.01 / 5), [0.98]])
  covariances = [0.2**2] * 8 + [0.3**2] * 5 + [1.5**2]
  return oracles.gaussian_mixture(
    process, weights, means, covariances, labels=[0] * 8 + [1] * 5 + [2], dtype=jnp.float32
  )


def tabulated(oracle: Any, side: int) -> tuple[np.ndarray, np.ndarray]:
  """(points [side^2, 2], probabilities [side^2]) of p(x | 0) p(x | 1) / p(x) on a square of cells."""
  line = (np.arange(side) + 0.5) / side * 2 * REACH - REACH
  points = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2).astype(np.float32)

  @jax.jit
  def log_density(x):
    t, given = jnp.zeros(x.shape[0]), lambda label: {"label": jnp.full(x.shape[0], label)}
    return (
      oracle.log_prob(x, t, given(0)) + oracle.log_prob(x, t, given(1)) - oracle.log_prob(x, t, given(-1))
    )

  log_p = np.asarray(log_density(jnp.asarray(points)), np.float64)
  p = np.exp(log_p - log_p.max())
  return points, p / p.sum()


def product(config: Any, seed: int) -> dict[str, float]:
  """Sliced Wasserstein distances to the exact product of samples by summed scores: by steps alone, by more of
  them, and with correctors.

  `score_error_SIGMA` is the mean squared difference of the summed scores from the score of the noised
  product, over that one's mean square, at points of the noised product.

  Args:
    config: count, steps, correctors (numbers of Langevin moves a step), snr (of a move), levels (noise), side
      (cells of the exact product's table).
    seed: of the ring's angle and the noise.
  """
  process = processes.edm(sigma_min=0.01, sigma_max=20.0)
  oracle = parts(process, seed)
  both = guidance.conjunction([{"label": 0}, {"label": 1}])(oracle)
  points, p = tabulated(oracle, config.side)
  rng = np.random.default_rng(1000 + seed)
  exact = lambda n: points[rng.choice(len(p), n, p=p)] + rng.uniform(-1, 1, (n, 2)) * REACH / config.side
  target = exact(4 * config.count)
  found = {"floor_distance": metrics.sliced_wasserstein(exact(config.count), target)}
  noise, keys = (
    process.prior(jax.random.split(jax.random.key(seed), config.count), (2,)),
    jax.random.split(jax.random.key(100 + seed), config.count),
  )

  def distance(solver):
    return metrics.sliced_wasserstein(np.asarray(solvers.sample(both, solver, noise, keys=keys)), target)

  grid = lambda steps: solvers.grids.karras(process, steps, clean=True)
  found |= {
    "flow_distance": distance(solvers.build("dpmpp_2m", process, config.steps)),
    "plain_distance": distance(solvers.ancestral(process, grid(config.steps))),
  }
  found["longer_distance"] = distance(
    solvers.ancestral(process, grid(config.steps * (1 + config.correctors[-1])))
  )
  for moves in config.correctors:
    corrected = solvers.predictor_corrector(
      process,
      grid(config.steps),
      predictor=solvers.ancestral,
      corrector=solvers.annealed,
      snr=config.snr,
      n_corrector=moves,
    )
    found[f"corrected_{moves}_distance"] = distance(corrected)
    found[f"corrected_{moves}_over_plain"] = found[f"corrected_{moves}_distance"] / found["plain_distance"]
  found |= {
    "longer_over_plain": found["longer_distance"] / found["plain_distance"],
    "flow_over_floor": found["flow_distance"] / found["floor_distance"],
    "corrected_over_floor": found[f"corrected_{config.correctors[-1]}_distance"] / found["floor_distance"],
  }
  for sigma in config.levels:
    x = jnp.asarray(exact(500) + sigma * rng.normal(size=(500, 2)), jnp.float32)
    summed = np.asarray(both(x, jnp.full(500, sigma), views=("score",)).score)
    of_product = noised_score(process, points, p, x, sigma)
    found[f"score_error_{sigma:g}"] = float(np.mean((summed - of_product) ** 2) / np.mean(of_product**2))
  return found


def noised_score(process: Any, points: np.ndarray, p: np.ndarray, x: jax.Array, sigma: float) -> np.ndarray:
  """The score at x [N, 2] of a law on points [K, 2] with probabilities p, noised by sigma: [N, 2], some rows
  at a time, for a table of all would be large.

  >>> points, p = np.array([[-1.0, 0.0], [1.0, 0.0]]), np.array([0.5, 0.5])
  >>> abs(noised_score(processes.edm(), points, p, jnp.zeros((1, 2)), 1.0)).tolist()
  [[0.0, 0.0]]
  """
  kept = p > 1e-12 * p.max()
  law = oracles.atoms(process, points[kept], p[kept], dtype=jnp.float32)
  one = lambda row: law(row[None], jnp.full(1, sigma), views=("score",)).score[0]
  return np.asarray(jax.lax.map(one, jnp.asarray(x), batch_size=10), np.float64)
