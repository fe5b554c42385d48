"""Evolutionary search over samplers, with one compiled program for every candidate."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffusion.solvers.executor import sample


class SearchResult(NamedTuple):
  """The outcome of a search.

  Attributes:
    solver: the best solver, ready for `sample`.
    genome: what it was built from.
    fitness: its fitness, smaller is better.
    history: [generations] best fitness so far.
    evaluated: how many different candidates were run.
  """

  solver: Any
  genome: Any
  fitness: float
  history: tuple
  evaluated: int


def evolve(
  rng: np.random.Generator,
  evaluate: Callable[..., Any],
  initial: Any,
  mutate: Callable[..., Any],
  cross: Callable[..., Any],
  fresh: Callable[..., Any],
  *,
  generations: int,
  population: int,
  parents: int,
  mutations: int,
  crossovers: int,
) -> tuple[Any, float, tuple, int]:
  """Evolutionary search over genomes (arXiv:2309.10438, algorithm 1).

  It keeps the best candidates, changes and crosses them, and fills up with new ones.

  Args:
    rng: a NumPy generator, the only randomness.
    evaluate: list of genomes -> list of numbers, smaller is better; never called twice with one genome.
    initial: genomes to begin with, filled up by `fresh`.
    mutate: (rng, genome) -> genome.
    cross: (rng, genome, genome) -> genome.
    fresh: rng -> genome. Genomes are hashable.
    generations, population, parents, mutations, crossovers: counts; what mutations and crossovers leave of
      the population is new.

  Returns:
    (best genome, its fitness, history [generations], number evaluated).

  Raises:
    ValueError: counts that do not fit each other.

  >>> find = lambda rng: int(rng.integers(1000))
  >>> near = lambda rng, g: int(np.clip(g + rng.integers(-5, 6), 0, 999))
  >>> far, mean = lambda genomes: [abs(g - 271) for g in genomes], lambda rng, a, b: (a + b) // 2
  >>> counts = dict(generations=20, population=20, parents=5, mutations=10, crossovers=5)
  >>> best, *_ = evolve(np.random.default_rng(0), far, [], near, mean, find, **counts)
  >>> best
  271
  """
  counts = dict(generations=generations, population=population, parents=parents)
  if (
    min(counts.values()) < 1
    or min(mutations, crossovers) < 0
    or mutations + crossovers > population
    or parents > population
  ):
    raise ValueError(
      "a search needs generations, population and parents of at least 1, no more parents than candidates, "
      "and mutations +"
      f" crossovers within the population, got {counts} with mutations={mutations} and "
      f"crossovers={crossovers}"
    )
  scores, history, ranked = {}, [], []
  candidates = list(initial)
  for _ in range(generations):
    wanted = dict.fromkeys(candidates)
    for _ in range(20 * population):  # where few genomes exist, a generation may be smaller
      if len(wanted) >= population:
        break
      wanted[fresh(rng)] = None
    new = [genome for genome in wanted if genome not in scores]
    if new:
      # What is not finite (a sampler that blew up) is worse than anything.
      scores.update(zip(new, (float(v) if np.isfinite(v) else np.inf for v in evaluate(new))))
    ranked = sorted(scores, key=lambda genome: scores[genome])
    history.append(scores[ranked[0]])
    best = ranked[:parents]
    pick = lambda: best[rng.integers(len(best))]
    candidates = [mutate(rng, pick()) for _ in range(mutations)] + [
      cross(rng, pick(), pick()) for _ in range(crossovers)
    ]
  return ranked[0], scores[ranked[0]], tuple(history), len(scores)


def evaluator(
  denoiser: Any,
  x: Any,
  fitness: Callable[..., Any],
  *,
  keys: jax.Array | None = None,
  cond: Any = None,
  chunk: int = 8,
) -> Callable[[list], np.ndarray]:
  """Runs lists of solvers of one shape through one compiled program, `chunk` of them side by side.

  Args:
    denoiser, x, keys, cond: as for `sample`; every candidate starts from the same x.
    fitness: samples [B, ...] -> [], in JAX. A `jax.tree_util.Partial` has its arrays as data.
    chunk: solvers a call; the memory is that of chunk * B samples.

  Returns:
    list of solvers -> their fitness.

  Raises:
    ValueError: x that is not finite, a chunk below 1, a fitness that is not one number.
  """
  if chunk < 1:
    raise ValueError(f"chunk counts solvers and is at least 1, got {chunk}")
  x = jnp.asarray(x)
  if not bool(jnp.isfinite(x).all()):
    raise ValueError("the noise x that candidates start from is not finite")
  if jax.tree_util.all_leaves([fitness]):
    fitness = jax.tree_util.Partial(fitness)

  def run(solvers):
    values = []
    for first in range(0, len(solvers), chunk):
      some = solvers[first : first + chunk]
      filled = some + [some[-1]] * (chunk - len(some))  # one shape, one program
      stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *filled)
      values.append(np.asarray(_fitness(denoiser, stacked, x, keys, cond, fitness))[: len(some)])
    return np.concatenate(values)

  return run


@jax.jit
def _fitness(denoiser, solvers, x, keys, cond, fitness):
  values = jax.vmap(lambda solver: fitness(sample(denoiser, solver, x, keys=keys, cond=cond)))(solvers)
  if values.ndim != 1:
    raise ValueError(f"a fitness is one number for all samples, got shape {values.shape[1:]}: take a mean")
  return values


def error_to(target: Any) -> Callable[..., Any]:
  """The fitness root mean square error to a fine solution of the same noises: target [B, ...].

  >>> float(error_to(jnp.zeros((2, 1)))(jnp.full((2, 1), 3.0)))
  3.0
  """
  return jax.tree_util.Partial(_root_mean_square, jnp.asarray(target))


def _root_mean_square(target, x):
  return jnp.sqrt(jnp.mean((x - target) ** 2))
