"""A change detector: the log-density ratio of two sets of handwritten digits, summed along a stream until it
says that the set changed."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffusion import denoisers, density_ratio, losses, processes
from diffusion.run.fit import fit
from experiments.dre_infinity.density_ratio import adam, inner_product_field


def measure(config: Any, seed: int) -> dict[str, float]:
  """Area under the ROC curve of held-out log-ratios, false alarms and delay of the detector; the picture if
  config.picture is a path.

  p_0 is the law of digits in config.before, p_1 that of those in config.after, both in config.components
  principal coordinates of unit variance blurred by config.noise: without noise a set of images has no
  density. A stream of held-out digits turns from the first set to the second; the detector sums log-ratios,
  never below zero, and alarms above config.threshold nats.
  """
  rng = np.random.default_rng(seed)
  before, after, images = split(config, rng)
  path = processes.linear(bridge=config.bridge)
  time_score, init = inner_product_field(config.components, config.width, config.depth)
  loss = losses.chain(
    losses.time_score_matching(path, weight=losses.both_ends()),
    losses.at_times(
      losses.low_discrepancy(), roles=losses.roles(model=denoisers.from_functions(time_score=time_score))
    ),
  )

  def batches(key):
    ends = enumerate((before["train"], after["train"]))
    return tuple({"x": drawn(one, config.noise, jax.random.fold_in(key, i), config.batch)} for i, one in ends)

  params, _, _ = fit(
    loss,
    init(jax.random.key(seed)),
    adam(config.learning_rate, config.steps),
    batches,
    steps=config.steps,
    seed=seed,
  )
  ratio = jax.jit(
    lambda x: density_ratio.log_ratio(functools.partial(time_score, params["model"]), path, x, nodes=24)
  )
  old, new = (np.asarray(ratio(jnp.asarray(one["test"], jnp.float32))) for one in (before, after))
  statistic, order, change = stream(old, new, config, rng)
  alarms = np.flatnonzero(statistic > config.threshold)
  false = int(np.sum(alarms < change))
  later = alarms[alarms >= change]
  if config.get("picture"):
    draw(config.picture, statistic, change, config.threshold, images[order])
  return {
    "auc": auc(old, new),
    "false_alarms": false,
    "delay": int(later[0] - change) if later.size else len(statistic),
  }


def split(
  config: Any, rng: np.random.Generator
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], np.ndarray]:
  """({'train', 'test'} of the first set, of the second, images of the test sets in their order); raises
  ValueError for an empty set."""
  from sklearn import datasets

  digits = datasets.load_digits()
  if not set(config.before) or set(config.before) & set(config.after) or not set(config.after):
    raise ValueError(
      f"the two sets of digits are apart and not empty, got {tuple(config.before)} and {tuple(config.after)}"
    )
  shuffled = rng.permutation(len(digits.target))
  train, test = shuffled[:1200], shuffled[1200:]
  centre = digits.data[train].mean(0)
  axes = np.linalg.svd(digits.data[train] - centre, full_matrices=False)[2][: config.components]
  coordinates = (digits.data - centre) @ axes.T
  coordinates /= coordinates[train].std(0)
  member = lambda rows, classes: rows[np.isin(digits.target[rows], list(classes))]
  sets, shown = [], []
  for classes in (config.before, config.after):
    rows = member(test, classes)
    blur = config.noise * rng.normal(size=(len(rows), config.components))
    sets.append(
      {
        "train": jnp.asarray(coordinates[member(train, classes)], jnp.float32),
        "test": coordinates[rows] + blur,
      }
    )
    shown.append(digits.images[rows])
  return *sets, np.concatenate(shown)


def drawn(points: jax.Array | np.ndarray, noise: float, key: jax.Array, batch: int) -> jax.Array:
  """A batch of points with fresh noise."""
  row_key, noise_key = jax.random.split(key)
  rows = jax.random.randint(row_key, (batch,), 0, len(points))
  return points[rows] + noise * jax.random.normal(noise_key, (batch, points.shape[1]))


def stream(
  old: np.ndarray, new: np.ndarray, config: Any, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, int]:
  """(sums [2 n], order [2 n] in the test sets, n) of a stream of n digits of each set: S <- max(0, S +
  log-ratio) (Page 1954)."""
  n = config.stream
  first, second = rng.choice(len(old), n, replace=False), rng.choice(len(new), n, replace=False)
  total, sums = 0.0, []
  for value in np.concatenate([old[first], new[second]]):
    total = max(0.0, total + value)
    sums.append(total)
  return np.array(sums), np.concatenate([first, len(old) + second]), n


def auc(low: np.ndarray, high: np.ndarray) -> float:
  """The share of pairs that are in order."""
  return float(np.mean((high[:, None] > low[None, :]) + 0.5 * (high[:, None] == low[None, :])))


def draw(path: str, statistic: np.ndarray, change: int, threshold: float, images: np.ndarray) -> None:
  """The sum along the stream, and the digits around the change."""
  from matplotlib.figure import Figure

  figure = Figure(figsize=(8.0, 3.6), layout="constrained")
  top, bottom = figure.subplots(2, 1, height_ratios=(3, 1))
  top.plot(np.arange(len(statistic)), statistic, color="tab:blue", marker=".")
  top.axvline(change - 0.5, color="tab:red", linewidth=1.0, label="the set changes")
  top.axhline(threshold, color="grey", linewidth=1.0, linestyle="--", label="alarm")
  top.set_ylabel("summed log-ratio, nats")
  top.set_ylim(0.0, 6.0 * threshold)
  top.set_xlabel("digit of the stream")
  top.set_xlim(0, change + 20)
  top.legend(frameon=False, loc="upper left")
  shown = np.concatenate(list(images[change - 10 : change + 10]), axis=1)
  bottom.imshow(shown, cmap="gray_r", aspect="equal")
  bottom.axvline(10 * 8 - 0.5, color="tab:red", linewidth=1.0)
  bottom.set_axis_off()
  figure.savefig(path, dpi=110)
