"""Diffusion recovery likelihood (arXiv:2012.08125), measured: a mixture on a line, sets in the plane, long
chains, and the density."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from diffusion import denoisers, likelihood, losses, mcmc, networks, oracles, processes, solvers
from diffusion.run.fit import fit
from experiments.drl.planar_targets import block_variation, target

CLOCK = 0.25
"""The network is told this times log(sigma / alpha)."""
SAMPLES, CHAINS, POINTS = 4000, 1000, 401


def trained(
  config: Any,
  process: Any,
  times: np.ndarray,
  sample: Callable[..., jax.Array],
  dim: int,
  seed: int,
) -> tuple[Callable[..., jax.Array], Any, float]:
  """(energy(params, x, t, cond), params, mean gap of the last hundred steps) of a network fitted by recovery
  likelihood at the config's settings."""
  network = networks.Potential(width=config.width, depth=config.depth, frequencies=tuple(config.frequencies))

  def energy(params, x, t, cond=None):
    del cond
    return network.apply({"params": params}, x, clock(process, t), method="energy")

  options = dict(steps=config.chain, step=config.step, adjusted=config.adjusted)
  transforms = []
  if config.get("published"):
    energy, options["step"], weight = published(network, process, times, config.published)
    transforms = [losses.weight_by(weight)]
  objective = losses.recovery_likelihood(process, times, **options)
  loss = losses.chain(
    objective,
    *transforms,
    losses.at_times(
      losses.level_times(times), roles=losses.roles(model=denoisers.from_functions(energy=energy))
    ),
  )
  rate = optax.warmup_cosine_decay_schedule(
    0.0, config.learning_rate, min(100, config.steps // 2), config.steps
  )
  transform = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate, b2=0.99))
  start = network.init(jax.random.key(seed), jnp.zeros((1, dim)), jnp.zeros(1))["params"]
  params, _, gaps = fit(
    loss, start, transform, lambda key: {"x": sample(key, config.batch)}, steps=config.steps, seed=seed
  )
  return energy, params["model"], float(jnp.mean(jnp.abs(gaps[-100:])))


def clock(process: Any, t: jax.Array) -> jax.Array:
  """What the network is told of the time: [B]."""
  return -0.5 * CLOCK * process.log_snr(t)


def published(
  network: Any, process: Any, times: np.ndarray, b2: float
) -> tuple[Callable[..., jax.Array], Any, Callable[..., jax.Array]]:
  """(energy, steps, weight) of the authors' code: -log p = -f / step^2 of y = gain x, and a loss in f times
  noise_0 / noise_i."""
  steps = processes.published_step(b2)
  levels = processes.recovery_levels(process, times, step=steps)
  squared = levels.step * np.where(levels.seen, levels.gain, 1.0) ** 2

  def at(leaf, t):
    edges = jnp.asarray(levels.t, t.dtype)
    return jnp.asarray(leaf, t.dtype)[
      jnp.clip(jnp.searchsorted(edges, t, side="right") - 1, 0, levels.count - 1)
    ]

  def energy(params, x, t, cond=None):
    del cond
    f = network.apply({"params": params}, x, clock(process, t), method="energy") - 0.5 * jnp.sum(
      x * x, axis=1
    )
    return f / at(squared, t)

  return energy, steps, lambda process, t: at(squared * levels.noise[0] / levels.noise, t)


def noise_levels(process: Any, config: Any) -> np.ndarray:
  """Times of config.levels steps, even in log-SNR from config.low to config.high times the signal: [levels +
  1]."""
  return process.t_of_log_snr(-2.0 * np.log(np.geomspace(config.low, config.high, config.levels + 1)))


def mixture(config: Any, seed: int) -> dict[str, float]:
  """Two modes on a line: the learned log-density at the lowest level against the true one, over the points
  that hold 99.9% of the mass.

  config: weights, means, deviation of the modes, low, high, levels, and those of `trained`.
  """
  process = processes.vp_cosine()
  times = noise_levels(process, config)
  oracle = oracles.gaussian_mixture(
    process, config.weights, np.asarray(config.means)[:, None], config.deviation**2, dtype=jnp.float32
  )
  energy, params, gap = trained(config, process, times, oracle.sample, 1, seed)
  x = jnp.linspace(-3.0, 3.0, 1201)[:, None]
  t = jnp.full(x.shape[0], times[0], jnp.float32)
  true = np.asarray(oracle.log_prob(x, t), np.float64)
  learned = -np.asarray(jax.jit(energy)(params, x, t), np.float64)
  learned -= np.log(np.sum(np.exp(learned)) * 0.005)
  order = np.argsort(-true)
  kept = order[np.cumsum(np.exp(true[order])) * 0.005 < 0.999]
  right = np.exp(learned[x[:, 0] > 0]).sum() * 0.005
  return {
    "log_density_correlation": float(np.corrcoef(true[kept], learned[kept])[0, 1]),
    "kl_nats": float(np.sum(np.exp(true) * (true - learned)) * 0.005),
    "right_mode": float(right),
    "energy_gap": gap,
  }


