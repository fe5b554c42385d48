"""Guidance by a worse model, by no condition, and by no condition inside an interval, measured on two trees
of Gaussians in the plane."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from diffusion import denoisers, guidance, losses, metrics, networks, oracles, processes, solvers
from diffusion.run.fit import fit

STD = 0.5
"""Of the data over all coordinates, EDM's: so that the intervals of arXiv:2404.07724 are in the same unit."""


def trees(
  depth: int, seed: int, thickness: float = 0.1
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
  """Two classes, each a tree that forks depth - 1 times, four narrow Gaussians a branch: weights [K], means
  [K, 2], covariances, labels [K].

  A generation of branches has the same mass as any other and is 0.75 times as long as the one before; across
  a branch the deviation is `thickness` of its length.

  >>> weights, means, covariances, labels = trees(3, 0)
  >>> means.shape, np.bincount(labels).tolist(), round(float(weights.sum()), 6)
  ((56, 2), [28, 28], 1.0)
  """
  rng = np.random.default_rng(seed)
  weights, means, covariances, labels = [], [], [], []
  for label, angle in enumerate((np.pi / 4, np.pi * 11 / 12)):
    branches = [(np.zeros(2), angle)]
    for generation in range(depth):
      length, grown = 0.75**generation, []
      for start, angle in branches:
        along = np.array([np.cos(angle), np.sin(angle)])
        across = np.array([-along[1], along[0]])
        for part in (0.125, 0.375, 0.625, 0.875):
          means.append(start + part * length * along)
          covariances.append(
            (0.125 * length) ** 2 * np.outer(along, along)
            + (thickness * length) ** 2 * np.outer(across, across)
          )
          weights.append(1.0 / (depth * len(branches) * 8))
          labels.append(label)
        grown += [(start + length * along, angle + side * rng.uniform(0.3, 0.7)) for side in (-1, 1)]
      branches = grown
  weights, means, covariances = np.array(weights), np.array(means), np.array(covariances)
  centred = means - weights @ means
  scale = STD / np.sqrt(
    (weights @ (centred**2).sum(axis=1) + weights @ np.trace(covariances, axis1=1, axis2=2)) / 2
  )
  return weights, scale * centred, scale**2 * covariances, np.array(labels)


class Truth:
  """The two trees: points of them, and what is seen of samples beside them.

  Attributes:
    modes: (weights, means, covariances, labels) of `trees`.
    oracle: their mixture.
    label, points: the class of each point [2 count], and true points [2 count, 2]: draws, or what
      flow(oracle, cond) makes of noise. Where samples are of the same noise, the chance in it is common to
      both and their distance has a lower floor.
  """

  def __init__(
    self,
    process: Any,
    depth: int,
    seed: int,
    count: int,
    thickness: float = 0.1,
    flow: Callable[..., Any] | None = None,
  ) -> None:
    self.modes = trees(depth, seed, thickness)
    self.oracle = oracles.gaussian_mixture(process, *self.modes[:3], labels=self.modes[3], dtype=jnp.float32)
    self.label = np.repeat(np.arange(2, dtype=np.int32), count)
    cond = {"label": jnp.asarray(self.label)}
    points = (
      self.oracle.sample(jax.random.key(10_000 + seed), 2 * count, cond=cond)
      if flow is None
      else flow(self.oracle, cond)
    )
    self.points = np.asarray(points, np.float64)
    self.usual = self.deviations(self.points)[1]

  def deviations(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(least Mahalanobis distance of points from the modes of their class [2 count], how many are nearest to
    each mode [K])."""
    _, means, covariances, labels = self.modes
    offset = x[:, None] - means[None]
    squares = np.einsum("nkd,kde,nke->nk", offset, np.linalg.inv(covariances), offset)
    squares[self.label[:, None] != labels[None]] = np.inf
    return np.sqrt(squares.min(axis=1)), np.bincount(squares.argmin(axis=1), minlength=len(means))

  def seen(self, x: np.ndarray, outlying: float = 4.0) -> dict[str, float]:
    """outliers: share beyond `outlying` deviations of every mode of their class; coverage: share of the modes
    with a quarter of their points or more;
    chosen, distance: the sliced Wasserstein distance to true points, class by class, of the even samples to
    the even ones and of the odd to the odd."""
    distance, count = self.deviations(x)
    halves = []
    for half in (slice(0, None, 2), slice(1, None, 2)):
      label = self.label[half]
      halves.append(
        np.mean(
          [
            metrics.sliced_wasserstein(x[half][label == one], self.points[half][label == one])
            for one in (0, 1)
          ]
        )
      )
    return dict(
      outliers=float(np.mean(distance > outlying)),
      coverage=float(np.mean(count >= 0.25 * self.usual)),
      chosen=float(halves[0]),
      distance=float(halves[1]),
    )


def plane(config: Any, seed: int) -> dict[str, float]:
  """Outliers, modes covered and distances of samples without guidance, with a worse model's, and with
  classifier-free guidance.

  Weights here are w in (1 + w) good - w worse, one less than the papers'. The best weight of a kind of
  guidance is that of the least distance of half of the samples; its `distance` is that of the other half, so
  that trying more of them is no advantage. True points are where the exact flow takes the same noise.

  Args:
    config: depth, thickness (of `trees`), pool, count (samples a class), width, blocks, steps, worse_width,
      guides ({name: updates}), batch, learning_rate, dropout (of the condition), log_mean, log_std: of the
      data and the models; auto_weights, free_weights, intervals, interval_weights, shown (the weight of
      autoguidance and of classifier-free guidance), solver_steps, sigma_max, picture (a path or '').
    seed: of the trees, the trainings and the noise.
  """
  process = processes.edm(sigma_min=0.002, sigma_max=config.sigma_max)
  solver = solvers.build("heun", process, config.solver_steps)
  noise = process.prior(jax.random.split(jax.random.key(30_000 + seed), 2 * config.count), (2,))
  follow = lambda denoiser, cond: np.asarray(solvers.sample(denoiser, solver, noise, cond=cond), np.float64)
  truth = Truth(process, config.depth, seed, config.count, config.thickness, flow=follow)
  labels = jnp.arange(config.pool, dtype=jnp.int32) % 2
  pool = truth.oracle.sample(jax.random.key(20_000 + seed), config.pool, cond={"label": labels})
  main = trained(config, truth.oracle, pool, labels, seed, config.width, config.steps)
  guides = {
    name: trained(config, truth.oracle, pool, labels, 100 + seed, config.worse_width, steps)
    for name, steps in config.guides.items()
  }
  draw_with = lambda transform: follow(transform(main), {"label": jnp.asarray(truth.label)})
  samples = {("none", 0.0, None): draw_with(lambda denoiser: denoiser)}
  samples |= {
    (name, w, None): draw_with(guidance.autoguidance(guide, w))
    for name, guide in guides.items()
    for w in config.auto_weights
  }
  samples |= {("free", w, None): draw_with(guidance.classifier_free(w)) for w in config.free_weights}
  samples |= {
    ("inside", w, ends): draw_with(guidance.classifier_free(w, interval=ends))
    for w in config.interval_weights
    for ends in config.intervals
  }
  seen = {name: truth.seen(x) for name, x in samples.items()}
  for name, one in seen.items():
    print(*name, {key: round(value, 4) for key, value in one.items()}, flush=True)
  best = lambda kind, *weight: min(
    (one for name, one in seen.items() if name[0] == kind and name[1] in (weight or (name[1],))),
    key=lambda one: one["chosen"],
  )
  auto_weight, free_weight = config.shown
  none, free, inside = seen["none", 0.0, None], seen["free", free_weight, None], best("inside", free_weight)
  found = dict(
    unguided_outliers=none["outliers"],
    unguided_coverage=none["coverage"],
    unguided_distance=none["distance"],
    classifier_free_over_unguided_outliers=free["outliers"] / max(none["outliers"], 1e-9),
    classifier_free_coverage=free["coverage"],
    best_classifier_free_over_unguided=best("free")["distance"] / none["distance"],
    best_inside_over_everywhere=best("inside")["distance"] / best("free")["distance"],
    best_inside_over_unguided=best("inside")["distance"] / none["distance"],
    inside_over_everywhere_at_large_weight=inside["distance"] / free["distance"],
    inside_less_everywhere_coverage=inside["coverage"] - free["coverage"],
  )
  for name in guides:
    auto = seen[name, auto_weight, None]
    found |= {
      f"{name}_over_unguided_outliers": auto["outliers"] / max(none["outliers"], 1e-9),
      f"{name}_coverage": auto["coverage"],
      f"best_{name}_over_unguided": best(name)["distance"] / none["distance"],
      f"best_{name}_over_classifier_free": best(name)["distance"] / best("free")["distance"],
    }
  if config.picture and seed == 0:
    shown = {
      "no guidance\n": ("none", 0.0, None),
      f"classifier-free guidance\nw = {free_weight:g}": ("free", free_weight, None),
    }
    shown |= {
      f"autoguidance, w = {auto_weight:g}\nguide of {steps} updates": (name, auto_weight, None)
      for name, steps in config.guides.items()
    }
    draw(
      config.picture,
      truth,
      {"true points\n": truth.points} | {title: samples[name] for title, name in shown.items()},
    )
  return found


def trained(
  config: Any, oracle: Any, pool: jax.Array, labels: jax.Array, seed: int, width: int, steps: int
) -> Any:
  """A class-conditional denoiser that knows no condition too, of this width after so many updates towards the
  exact one, as in the paper."""
  process, network = oracle.process, networks.MLP(width=width, depth=config.blocks, num_classes=2)
  template = denoisers.from_flax(network, process, denoisers.edm(data_std=STD), None)
  loss = losses.chain(
    losses.distillation(process),
    losses.condition_dropout(config.dropout),
    losses.weight_by(losses.edm(data_std=STD)),
    losses.at_times(
      losses.low_discrepancy(losses.log_normal_sigma(config.log_mean, config.log_std)),
      roles=losses.roles(model=template, teacher=oracle),
    ),
  )
  start = jax.jit(lambda key: network.init(key, pool[:1], jnp.zeros(1), {"label": labels[:1]})["params"])(
    jax.random.key(seed)
  )
  transform = optax.adam(optax.cosine_decay_schedule(config.learning_rate, steps), b2=0.99)

  def batch(key):
    rows = jax.random.randint(key, (config.batch,), 0, len(pool))
    return {"x": pool[rows], "cond": {"label": labels[rows]}}

  return template.with_params(fit(loss, start, transform, batch, steps=steps, seed=seed)[0]["model"])


def draw(path: str, truth: Truth, panels: Mapping[str, np.ndarray], most: int = 3000) -> None:
  """A panel for each {title: points [2 count, 2]}: the points of one class, over the places of its modes."""
  from matplotlib.figure import Figure

  from diffusion.pictures.sheets import write_figure

  figure = Figure(figsize=(2.6 * len(panels), 3.4), layout="constrained")
  own = truth.points[truth.label == 0]
  middle, half = (own.max(axis=0) + own.min(axis=0)) / 2, 0.55 * np.ptp(own, axis=0).max()
  for axis, (title, points) in zip(figure.subplots(1, len(panels)), panels.items()):
    seen = truth.seen(np.asarray(points))
    axis.set_title(
      f"{title}\n{seen['outliers']:.1%} outliers, {seen['coverage']:.0%} of the modes", fontsize=8
    )
    axis.scatter(*own[:most].T, s=0.5, c="0.8", linewidths=0)
    axis.scatter(*points[truth.label == 0][:most].T, s=0.8, c="tab:blue", linewidths=0)
    axis.set(
      aspect="equal",
      xticks=(),
      yticks=(),
      xlim=(middle[0] - half, middle[0] + half),
      ylim=(middle[1] - half, middle[1] + half),
    )
  write_figure(path, figure)
