"""Search of a whole solver schedule: the time, order, prediction and corrector of every step."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from diffusion.solvers import evolution
from diffusion.solvers.catalogue import default_grid
from diffusion.solvers.scheduled import scheduled

# Constants of arXiv:2312.07243's search: probabilities of the orders, of changing each decision, of crossing
# each step, the spread of times (of the whole run) and the number of parents.
ORDERS, RATE, CROSS, SPREAD, PARENTS = (0.2, 0.4, 0.3, 0.1), 0.3, 0.3, 0.08, 15


def search_schedule(
  denoiser: Any,
  x: Any,
  steps: int,
  fitness: Callable[..., Any],
  *,
  ends: Any = None,
  initial: Any = (),
  keys: jax.Array | None = None,
  cond: Any = None,
  seed: int = 0,
  generations: int = 30,
  population: int = 60,
  parents: int = PARENTS,
  mutations: int = 40,
  crossovers: int = 15,
  chunk: int = 8,
  resolution: int = 1000,
) -> evolution.SearchResult:
  """The best `scheduled` sampler by evolution (USF and its search S^3, arXiv:2312.07243).

  A genome has a row for each step: its time, order 1 to 4, prediction x0 or eps, corrector or not. Times move
  along the process's default grid. There is no learned predictor of the fitness: all candidates are tables of
  one shape, which one compiled program runs in numbers, so a true evaluation is cheap.

  Args:
    denoiser: a denoiser with a process.
    x: [B, ...] noise, the same for all candidates. Judge the result on other noise.
    steps: number of steps, which is the number of evaluations.
    fitness: samples [B, ...] -> [], smaller is better, in JAX: for example `error_to(fine)`.
    ends: (first, last) time; by default those of the process's default grid.
    initial: genomes to begin with, a tuple of (position, order, prediction, corrector) for each step,
      position from 0 to `resolution` along the run; the first is 0.
    keys, cond, seed, generations, population, parents, mutations, crossovers, chunk: as in `search_times`.
    resolution: number of places between the ends.

  Returns:
    `SearchResult`, whose genome is such a tuple.

  Raises:
    ValueError: more steps than places, or what `evolve` and `evaluator` raise.

  >>> import jax
  >>> from diffusion import oracles, processes, solvers
  >>> process = processes.vp_linear()
  >>> oracle = oracles.gaussian(process, [0.5], [0.01])
  >>> x = jax.random.normal(jax.random.key(0), (32, 1))
  >>> fine = solvers.sample(oracle, solvers.build("unipc", process, 60), x)
  >>> options = dict(generations=3, population=8, parents=3, mutations=4, crossovers=2)
  >>> found = search_schedule(oracle, x, 4, solvers.error_to(fine), **options)
  >>> found.solver.cost, found.fitness <= found.history[0]
  (4, True)
  """
  process = denoiser.process
  places = default_grid(process, resolution)
  if ends is not None:
    inside = places[(places < float(ends[0])) & (places > float(ends[1]))]
    places = np.concatenate([[float(ends[0])], inside, [float(ends[1])]])
  last = len(places) - 1
  if steps < 1 or steps > last:
    raise ValueError(
      f"{steps} steps need as many of the {last} places between the ends: take fewer steps or a higher "
      "resolution"
    )
  choose = lambda rng: (
    int(rng.choice(4, p=ORDERS)) + 1,
    ("x0", "eps")[rng.integers(2)],
    bool(rng.integers(2)),
  )

  def build(genome):
    grid = np.append(places[[row[0] for row in genome]], places[-1])
    return scheduled(process, grid, *zip(*(row[1:] for row in genome)))

  def order(rng, rows):
    """Sorted by time, the first at the start, no two at one place."""
    rows = sorted(rows, key=lambda row: row[0])
    used = {0}
    tidy = [(0, *rows[0][1:])]
    for row in rows[1:]:
      place = int(np.clip(row[0], 1, last - 1))
      while place in used:
        place = int(rng.integers(1, last))
      used.add(place)
      tidy.append((place, *row[1:]))
    return tuple(sorted(tidy))

  def mutate(rng, genome):
    rows = []
    for place, *decisions in genome:
      if rng.random() < RATE:
        place = round(place + SPREAD * last * rng.normal())
      new = choose(rng)
      rows.append((place, *(b if rng.random() < RATE else a for a, b in zip(decisions, new))))
    return order(rng, [(0, *rows[0][1:]), *rows[1:]])

  def cross(rng, one, other):
    return order(rng, [b if rng.random() < CROSS else a for a, b in zip(one, other)])

  def fresh(rng):
    inner = rng.choice(np.arange(1, last), steps - 1, replace=False) if steps > 1 else []
    return tuple((int(p), *choose(rng)) for p in [0, *sorted(inner)])

  def even(of_order, prediction, corrector):
    return tuple((round(last * i / steps), of_order, prediction, corrector) for i in range(steps))

  # Single solvers on even places are among the first candidates, so the result is never worse than they are.
  begin = [
    even(k, prediction, corrector)
    for k in (1, 2, 3)
    for prediction in ("x0", "eps")
    for corrector in (False, True)
  ]
  run = evolution.evaluator(denoiser, x, fitness, keys=keys, cond=cond, chunk=chunk)
  best, value, history, evaluated = evolution.evolve(
    np.random.default_rng(seed),
    lambda genomes: run([build(genome) for genome in genomes]),
    [tuple(tuple(row) for row in genome) for genome in initial] + begin[:population],
    mutate,
    cross,
    fresh,
    generations=generations,
    population=population,
    parents=parents,
    mutations=mutations,
    crossovers=crossovers,
  )
  return evolution.SearchResult(build(best), best, value, history, evaluated)
