"""A table of categories: the likelihood of a concrete score beside that of independent columns."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffusion import likelihood, losses, networks, processes
from experiments.concrete.known_laws import trained


def measure(config: Any, seed: int) -> dict[str, float]:
  """Nats a row of held-out rows of scikit-learn's breast-cancer table, config.columns of it cut at the
  quantiles of the training rows.

  nll: of p_t of the learned ratios by `annealed_log_prob`, normalised over all states; log_normalizer: how
  far from one they summed before. nll_independent: of the product of the columns' own frequencies;
  nll_smoothed: of the training rows under the same noise, the best that memory does. Each takes the noise
  level among config.levels that is best on rows of its own.
  """
  rows, values, columns = table(config), config.bins, len(config.columns)
  shuffled = np.random.default_rng(seed).permutation(len(rows))
  cuts = np.quantile(rows[shuffled[: config.train]], np.arange(1, values) / values, axis=0)
  states = np.sum(rows[None] > cuts[:, None], axis=0).astype(np.int32)
  train, choose, test = (
    states[part] for part in np.split(shuffled, (config.train, config.train + config.choose))
  )

  process = processes.uniform_resample(values, (columns,), t_min=min(config.levels))
  of = processes.neighbourhoods.grid([values] * columns, tuple(range(1, values)))
  network = networks.ConcreteMLP(
    num_values=values,
    num_neighbours=of.num_neighbours,
    width=config.width,
    depth=config.depth,
    embedding_size=8,
    frequencies=1,
    resampled=True,
  )
  objective = losses.chain(
    losses.denoising_concrete_score_matching(process, of), losses.weight_by(losses.balanced())
  )
  data = lambda key: {"x": jnp.asarray(train)[jax.random.randint(key, (config.batch,), 0, len(train))]}
  concrete = trained(
    config, objective, losses.low_discrepancy(losses.logit_normal(-1.0, 1.5)), network, data, seed, (columns,)
  )

  every = jnp.asarray(np.array(list(np.ndindex(*(values,) * columns)), np.int32))
  log_prob = jax.jit(
    lambda concrete, t: likelihood.annealed_log_prob(concrete, process, of, every, t, nodes=config.nodes),
    static_argnums=1,
  )
  number = lambda part: np.ravel_multi_index(part.T, (values,) * columns)
  found = {}
  for t in config.levels:
    learned = np.asarray(log_prob(concrete, t), np.float64)
    total = np.logaddexp.reduce(learned)
    smoothed, independent = alternatives(train, every, values, t)
    for name, log_p in (
      ("nll", learned - total),
      ("nll_smoothed", smoothed),
      ("nll_independent", independent),
    ):
      found.setdefault(name, []).append(
        (-np.mean(log_p[number(choose)]), -np.mean(log_p[number(test)]), t, total)
      )
  best = {name: min(levels) for name, levels in found.items()}
  return {
    **{name: float(one[1]) for name, one in best.items()},
    "log_normalizer": float(best["nll"][3]),
    "level": float(best["nll"][2]),
    "gain_nats": float(best["nll_independent"][1] - best["nll"][1]),
    "over_smoothed_nats": float(best["nll"][1] - best["nll_smoothed"][1]),
  }


def table(config: Any) -> np.ndarray:
  """Rows [n, columns] of the table, float64."""
  from sklearn.datasets import load_breast_cancer

  return load_breast_cancer().data[:, list(config.columns)]


def alternatives(
  train: np.ndarray, every: jax.Array | np.ndarray, values: int, t: float
) -> tuple[np.ndarray, np.ndarray]:
  """log p of every state: of the training rows with each value drawn anew with probability t, and of their
  columns alone."""
  every = np.asarray(every)
  stay, jump = 1.0 - t + t / values, t / values
  differ = sum((every[:, None, d] != train[None, :, d]).astype(np.int8) for d in range(train.shape[1]))
  log_kernel = differ * np.log(jump) + (train.shape[1] - differ) * np.log(stay)
  smoothed = np.logaddexp.reduce(log_kernel, axis=1) - np.log(len(train))
  shares = np.stack([np.mean(train == value, axis=0) for value in range(values)])  # [values, columns]
  shares = (1.0 - t) * shares + t / values
  return smoothed, np.sum(np.log(shares[every, np.arange(train.shape[1])]), axis=1)
