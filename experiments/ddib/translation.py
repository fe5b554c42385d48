"""Dual diffusion implicit bridges (arXiv:2203.08382), measured: the six sets in the plane, each with a model
that has seen no other."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from diffusion import denoisers, losses, networks, processes, solvers, tasks
from diffusion.data.toy_sets import TOY2D
from diffusion.metrics import sliced_wasserstein
from diffusion.run.fit import fit


def plane(config: Any, seed: int) -> dict[str, float]:
  """Cycle errors, their orders, samples and transport costs of translations between sets in the plane; means
  over config.pairs.

  `*_cycle` is the mean over held-out points of the distance between a point and where it is after there and
  back, in deviations of the set; `*_slope` the order by which it falls. With config.picture a path, the first
  seed draws the maps there.

  Args:
    config: sets, pairs (first, second), pool, steps, batch, learning_rate, width, depth, log_mean, log_std:
      of the models; points, cycle_points, runge_kutta, tables {solver: counts of steps}, tolerance, t_min,
      picture: of what is measured.
    seed: of the data, the networks and the trainings.
  """
  process = processes.vp_linear(t_min=config.t_min)
  models, held = trained(config, process, seed)
  found, shown = [], {}
  for first, second in config.pairs:
    source, target, x = models[first], models[second], held[first][: config.points]
    there = tasks.translate(source, target, x, num_steps=config.runge_kutta)
    back = tasks.translate(target, source, there.x, num_steps=config.runge_kutta).x
    shown[first, second] = tuple(map(np.asarray, (x, there.latent, there.x, back)))
    noise = jax.random.normal(jax.random.key(11), x.shape)
    own = solvers.sample(target, solvers.dpmpp_2m(process, solvers.grids.log_snr(process, 64)), noise)
    distance = lambda points, reference=np.asarray(held[second][config.points :]): sliced_wasserstein(
      np.asarray(points), reference
    )
    found.append(
      dict(
        translated_distance=distance(there.x),
        own_samples_distance=distance(own),
        true_points_distance=distance(held[second][: config.points]),
        runge_kutta_cycle=mean_distance(back, x),
        latent_deviation=float(jnp.std(there.latent)),
        transport_over_optimal=transport_over_optimal(x, there.x),
        **cycles(config, process, source, target, x[: config.cycle_points]),
      )
    )
  if config.get("picture") and seed == 0:
    draw(config.picture, shown)
  means = {name: float(np.mean([one[name] for one in found])) for name in found[0]}
  return means | {"worst_transport_over_optimal": max(one["transport_over_optimal"] for one in found)}


def trained(config: Any, process: Any, seed: int) -> tuple[dict[str, Any], dict[str, jax.Array]]:
  """({set: denoiser}, {set: held-out points [2 points, 2]}): six networks as rows of one program, with
  nothing in common but their process."""
  draws = {
    name: standardized(TOY2D[name](config.pool, np.random.default_rng([seed, number]))[0])
    for number, name in enumerate(config.sets)
  }
  pools = jnp.asarray(np.stack(list(draws.values())), jnp.float32)
  train, held = pools[:, : -2 * config.points], pools[:, -2 * config.points :]
  network = networks.MLP(width=config.width, depth=config.depth)
  template = denoisers.from_flax(network, process, denoisers.edm(data_std=1.0), None)
  loss = losses.chain(
    losses.denoising_score_matching(process, "x0"),
    losses.weight_by(losses.edm(data_std=1.0)),
    losses.at_times(
      losses.low_discrepancy(losses.log_normal_sigma(config.log_mean, config.log_std)),
      roles=losses.roles(model=template),
    ),
  )
  transform = optax.adam(optax.cosine_decay_schedule(config.learning_rate, config.steps), b2=0.99)

  def one(points, seed):
    start = network.init(jax.random.key(seed), points[:1], jnp.zeros(1))["params"]
    data = lambda key: {"x": points[jax.random.randint(key, (config.batch,), 0, len(points))]}
    return fit(loss, start, transform, data, steps=config.steps, seed=seed)[0]

  params = jax.jit(jax.vmap(one))(train, 1000 * seed + jnp.arange(len(draws)))
  each = lambda i: template.with_params(jax.tree.map(lambda leaf: leaf[i], params["model"]))
  return {name: each(i) for i, name in enumerate(draws)}, {name: held[i] for i, name in enumerate(draws)}


def standardized(points: np.ndarray) -> np.ndarray:
  """Points less one mean, over one deviation, of all coordinates together, as in the authors' code.

  >>> standardized(np.array([[0.0, 2.0], [4.0, 2.0]])).round(2).tolist()
  [[-1.41, 0.0], [1.41, 0.0]]
  """
  return (points - points.mean()) / points.std()


def mean_distance(x: jax.Array, y: jax.Array) -> float:
  """Mean Euclidean distance of points [n, 2] from points [n, 2]."""
  return float(jnp.mean(jnp.linalg.norm(x - y, axis=1)))


def cycles(config: Any, process: Any, source: Any, target: Any, x: jax.Array) -> dict[str, float]:
  """Cycle errors of tables at each of their numbers of steps, the slopes between the first and the last, and
  that of an adaptive solver."""

  def error(encoder, decoder):
    there = tasks.translate(source, target, x, encoder=encoder, decoder=decoder).x
    return mean_distance(tasks.translate(target, source, there, encoder=encoder, decoder=decoder).x, x)

  found = {}
  for name, counts in config.tables.items():
    for n in counts:
      grid = solvers.grids.quadratic(process, n)
      found[f"{name}_{n}_cycle"] = error(
        tasks.encoder(name, process, grid), solvers.build(name, process, n, grid=grid)
      )
    first, last = (found[f"{name}_{n}_cycle"] for n in (counts[0], counts[-1]))
    found[f"{name}_slope"] = float(np.log(first / last) / np.log(counts[-1] / counts[0]))
  adaptive = (
    tasks.encoder("diffrax_ode", process, tolerance=config.tolerance),
    solvers.diffrax_ode(process, rtol=config.tolerance, atol=config.tolerance, denoise=False),
  )
  return found | {"adaptive_cycle": error(*adaptive)}


def transport_over_optimal(x: Any, y: Any, most: int = 500) -> float:
  """The mean squared distance from points x to their images y, over the least for which the same points can
  be matched.

  >>> transport_over_optimal(np.array([[0.0], [1.0]]), np.array([[2.0], [0.0]]))  # 4 + 1 over 0 + 1
  5.0
  """
  from scipy.optimize import linear_sum_assignment

  x, y = np.asarray(x[:most], np.float64), np.asarray(y[:most], np.float64)
  cost = np.sum((x[:, None] - y[None]) ** 2, axis=2)
  return float(np.trace(cost) / cost[linear_sum_assignment(cost)].sum())


def draw(path: str, maps: Mapping[tuple[str, str], tuple[np.ndarray, ...]], most: int = 600) -> None:
  """{(first, second): (points, latents, translated, back)}, a row a pair; a point has the colour of its place
  in the source throughout."""
  from matplotlib.colors import hsv_to_rgb
  from matplotlib.figure import Figure

  from diffusion.pictures.sheets import write_figure

  figure = Figure(figsize=(8.4, 2.15 * len(maps)), layout="constrained")
  rows = figure.subplots(len(maps), 4, squeeze=False)
  for axes, ((first, second), panels) in zip(rows, maps.items()):
    panels = tuple(points[:most] for points in panels)
    x = panels[0]
    angle, radius = np.arctan2(x[:, 1], x[:, 0]) / (2 * np.pi) % 1.0, np.linalg.norm(x, axis=1)
    rank = np.argsort(np.argsort(radius)) / len(radius)
    colour = hsv_to_rgb(np.stack([angle, np.full_like(angle, 0.95), 0.45 + 0.5 * rank], axis=1))
    distance = np.linalg.norm(panels[3] - x, axis=1).mean()
    titles = (first, "latent", second, f"back, off by {distance:.1g} on average")
    for axis, points, title in zip(axes, panels, titles):
      axis.set_title(title.replace("_", " "), fontsize=8)
      axis.scatter(points[:, 0], points[:, 1], s=1.8, c=colour, linewidths=0)
      axis.set(aspect="equal", xticks=(), yticks=())
    for axis, points in zip(axes, panels):
      reach = max(2.9 if axis is axes[1] else 0.0, 1.08 * np.abs(points).max())
      axis.set(xlim=(-reach, reach), ylim=(-reach, reach))
  write_figure(path, figure)
