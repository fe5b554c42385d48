"""How near samples that are drawn towards a reward come to the tilted law."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffusion import oracles, processes, solvers


def near(x: jax.Array) -> jax.Array:
  """r = -|x - 2.5| of x: [B, 1]."""
  return -jnp.abs(x[:, 0] - 2.5)


def tilted(config: Any, seed: int) -> dict[str, float]:
  """{metric: value} of `tilted.py`, with counts of network evaluations a sample."""
  return _line(config, seed) | _tokens(config, seed)


def _line(config, seed):
  process = processes.edm(sigma_min=0.02, sigma_max=20.0)
  oracle = oracles.gaussian_mixture(process, [0.5, 0.5], [[-2.0], [2.0]], [0.25, 0.25])
  inner = solvers.ancestral(process, np.append(np.geomspace(20.0, 0.02, config.steps), 0.0))
  keys = jax.random.split(jax.random.key(seed), config.count)
  start = process.prior(keys, (1,))
  reward = lambda solver: float(near(solvers.sample(oracle, solver, start, keys=keys)).mean())
  found = {"line_untilted": reward(inner)}
  for alpha, m in ((1.0, 2), (1.0, 5), (1.0, 20), (1.0, 50), (0.3, 5), (0.3, 50)):
    solver = solvers.svdd(process, inner, near, candidates=m, alpha=alpha)
    found[f"line_alpha_{alpha:g}_of_{m}"] = reward(solver)
  found["line_best_of_5"] = reward(solvers.svdd(process, inner, near, candidates=5))
  nodes, weights = _nodes()

  def value(x, t, prediction):
    """log of the mean of exp(r) over p(x_0 | x_t), by quadrature over x_0 (alpha = 1)."""
    del prediction
    sigma = process.marginal(t).sigma[:, None]
    log_p = jnp.log(weights)[None] - 0.5 * jnp.square((x - nodes[None]) / sigma)
    return jax.nn.logsumexp(log_p + near(nodes[:, None])[None], axis=1) - jax.nn.logsumexp(log_p, axis=1)

  found["line_exact_value"] = reward(
    solvers.svdd(process, inner, near, candidates=50, alpha=1.0, value=value)
  )
  return found


def _nodes():
  """Nodes over the line and the mixture's mass at each: [n] float32."""
  x = np.linspace(-5.0, 5.0, 2001)
  mass = np.exp(-0.5 * ((x - 2) / 0.5) ** 2) + np.exp(-0.5 * ((x + 2) / 0.5) ** 2)
  return jnp.asarray(x, jnp.float32), jnp.asarray(np.maximum(mass / mass.sum(), 1e-30), jnp.float32)


def _tokens(config, seed):
  """Distances of five tokens of three letters to their tilted law, less those of exact draws."""
  rng, alpha = np.random.default_rng(0), 0.5
  law = rng.dirichlet(np.full(3**5, 0.5)).reshape((3,) * 5)
  rewards = rng.normal(size=law.shape)
  process = processes.masked(3, (5,))
  base, other = (oracles.masked_categorical(process, table) for table in (law, law * np.exp(rewards / alpha)))
  target, table = np.asarray(other.tables[0]), jnp.asarray(rewards, jnp.float32)
  reward = lambda x: table[tuple(x[:, place] for place in range(5))]
  value = lambda x, t, prediction: alpha * (other.log_prob(x, t) - base.log_prob(x, t))
  inner = solvers.masked_ancestral(process, process.default_grid(config.steps))
  keys = jax.random.split(jax.random.key(seed), config.count)
  x = process.prior(keys, (5,))
  draws = np.random.default_rng(seed).choice(target.size, (20, config.count), p=target.ravel())
  floor = float(np.mean([_distance(one, target) for one in draws]))
  found = {"tokens_floor": floor, "tokens_untilted": 0.5 * float(np.abs(law - target).sum())}
  for m in (4, 16):
    solver = solvers.svdd(process, inner, reward, candidates=m, alpha=alpha, value=value)
    out = np.asarray(solvers.sample(base, solver, x, keys=keys))
    found[f"tokens_excess_of_{m}"] = _distance(np.ravel_multi_index(tuple(out.T), law.shape), target) - floor
  return found


def _distance(states, target):
  """Total variation between the frequencies of numbered states and a law."""
  count = np.bincount(states, minlength=target.size) / len(states)
  return 0.5 * float(np.abs(count - target.ravel()).sum())
