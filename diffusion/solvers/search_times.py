"""Search of the times of any sampler."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from diffusion.solvers import evolution
from diffusion.solvers.catalogue import default_grid


def search_times(
  denoiser: Any,
  build: Callable[..., Any],
  x: Any,
  steps: int,
  fitness: Callable[..., Any],
  *,
  pool: int = 100,
  ends: Any = None,
  initial: Any = (),
  keys: jax.Array | None = None,
  cond: Any = None,
  seed: int = 0,
  generations: int = 10,
  population: int = 50,
  parents: int = 10,
  mutations: int = 25,
  crossovers: int = 15,
  rate: float = 0.25,
  chunk: int = 8,
) -> evolution.SearchResult:
  """Search for the best grid of a solver (AutoDiffusion, arXiv:2309.10438, section 3.4).

  The grids are those that can be chosen from a pool of times. A candidate is a set of steps - 1 times of the
  pool between two fixed ends. Each generation keeps the `parents` best, replaces each time of some with
  probability `rate`, mixes pairs of others time by time and fills up with random sets. Candidates are data:
  all of a search, and of later ones of the same shapes, run in one compiled program.

  Args:
    denoiser: a denoiser with a process.
    build: (process, grid) -> solver, for example `solvers.dpmpp_2m`; every grid must give the same shapes.
    x: [B, ...] noise, the same for all candidates. Judge the result on other noise.
    steps: number of steps n of the grid.
    fitness: samples [B, ...] -> [], smaller is better, in JAX: for example `error_to(fine)`, or a distance to
      data.
    pool: [M] times to choose from, or M of the process's default grid.
    ends: (first, last) time; by default the first and last of the process's default grid.
    initial: grids [n+1] to begin with; times that are not of the pool take its nearest.
    keys, cond: as for `sample`.
    seed: of the search.
    generations, population, parents, mutations, crossovers: see `evolution.evolve`; the paper's numbers.
    rate: probability with which a mutation replaces each time.
    chunk: candidates that run side by side.

  Returns:
    `SearchResult`, whose genome is the grid [n+1].

  Raises:
    ValueError: more steps than the pool has times for, a pool outside the ends, a rate outside (0, 1], or
      what `evolve` and `evaluator` raise.

  >>> import jax
  >>> from diffusion import oracles, processes, solvers
  >>> process = processes.vp_linear()
  >>> oracle = oracles.gaussian(process, [0.5], [0.01])
  >>> x = jax.random.normal(jax.random.key(0), (32, 1))
  >>> fine = solvers.sample(oracle, solvers.build("unipc", process, 60), x)
  >>> options = dict(pool=20, generations=3, population=8, parents=3, mutations=4, crossovers=2)
  >>> options.update(initial=[solvers.grids.uniform(process, 3)])
  >>> found = search_times(oracle, solvers.ddim, x, 3, solvers.error_to(fine), **options)
  >>> len(found.genome), found.history[0] >= found.fitness
  (4, True)
  """
  process = denoiser.process
  base = default_grid(process, 2)
  first, last = (float(t) for t in (base[[0, -1]] if ends is None else ends))
  if np.ndim(pool) == 0:
    times = default_grid(process, int(pool) + 1)
    times = times[(times < first) & (times > last)]
  else:
    times = np.unique(np.asarray(pool, np.float64))[::-1]
  if not len(times) or not first > times[0] or not times[-1] > last:
    raise ValueError(f"the pool must lie strictly between the ends {first} and {last}, got {times.tolist()}")
  count = int(steps) - 1
  if count < 1 or count > len(times):
    raise ValueError(
      f"{steps} steps need {steps} - 1 times between the ends, at least one, and the pool has {len(times)}: "
      "take fewer steps or a"
      " larger pool"
    )
  if not 0 < rate <= 1:
    raise ValueError(f"the rate of mutation is a probability, got {rate}")

  def repair(rng, chosen):
    """A sorted set of the right size: what occurs twice is drawn again."""
    chosen = set(chosen)
    if len(chosen) < count:
      rest = np.setdiff1d(np.arange(len(times)), list(chosen))
      chosen |= set(rng.choice(rest, count - len(chosen), replace=False).tolist())
    return tuple(sorted(int(i) for i in chosen))

  def mutate(rng, genome):
    return repair(rng, [rng.integers(len(times)) if rng.random() < rate else gene for gene in genome])

  def cross(rng, one, other):
    return repair(rng, [a if rng.random() < 0.5 else b for a, b in zip(one, other)])

  def nearest(grid):
    if len(grid) != count + 2:
      raise ValueError(f"an initial grid has {count + 2} times for {steps} steps, got {len(grid)}")
    return repair(np.random.default_rng(0), [int(np.argmin(abs(times - t))) for t in np.asarray(grid)[1:-1]])

  grid = lambda genome: np.concatenate([[first], times[list(genome)], [last]])
  run = evolution.evaluator(denoiser, x, fitness, keys=keys, cond=cond, chunk=chunk)
  best, value, history, evaluated = evolution.evolve(
    np.random.default_rng(seed),
    lambda genomes: run([build(process, grid(genome)) for genome in genomes]),
    [nearest(g) for g in initial],
    mutate,
    cross,
    lambda rng: repair(rng, []),
    generations=generations,
    population=population,
    parents=parents,
    mutations=mutations,
    crossovers=crossovers,
  )
  return evolution.SearchResult(build(process, grid(best)), grid(best), value, history, evaluated)
