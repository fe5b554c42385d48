"""What each objective of whole numbers learns of a law that can be listed.

A measurement is a function (config, seed) -> {metric: value}.

Nothing is sampled to evaluate: the network is tabulated over all states, and its bound summed over all clean
and noised states, and over time by quadrature or over all steps.
"""

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from diffusion import denoisers, losses, networks, processes
from diffusion.run.fit import fit


class Model(NamedTuple):
  """What is trained: a process, its objective, and what the network's output means.

  Attributes:
    process: a discrete process.
    objective: the loss.
    kind: 'logits', or 'ratios', of which the network answers the logarithm.
    timeless: whether the network is told no time.
  """

  process: Any
  objective: losses.Objective
  kind: str
  timeless: bool


def joint(size: int, values: int) -> np.ndarray:
  """A fixed random law of D tokens of K letters, [K, ..., K], far from independent."""
  return np.random.default_rng(0).dirichlet(np.full(values**size, 0.7)).reshape((values,) * size)


def model(name: str, values: int, size: int, steps: int) -> Model:
  """The model of a variant. Raises ValueError for another."""
  masked, uniform = processes.masked(values, (size,)), processes.uniform_resample(values, (size,))
  known = {
    "masked": lambda: Model(masked, losses.masked_cross_entropy(masked), "logits", True),
    "any_order": lambda: Model(masked, losses.any_order_autoregression(masked), "logits", True),
    "score_entropy_masked": lambda: Model(masked, losses.score_entropy(masked), "ratios", False),
    "score_entropy_uniform": lambda: Model(uniform, losses.score_entropy(uniform), "ratios", False),
    "uniform": lambda: Model(uniform, losses.continuous_time_bound(uniform), "logits", False),
    "d3pm_uniform": lambda: Model(
      uniform, losses.d3pm_bound(uniform, steps, auxiliary=0.01), "logits", False
    ),
    "flow_matching_masked": lambda: Model(masked, losses.discrete_flow_matching(masked), "logits", True),
    "flow_matching_uniform": lambda: Model(uniform, losses.discrete_flow_matching(uniform), "logits", False),
  }
  if name not in known:
    raise ValueError(f"there is no model '{name}': there are {', '.join(known)}")
  return known[name]()


def measure(config: Any, seed: int) -> dict[str, float]:
  """How far above the entropy of the law the bound of a trained network is, in nats."""
  p = joint(config.tokens, config.letters)
  of = model(config.model, config.letters, config.tokens, config.ladder)
  states = of.process.num_states
  network = networks.TokenMLP(
    num_values=config.letters if of.kind == "logits" else states,
    num_inputs=states,
    embedding_size=8,
    width=config.width,
    depth=config.depth,
  )
  parameterization = denoisers.logits() if of.kind == "logits" else denoisers.ratios()

  def answer(params, x, t, cond):
    del cond
    out: Any = network.apply({"params": params}, x, 0.0 * t if of.timeless else t)
    if of.kind == "ratios":
      return jnp.exp(out) * scale(of.process, x, t, states)
    if of.process.mask is not None:
      return out
    # The network tells x_0 from the other tokens, and what a token tells of itself is known
    # (arXiv:2412.10193, whose x_theta is that law).
    return out + jnp.log(of.process.likelihood(x, None, t)[..., : config.letters])

  denoiser: Any = denoisers.from_function(answer, of.process, parameterization)
  roles = losses.roles(model=denoiser)
  loss = losses.chain(of.objective, losses.at_times(losses.low_discrepancy(), roles=roles))
  start = network.init(jax.random.key(seed), jnp.zeros((1, config.tokens), jnp.int32), jnp.zeros(1))
  rate = optax.cosine_decay_schedule(config.learning_rate, config.steps)
  params, _, _ = fit(
    loss,
    start["params"],
    optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate, b2=0.99)),
    draws_of(p, config.batch),
    steps=config.steps,
    seed=seed,
  )
  tabulate = jax.jit(
    lambda t: answer(params["model"], every(states, p.ndim), jnp.full(states**p.ndim, t), None)
  )
  entropy = -float(np.sum(p * np.log(p)))
  found = {"excess_nats": continuous(of, p, tabulate, config.nodes) - entropy}
  if config.model.startswith("d3pm"):
    found["excess_nats_of_steps"] = stepwise(of, p, tabulate, config.ladder) - entropy
  return found