def plane(config: Any, seed: int) -> dict[str, float]:
  """A set in the plane: samples level by level, long chains at the lowest level, the normaliser and the
  density.

  config: data (of `planar_targets`), low, high, levels, sampler_chain and sampler_step, long_chain, picture
  (a path or ''), and those of `trained`. Everything is in the units of the standardised set.
  """
  process = processes.vp_cosine()
  times = np.asarray(processes.T6_TIMES) if config.get("published") else noise_levels(process, config)
  process = processes.ddpm_ladder() if config.get("published") else process
  goal = target(config.data, process)
  energy, params, gap = trained(config, process, times, goal.sample, 2, seed)
  step = processes.published_step(config.published) if config.get("published") else config.sampler_step
  x = samples(energy, params, process, times, config.sampler_chain, step, seed)
  floor = block_variation(goal.sample(jax.random.key(seed + 1), SAMPLES), goal)
  found = {
    "block_tv": block_variation(x, goal),
    "iid_block_tv": floor,
    "inside": float(np.mean(goal.inside(x))),
    "energy_gap": gap,
  }
  if not config.long_chain:
    return found
  lowest = functools.partial(at_lowest, energy, float(times[0]))
  size = float(process.marginal(times[0]).sigma) ** 2
  kernel = mcmc.mala(jax.tree_util.Partial(lambda params, x: -lowest(params, x), params), size)
  long = mcmc.run(kernel, x[:CHAINS], jax.random.key(seed + 2), config.long_chain)
  found |= {
    "long_chain_inside": float(np.mean(goal.inside(long.x))),
    "long_chain_block_tv": block_variation(long.x, goal),
  }
  found |= density(
    lowest, params, goal, float(times[0]), float(np.sqrt(size)), process, config, seed, np.asarray(x)
  )
  return found


def samples(
  energy: Callable[..., jax.Array], params: Any, process: Any, times: Any, chain: int, step: Any, seed: int
) -> jax.Array:
  """Points [SAMPLES, 2] from noise down to the lowest level, by `solvers.recovery_langevin`."""
  score = lambda params, x, t, cond: -jax.grad(lambda x: jnp.sum(energy(params, x, t)))(x)
  denoiser = denoisers.from_function(score, process, denoisers.score(), params)
  table = solvers.recovery_langevin(process, np.asarray(times)[::-1], steps_per_level=chain, step=step)
  noise_key, key = jax.random.split(jax.random.key(1000 + seed))
  return solvers.sample(
    denoiser, table, jax.random.normal(noise_key, (SAMPLES, 2)), keys=jax.random.split(key, SAMPLES)
  )


def at_lowest(energy: Callable[..., jax.Array], t: float, params: Any, x: jax.Array) -> jax.Array:
  """The energy [B] at the lowest level."""
  return energy(params, x, jnp.full(x.shape[0], t, x.dtype))


def density(
  lowest: Callable[..., jax.Array],
  params: Any,
  goal: Any,
  t: float,
  sigma: float,
  process: Any,
  config: Any,
  seed: int,
  x: jax.Array,
) -> dict[str, float]:
  """log Z by annealed importance sampling against a sum over a fine grid, and nats lost against the true
  density."""
  keys = jax.random.split(jax.random.key(seed + 3), CHAINS)
  found = likelihood.annealed_importance(
    lowest, jnp.zeros((CHAINS, 2)), keys, std=1.2, scale=2 * sigma, num_steps=1000, params=params
  )
  line = np.linspace(-2.5, 2.5, POINTS)
  grid = jnp.asarray(np.stack(np.meshgrid(line, line, indexing="ij"), axis=-1).reshape(-1, 2), jnp.float32)
  values = -np.asarray(
    jax.jit(lambda params, x: jax.lax.map(functools.partial(lowest, params), x))(
      params, grid.reshape(POINTS, POINTS, 2)
    ),
    np.float64,
  )
  summed = np.logaddexp.reduce(values.ravel()) + 2 * np.log(line[1] - line[0])
  m = process.marginal(np.array(t))
  noise = jax.random.normal(jax.random.key(seed + 5), (SAMPLES, 2))
  held = float(m.alpha) * goal.sample(jax.random.key(seed + 4), SAMPLES) + float(m.sigma) * noise
  learned = -np.asarray(jax.jit(lowest)(params, held), np.float64) - float(found.value)
  true = np.asarray(goal.log_prob(held, jnp.full(SAMPLES, t, jnp.float32)), np.float64)
  if config.get("picture") and seed == 0:
    exact = np.asarray(goal.log_prob(grid, jnp.full(grid.shape[0], t, jnp.float32)), np.float64).reshape(
      POINTS, POINTS
    )
    draw(config.picture, np.exp(exact), np.exp(values - float(found.value)), x, line)
  return {
    "log_z_gap": abs(float(found.value) - summed),
    "log_z_error": float(found.standard_error),
    "kl_nats": float(np.mean(true - learned)),
  }


def draw(path: str, exact: np.ndarray, learned: np.ndarray, x: jax.Array, line: np.ndarray) -> None:
  """The true density, the learned one on the same scale of colours, and samples."""
  from matplotlib.figure import Figure

  from diffusion.pictures.sheets import write_figure

  figure = Figure(figsize=(12.0, 4.2), layout="constrained")
  first, second, third = figure.subplots(1, 3)
  extent, top = (line[0], line[-1], line[0], line[-1]), 1.5 * exact.max()
  for axes, values, title in (
    (first, exact, "true density"),
    (second, learned, "learned, normalised by annealing"),
  ):
    image = axes.imshow(
      values.T, origin="lower", extent=extent, cmap="magma", vmin=0.0, vmax=top, aspect="equal"
    )
    axes.set_title(title)
  figure.colorbar(image, ax=[first, second], shrink=0.85)
  third.scatter(*x.T, s=1.5, color="black", linewidths=0)
  third.set(title=f"{len(x):,} samples, level by level", xlim=extent[:2], ylim=extent[2:], aspect="equal")
  write_figure(path, figure)
