"""Searches over times and over whole schedules.

Better than what they start from on noise they have not seen, in one program.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion import denoisers, oracles, processes, solvers
from diffusion.solvers import evolution

PROCESS = processes.vp_linear()


def ring():
  """Six Gaussians on a circle, of weights 1 to 6."""
  angle = np.arange(6) * np.pi / 3
  return oracles.gaussian_mixture(
    PROCESS, np.arange(1, 7), 2 * np.stack([np.cos(angle), np.sin(angle)], axis=1), 0.0625
  )


def energy_distance(target, x):
  """2 E|X - Y| - E|X - X'| - E|Y - Y'| over all pairs."""
  between = lambda a, b: jnp.mean(jnp.sqrt(jnp.sum((a[:, None] - b[None]) ** 2, axis=-1) + 1e-12))
  return 2 * between(x, target) - between(x, x) - between(target, target)


def fine(oracle, x):
  return solvers.sample(oracle, solvers.build("unipc", PROCESS, 150), x)


def error(oracle, solver, x, exact):
  return float(jnp.sqrt(jnp.mean((solvers.sample(oracle, solver, x) - exact) ** 2)))


@pytest.mark.slow
def test_searched_times_beat_hand_made_ones_on_unseen_noise():
  """DDIM in 5 steps from a pool of 100: over 30% below uniform t and 5% below t^2, in energy distance to the
  data."""
  oracle = ring()
  normal = lambda seed, count: jax.random.normal(jax.random.key(seed), (count, 2))
  fitness = jax.tree_util.Partial(energy_distance, oracle.sample(jax.random.key(1), 1000))
  found = solvers.search_times(
    oracle, solvers.ddim, normal(0, 1000), 5, fitness, generations=10, population=40, parents=10
  )
  assert found.evaluated <= 400 and list(found.history) == sorted(found.history, reverse=True)
  unseen, target = normal(10, 4000), oracle.sample(jax.random.key(11), 4000)
  judge = lambda grid: float(
    energy_distance(target, solvers.sample(oracle, solvers.ddim(PROCESS, grid), unseen))
  )
  best, even, squared = (
    judge(grid)
    for grid in (found.genome, *(solvers.grids.quadratic(PROCESS, 5, t_min=0.0, power=p) for p in (1.0, 2.0)))
  )
  print(f"energy distance: searched {best:.4f}, uniform {even:.4f}, t^2 {squared:.4f}")
  assert best < 0.7 * even and best < 0.95 * squared, (best, even, squared)


@pytest.mark.slow
def test_a_searched_schedule_beats_every_single_solver_on_unseen_noise():
  """At 5 evaluations, RMSE to the exact flow below 0.7 of the best built-in solver on t^2, even t or its own
  grid."""
  oracle = ring()
  x, unseen = (jax.random.normal(jax.random.key(seed), (count, 2)) for seed, count in ((0, 1000), (10, 4000)))
  found = solvers.search_schedule(oracle, x, 5, solvers.error_to(fine(oracle, x)))
  exact, single = fine(oracle, unseen), {}
  for name, entry in solvers.SOLVERS.items():
    for grid in ("quadratic", "uniform", None):
      times = entry.grid(PROCESS, 5) if grid is None else solvers.GRIDS[grid](PROCESS, 5, t_min=0.0)
      table = entry.builder(PROCESS, times)
      if not entry.stochastic and table.cost == 5:
        single[name, grid] = error(oracle, table, unseen, exact)
  best = min(single, key=single.get)
  searched = error(oracle, found.solver, unseen, exact)
  print(f"RMSE: searched {searched:.4f}, best single {single[best]:.4f} {best}, {found.genome}")
  assert searched < 0.7 * single[best]


def test_a_search_is_one_program_and_follows_its_seed():
  oracle, traces = ring(), []

  def network(params, x, t, cond):
    traces.append(x.shape)
    return params * oracle(x, t).x0

  denoiser = denoisers.from_function(network, PROCESS, denoisers.x0(), jnp.float32(1.0))
  x = jax.random.normal(jax.random.key(0), (64, 2))
  exact = fine(oracle, x)
  options = dict(generations=3, population=12, parents=4, mutations=6, crossovers=3)
  schedule = lambda seed: solvers.search_schedule(
    denoiser, x, 4, solvers.error_to(exact), seed=seed, **options
  )
  first = schedule(0)
  assert len(traces) == 1  # once for every candidate of every generation
  again, other = schedule(0), schedule(1)
  assert first.genome == again.genome and first.fitness == again.fitness and first.history != other.history
  np.testing.assert_array_equal(first.solver.A, again.solver.A)
  assert first.evaluated > 18 and list(first.history) == sorted(first.history, reverse=True)
  np.testing.assert_allclose(error(oracle, first.solver, x, exact), first.fitness, rtol=1e-4)

  traces.clear()
  grid = solvers.grids.quadratic(PROCESS, 4, t_min=0.0)
  times = lambda **more: solvers.search_times(
    denoiser, solvers.dpmpp_2m, x, 4, solvers.error_to(exact), initial=[grid], **{**options, **more}
  )
  found = times()
  # Another seed, pool and target are data as well.
  times(seed=1, pool=[0.9, 0.7, 0.5, 0.4, 0.3, 0.1])
  assert len(traces) == 1
  # The first of its candidates was that grid, to the nearest times of the pool.
  assert found.fitness <= error(oracle, solvers.dpmpp_2m(PROCESS, grid), x, exact) * 1.02
  assert np.all(np.diff(found.genome) < 0) and found.genome.shape == (5,)


def test_mistakes_are_named():
  oracle, x = ring(), jnp.ones((4, 2))
  fitness = solvers.error_to(x)
  times = lambda **options: solvers.search_times(
    oracle, solvers.ddim, options.pop("x", x), options.pop("steps", 4), fitness, **options
  )
  for options, says in (
    (dict(steps=12, pool=10), "12 steps need"),
    (dict(steps=1), "at least one"),
    (dict(pool=[0.5, 1.5, 0.2]), "between the ends"),
    (dict(rate=0.0), "probability"),
    (dict(chunk=0), "chunk"),
    (dict(parents=60), "no more parents than candidates"),
    (dict(mutations=40, crossovers=40), "within the population"),
    (dict(generations=0), "at least 1"),
    (dict(initial=[[1.0, 0.5, 0.0]]), "an initial grid has 5 times"),
    (dict(x=jnp.full((4, 2), jnp.nan)), "not finite"),
  ):
    with pytest.raises(ValueError, match=says):
      times(**options)
  with pytest.raises(ValueError, match="resolution"):
    solvers.search_schedule(oracle, x, 30, fitness, resolution=20)
  with pytest.raises(ValueError, match="one number"):
    solvers.search_times(
      oracle,
      solvers.ddim,
      x,
      4,
      lambda y: y[:, 0],
      generations=1,
      population=2,
      parents=1,
      mutations=0,
      crossovers=0,
    )


def test_evolution_ranks_what_is_not_finite_last():
  scores = {1: np.nan, 2: 3.0, 3: np.inf, 4: 1.0}
  best, value, history, count = evolution.evolve(
    np.random.default_rng(0),
    lambda genomes: [scores[g] for g in genomes],
    [1, 2, 3, 4],
    lambda rng, g: g,
    lambda rng, a, b: a,
    lambda rng: 1,
    generations=2,
    population=4,
    parents=2,
    mutations=2,
    crossovers=2,
  )
  assert (best, value, count) == (4, 1.0, 4) and history == (1.0, 1.0)