def scale(process: Any, x: jax.Array, t: jax.Array, states: int) -> jax.Array:
  """What multiplies the network's ratios: under masks alpha / (1 - alpha) (arXiv:2310.16834, app. C)."""
  if process.mask is None:
    return jnp.ones((1, 1, states))
  keep = process.clock(t)
  return jnp.broadcast_to((keep.alpha / keep.noised)[:, None, None], (*x.shape, states))


def every(values: int, size: int) -> jax.Array:
  """Every state, in the order of a table flattened row by row: [values^D, D]."""
  return jnp.asarray(list(itertools.product(range(values), repeat=size)), jnp.int32)


def draws_of(p: np.ndarray, batch: int) -> Callable[[jax.Array], dict[str, jax.Array]]:
  """key -> a batch of exact draws of a law [K, ..., K]."""
  log_p, clean = jnp.asarray(np.log(p.reshape(-1)), jnp.float32), every(p.shape[0], p.ndim)

  def draw(key):
    return {"x": clean[jax.random.categorical(key, log_p, shape=(batch,), mode="high")]}

  return draw


def continuous(of: Model, p: np.ndarray, tabulate: Callable[..., jax.Array], nodes: int) -> float:
  """The bound in continuous time, by the double exponential rule over t in (0, 1), in nats."""
  bound = (losses.score_entropy if of.kind == "ratios" else losses.continuous_time_bound)(of.process)
  value, s = expected(of, bound), np.linspace(-2.2, 2.2, nodes)  # to 1e-6 of both ends, as float32 can tell
  times = 0.5 * (1.0 + np.tanh(0.5 * np.pi * np.sinh(s)))
  weights = (s[1] - s[0]) * 0.25 * np.pi * np.cosh(s) / np.cosh(0.5 * np.pi * np.sinh(s)) ** 2
  return sum(float(w) * value(tabulate(t), *pairs(of.process, p, t), t, 0.0) for t, w in zip(times, weights))


def stepwise(of: Model, p: np.ndarray, tabulate: Callable[..., jax.Array], steps: int) -> float:
  """The bound of so many steps, all of them, in nats."""
  value, grid = expected(of, losses.d3pm_bound(of.process, steps)), np.linspace(0.0, 1.0, steps + 1)
  return sum(value(tabulate(t), *pairs(of.process, p, t), t, s) / steps for s, t in itertools.pairwise(grid))


def expected(of: Model, objective: losses.Objective) -> Callable[..., float]:
  """(table [S^D, D, ...], x_0, x_t, probabilities, t, s) -> the mean of the objective at one time."""
  size = of.process.shape[0]
  powers = of.process.num_states ** np.arange(size - 1, -1, -1)
  look_up = lambda table, x, t, cond: table[jnp.sum(x * jnp.asarray(powers, x.dtype)[None], axis=1)]
  kind = denoisers.logits() if of.kind == "logits" else denoisers.ratios()

  @jax.jit
  def values(table, x0, x_t, t, s):
    draw = losses.Draw(t=jnp.full(x0.shape[0], t), x0=x0, targets={"s": jnp.full(x0.shape[0], s)})
    denoiser = denoisers.from_function(look_up, of.process, kind, table)
    roles, placed = {"model": denoiser}, losses.placed_at(draw, x_t)
    return objective.evaluate(roles, placed, {}, {}, losses.START).interior

  def mean(table, x0, x_t, q, t, s):
    return float(np.sum(q * np.asarray(values(table, x0, x_t, jnp.float32(t), jnp.float32(s)), np.float64)))

  return mean


def pairs(process: Any, p: np.ndarray, t: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Every (x_0, x_t) that may be, [N, D] each, and its probability, [N]."""
  clean, noised = (np.asarray(every(n, p.ndim)) for n in (process.num_values, process.num_states))
  kernel = np.asarray(process.transition(None, np.float64(t)))[: process.num_values]
  q = np.prod(kernel[clean[:, None], noised[None]], axis=-1) * p.reshape(-1)[:, None]
  some = np.prod(kernel[clean[:, None], noised[None]] > 0, axis=-1).astype(bool)
  i, j = np.nonzero(some)
  return clean[i], noised[j], q[i, j]
