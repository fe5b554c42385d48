"""What concrete score matching claims (arXiv:2211.00802), measured on grids: each function is (config, seed)
-> {metric: value}."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from diffusion import denoisers, likelihood, losses, mcmc, networks, processes
from diffusion.run.fit import fit


def histogram(size: int) -> np.ndarray:
  """A fixed law of `size` categories with two modes, the rarest a twentieth as likely as the commonest."""
  place = np.arange(size) / size
  p = 0.06 + np.exp(-0.5 * ((place - 0.25) / 0.09) ** 2) + 0.6 * np.exp(-0.5 * ((place - 0.7) / 0.05) ** 2)
  return p / p.sum()


def ring(size: int, reach: float = 3.2, radius: float = 2.0, deviation: float = 0.25) -> np.ndarray:
  """Eight Gaussians on a circle, seen at the centres of size x size cells of [-reach, reach]^2: [size, size],
  summing to one."""
  line = (np.arange(size) + 0.5) / size * 2.0 * reach - reach
  grid = np.stack(np.meshgrid(line, line, indexing="ij"), axis=-1)
  angle = np.arange(8) * np.pi / 4.0
  centres = radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)
  p = np.exp(-0.5 * np.sum((grid[:, :, None] - centres) ** 2, axis=-1) / deviation**2).sum(-1)
  return p / p.sum()


def sampler(p: np.ndarray, batch: int) -> Callable[[jax.Array], dict[str, jax.Array]]:
  """key -> a batch of exact draws of a table [K_1, ..., K_D]."""
  cumulative = jnp.asarray(np.cumsum(p.reshape(-1)), jnp.float32)

  def draw(key):
    flat = jnp.searchsorted(cumulative, jax.random.uniform(key, (batch,)) * cumulative[-1], side="right")
    flat = jnp.minimum(flat, p.size - 1).astype(jnp.int32)
    return {"x": jnp.stack(jnp.unravel_index(flat, p.shape), axis=1).astype(jnp.int32)}

  return draw


def blocks(p: np.ndarray, count: int) -> np.ndarray:
  """A table [K, K] summed over count x count blocks, which differ by one state where count does not divide
  K."""
  group = np.arange(p.shape[0]) * count // p.shape[0]
  sums = np.zeros((count, count))
  np.add.at(sums, (group[:, None], group[None, :]), p)
  return sums


def total_variation(p: np.ndarray, q: np.ndarray) -> float:
  """Half the sum of |p - q|."""
  return float(0.5 * np.abs(p - q).sum())


def floor(p: np.ndarray, count: int) -> float:
  """The expected total variation of `count` independent draws of p: half the sum of the mean deviations of
  the cells."""
  return float(0.5 * np.sum(np.sqrt(2.0 * p * (1.0 - p) / (np.pi * count))))


def counted(x: jax.Array, shape: tuple[int, ...]) -> np.ndarray:
  """Shares [K_1, ..., K_D] of samples [n, D]."""
  flat = np.ravel_multi_index(np.asarray(x).T, shape)
  return np.bincount(flat, minlength=int(np.prod(shape))).reshape(shape) / len(flat)


def adam(rate: float, steps: int) -> optax.GradientTransformation:
  """Adam with clipped gradients, whose rate rises over 100 steps and falls to zero along a cosine."""
  return optax.chain(
    optax.clip_by_global_norm(10.0),
    optax.adam(optax.warmup_cosine_decay_schedule(0.0, rate, min(100, steps // 4), steps), b2=0.99),
  )


def trained(
  config: Any,
  objective: losses.Objective,
  times: Any,
  network: Any,
  data: Callable[[jax.Array], Any],
  seed: int,
  shape: tuple[int, ...],
  label: Any = None,
) -> Callable[..., jax.Array]:
  """concrete(x, t, cond=None) of the network after config.steps, as data of later programs."""
  closing = losses.at_times(
    times,
    roles=losses.roles(model=denoisers.from_flax(network, None, None, None, methods=("concrete_score",))),
  )
  cond = None if label is None else {"label": jnp.zeros(1, jnp.int32)}
  start = network.init(jax.random.key(seed + 1), jnp.zeros((1, *shape), jnp.int32), jnp.zeros(1), cond)[
    "params"
  ]
  params, _, _ = fit(
    losses.chain(objective, closing),
    start,
    adam(config.learning_rate, config.steps),
    data,
    steps=config.steps,
    seed=seed,
  )
  return jax.tree_util.Partial(functools.partial(apply, network), params["model"])


def apply(network: Any, params: Any, x: jax.Array, t: jax.Array, cond: Any = None) -> jax.Array:
  """The concrete score of a network."""
  return network.apply({"params": params}, x, t, cond)


def tabulated(
  concrete: Callable[..., jax.Array], sizes: Sequence[int], times: Sequence[float] | np.ndarray
) -> jax.Array:
  """The concrete score of every state at each of the times, [L, S, N]: a small set of states needs no network
  while sampling."""
  states = np.stack(np.unravel_index(np.arange(np.prod(sizes)), sizes), axis=1).astype(np.int32)

  @jax.jit
  def table(concrete, times):
    return jax.lax.map(lambda t: concrete(jnp.asarray(states), jnp.full(len(states), t)), times)

  return table(concrete, jnp.asarray(times, jnp.float32))


def look_up(tables: jax.Array, x: jax.Array, t: jax.Array, cond: Any = None) -> jax.Array:
  """The tables [L, K_1, ..., K_D, N] read at level number t."""
  del cond
  return tables[(t.astype(jnp.int32), *(x[:, place] for place in range(x.shape[1])))]


def cycle(config: Any, seed: int) -> dict[str, float]:
  """K categories around a circle: total variation of the law that the ratios imply, and of
  Metropolis-Hastings samples, from the truth.

  The exact objective on clean data, with the reverse neighbour of each state.
  """
  p, of = histogram(config.size), processes.neighbourhoods.cycle(config.size)
  network = networks.ConcreteMLP(
    num_values=config.size, num_neighbours=1, width=config.width, depth=1, frequencies=config.frequencies
  )
  concrete = trained(
    config,
    losses.concrete_score_matching(None, of),
    losses.uniform_times(0.0, 1e-6),
    network,
    sampler(p, config.batch),
    seed,
    (1,),
  )
  tables = tabulated(concrete, (config.size,), [0.0])
  start = jax.random.randint(jax.random.key(seed), (config.chains, 1), 0, config.size)
  kernel = mcmc.metropolis(jax.tree_util.Partial(look_up, tables), of)
  x = mcmc.run(kernel, start, jax.random.key(seed + 100), config.sweeps).x
  implied = np.exp(likelihood.log_prob_of_states(tables[0], of))
  return {
    "tv": total_variation(counted(x, p.shape), p),
    "tv_of_the_ratios": total_variation(implied, p),
    "tv_floor": floor(p, config.chains),
  }


def grid(config: Any, seed: int) -> dict[str, float]:
  """A K x K torus: block total variation of samples along falling noise, and what the ratios of the lowest
  noise imply exactly.

  All levels of the discretised Gaussian are learned at once. Sampling takes Gibbs sweeps while the noise is
  broad (config.sweeps at each of the first config.broad levels) and Metropolis-Hastings steps below
  (config.moves at each): between modes with hardly a state in the middle a full conditional trusts ratios
  that no data have taught, and local moves keep the shares that broad noise gave. The floor is what as many
  independent draws of the truth give.
  """
  p = ring(config.size)
  process = processes.discretised_gaussian(p.shape, sigma_min=config.sigma_min, sigma_max=config.sigma_max)
  of = processes.neighbourhoods.grid(p.shape)
  network = networks.ConcreteMLP(
    num_values=config.size,
    num_neighbours=2,
    width=config.width,
    depth=config.depth,
    frequencies=config.frequencies,
    embedding_size=config.embedding_size,
  )
  kind = {"exact": losses.concrete_score_matching, "denoising": losses.denoising_concrete_score_matching}[
    config.objective
  ]
  objective = losses.chain(kind(process, of), losses.weight_by(losses.balanced()))
  concrete = trained(
    config, objective, losses.low_discrepancy(), network, sampler(p, config.batch), seed, (2,)
  )
  tables = tabulated(concrete, p.shape, np.linspace(1.0, 0.0, config.levels))
  levels = tables.reshape(config.levels, *p.shape, 2)
  start = process.prior(jax.random.split(jax.random.key(seed), config.chains), process.shape)
  model, number = jax.tree_util.Partial(look_up, levels), np.arange(config.levels, dtype=np.float32)
  x = mcmc.anneal(
    mcmc.gibbs(model, of), start, jax.random.key(seed + 100), number[: config.broad], config.sweeps
  ).x
  x = mcmc.anneal(
    mcmc.metropolis(model, of), x, jax.random.key(seed + 200), number[config.broad :], config.moves
  ).x
  log_implied = likelihood.log_prob_of_states(tables[-1], of)
  ratios = np.stack([np.roll(p, -1, axis=d) / p - 1.0 for d in (0, 1)], axis=-1)
  error = np.asarray(levels[-1]) - ratios
  coarse = blocks(p, 8)
  return {
    "block_tv": total_variation(blocks(counted(x, p.shape), 8), coarse),
    "block_tv_floor": floor(coarse, config.chains),
    "block_tv_of_the_ratios": total_variation(blocks(np.exp(log_implied).reshape(p.shape), 8), coarse),
    "excess_nats": float(np.sum(p * (np.log(p) - log_implied.reshape(p.shape)))),
    "relative_error": float(np.sqrt(np.sum(p[..., None] * error**2) / np.sum(p[..., None] * ratios**2))),
  }
