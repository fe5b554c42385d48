"""Every process with data whose law is known, for the tests that hold for all of them."""

import dataclasses
import functools
import itertools
from typing import Any

import closed_chains
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion import oracles, processes

FIRST = (np.array([0.4, -0.7]), np.array([[0.6, 0.2], [0.2, 0.3]]))
SECOND = (np.array([-1.0, 1.5]), np.array([[0.3, -0.1], [-0.1, 0.8]]))
SIZES = (3, 2)
JOINT = np.random.default_rng(1).dirichlet(np.full(6, 2.0)).reshape(SIZES)
SQUARE = np.random.default_rng(2).dirichlet(np.full(9, 2.0)).reshape(3, 3)


@dataclasses.dataclass(frozen=True)
class Case:
  """A process, the shape of a sample, and its data.

  Attributes:
    table: of discrete data, their joint probabilities; None for Gaussian ones, N(FIRST) at t_min and
      N(SECOND) at t_max.
    chain: t -> q(x_t | x_0) of a coordinate for every state [S, S] in float64, None where it is made of the
      process's own ratios.
  """

  process: Any
  shape: tuple
  table: Any = None
  chain: Any = None

  @property
  def discrete(self):
    return self.table is not None


@functools.cache
def cases() -> dict[str, Case]:
  """Every listed process by its name."""
  found = {name: Case(build(), (2,)) for name, build in processes.PROCESSES.items()}
  found |= {name: Case(build(), (2,)) for name, build in processes.TWO_ENDED.items()}
  sizes = np.array(SIZES)
  found |= {name: Case(build(sizes), (2,), JOINT) for name, build in processes.DISCRETE.items()}
  found["gaussian_line"] = Case(processes.discretised_gaussian(sizes, wrap=False, sigma_min=0.6), (2,), JOINT)
  found |= {name: Case(build(3, (2,)), (2,), SQUARE) for name, build in processes.MASKED.items()}
  found |= {
    name: Case(build(3, (2,)), (2,), SQUARE, getattr(closed_chains, name))
    for name, build in processes.CHAINS.items()
  }
  return found


CONTINUOUS = [*processes.PROCESSES, *processes.TWO_ENDED]
NAMES = [*CONTINUOUS, *processes.DISCRETE, "gaussian_line", *processes.MASKED, *processes.CHAINS]
# What others of the same code show too.
SLOW = ("mixture_path", "walk_on_a_line", "uniform_and_walk", "d3pm_absorbing", "d3pm_uniform")


def params(names: Any) -> list:
  """Names for `pytest.mark.parametrize`, those of SLOW in the slow tier."""
  return [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in names]


def times(case: Case) -> np.ndarray:
  """Three times: of continuous processes those at levels 0.3, 1 and 4, where x_t tells of both ends; of
  discrete ones shares of the interval."""
  process = case.process
  if not case.discrete:
    return process.t_of_level(np.array([0.3, 1.0, 4.0]))
  t = float(process.t_min) + np.array([0.15, 0.5, 0.9]) * (float(process.t_max) - float(process.t_min))
  # A ladder of steps has no time between them.
  return t if process.jumps or not process.markov else np.round(20 * t) / 20


def data(case: Case, n: int, seed: int = 0) -> tuple[Any, Any]:
  """n draws of each end that is data, None for the other: (x0, x1)."""
  generator = np.random.default_rng(seed)
  if case.discrete:
    flat = generator.choice(case.table.size, n, p=case.table.reshape(-1))
    return jnp.asarray(np.stack(np.unravel_index(flat, case.table.shape), 1), jnp.int32), None
  drawn = [jnp.asarray(generator.multivariate_normal(*end, n), jnp.float32) for end in (FIRST, SECOND)]
  return tuple(x if end == "data" else None for x, end in zip(drawn, case.process.ends))


def placed(case: Case, n: int, t: float, seed: int = 0) -> tuple[Any, dict]:
  """n draws of x_t, and their targets: one program a process, whatever the time and the seed."""
  x0, x1 = data(case, n, seed)
  return _placed(case.process, x0, x1, jax.random.key(seed), np.full(n, t, np.float32))


@jax.jit
def _placed(process, x0, x1, key, t):
  noise = process.noise(jax.random.split(key, t.shape[0]), x1 if x0 is None else x0)
  return process.corrupt(x0, noise, t, x1), process.targets(x0, noise, t, x1)


def moments(case: Case, t: float) -> tuple[np.ndarray, np.ndarray]:
  """Mean and covariance of x_t in closed form, in float64."""
  process, none = case.process, (np.zeros(2), np.zeros((2, 2)))
  if process.kind == "gaussian":
    m = process.marginal(t)
    return m.alpha * FIRST[0], m.alpha**2 * FIRST[1] + m.sigma**2 * np.eye(2)
  blend = process.blend(t)
  first, second = (end if what == "data" else none for end, what in zip((FIRST, SECOND), process.ends))
  mean = blend.first * first[0] + blend.second * second[0]
  return mean, blend.first**2 * first[1] + blend.second**2 * second[1] + blend.variance * np.eye(2)


def oracle(case: Case):
  """The oracle of Gaussian data on a process or a path."""
  process = case.process
  if process.kind == "gaussian":
    return oracles.gaussian(process, *FIRST)
  ends = [
    ([1.0], [end[0]], [end[1]]) if what == "data" else None
    for end, what in zip((FIRST, SECOND), process.ends)
  ]
  return oracles.path_mixture(process, *ends)


def states(case: Case) -> np.ndarray:
  """Every state that x_t may take, masks included: [S, D]."""
  more = int(case.process.mask is not None)
  return np.array(list(itertools.product(*(range(size + more) for size in case.table.shape))), np.int32)


def kernels(case: Case, t: float) -> list[np.ndarray]:
  """q(x_t | x_0) of each coordinate, [K_0, values of x_t] in float64."""
  if case.chain is not None:
    return [case.chain(t)[:size] for size in case.table.shape]
  found = []
  for size in case.table.shape:
    if "mask" in case.process.ends:
      alpha = float(case.process.clock(t).alpha)
      found.append(np.concatenate([alpha * np.eye(size), np.full((size, 1), 1 - alpha)], 1))
      continue
    clean, value = np.meshgrid(np.arange(size), np.arange(size), indexing="ij")
    rows = [jnp.asarray(a.reshape(1, -1), jnp.int32) for a in (clean, np.zeros_like(clean), value)]
    weight = _ratio(case.process, *rows, np.full(size * size, size), jnp.full(1, t, jnp.result_type(float)))
    weight = np.asarray(weight, np.float64).reshape(size, size)
    found.append(weight / weight.sum(1, keepdims=True))
  return found


@jax.jit
def _ratio(process, *arguments):
  return process.ratio(*arguments)


def table_at(case: Case, t: float) -> np.ndarray:
  """p_t of every state of `states`: [S]."""
  first, second = kernels(case, t)
  return np.einsum("ij,ik,jl->kl", case.table, first, second).reshape(-1)


def chains(case: Case, t: float) -> list[np.ndarray]:
  """q(x_t | x_0) of each coordinate for every state, [S, S] in float64: a mask stays."""
  if case.chain is not None:
    return [case.chain(t) for _ in case.table.shape]
  more = int("mask" in case.process.ends)
  return [np.vstack([q, np.eye(q.shape[1])[q.shape[1] - more :]]) for q in kernels(case, t)]


def jump_rates(case: Case, t: float, h: float = 1e-4) -> list[np.ndarray]:
  """Q_t of each coordinate, T^-1 dT/dt by central differences of order four: [S, S] in float64."""
  nodes = [chains(case, t + step * h) for step in (0, -2, -1, 1, 2)]
  return [np.linalg.solve(m, (a - 8 * b + 8 * c - d) / (12 * h)) for m, a, b, c, d in zip(*nodes)]


def exact_views(case: Case, t: float) -> dict[str, np.ndarray]:
  """Views of every state by enumeration: {view: [S, D, K or S]} in float64.

  Ratios to states that noise never turns into the coordinate's own are 0; rates are of chains that jump.
  """
  x, qs, more = states(case), kernels(case, t), int(case.process.mask is not None)
  size = max(case.table.shape)
  p = dict(zip(map(tuple, x), table_at(case, t)))
  full, probabilities = chains(case, t), np.zeros((len(x), 2, size))
  jumps = case.process.jumps
  flow = jump_rates(case, t) if jumps else full
  ratios, rates = np.zeros((2, len(x), 2, size + more))
  for row, (a, b) in enumerate(x):
    joint = case.table * qs[0][:, a][:, None] * qs[1][:, b][None, :]
    for d, own in enumerate((joint.sum(1), joint.sum(0))):
      probabilities[row, d, : len(own)] = own / own.sum()
      for k in range(len(full[d])):
        here = x[row, d]
        if full[d][k, here] > 0:
          ratios[row, d, k] = p[(k, b) if d == 0 else (a, k)] / p[(a, b)]
          rates[row, d, k] = (k != here) * flow[d][k, here] * ratios[row, d, k]
  with np.errstate(divide="ignore"):
    found = {"probabilities": probabilities, "logits": np.log(probabilities), "ratios": ratios}
  return found | ({"rates": rates} if jumps else {})
