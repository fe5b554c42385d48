"""The chain over data and noise levels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion import oracles, processes, solvers


@pytest.mark.slow
def test_it_finds_modes_in_few_evaluations():
  """Eight narrow modes on a circle (arXiv:2209.14593): over ten times as many samples within 3 std of one as
  EDM's Heun from sigma = 50.

  10 evaluations a sample, 5 of the chain and 5 of Heun, against 11.
  """
  process = processes.edm(sigma_max=50.0)
  angle = np.arange(8) * np.pi / 4
  means = 2 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
  oracle = oracles.gaussian_mixture(process, None, means, 0.01)
  heun = lambda grid: solvers.heun(process, grid)
  chains, rounds = 128, 20
  x = process.prior(jax.random.split(jax.random.key(0), chains * rounds), (2,))
  distance = lambda x: jnp.linalg.norm(x[:, None] - jnp.asarray(means, jnp.float32)[None], axis=-1)
  near = lambda x: float((distance(x).min(axis=1) < 0.3).mean())
  edm = heun(solvers.grids.karras(process, 6, clean=True))
  burnt = solvers.sample(oracle, heun(solvers.grids.karras(process, 9, clean=True)), x[:chains])
  levels = np.geomspace(0.01, 50.0, 200)
  starts = solvers.denoising_mcmc(
    oracle,
    burnt + 0.5 * jax.random.normal(jax.random.key(1), burnt.shape),
    jnp.full(chains, 0.5),
    levels,
    solvers.level_posterior(oracle, levels),
    keys=jax.random.split(jax.random.key(2), chains),
    rounds=rounds,
    burn_in=20,
    clip=20.0,
  )
  grids = np.stack([solvers.grids.karras(process, 3, t_max=t, clean=True) for t in np.ravel(starts.t)])
  solver = heun(grids)
  assert starts.cost + solver.cost == 10 and edm.cost == 11
  out = solvers.sample(oracle, solver, starts.x.reshape(-1, 2))
  share = jnp.bincount(jnp.argmin(distance(out), axis=1), length=8) / out.shape[0]
  many = process.prior(jax.random.split(jax.random.key(3), 40_000), (2,))  # their share to 3% (one deviation)
  by_chain, by_edm = near(out), near(solvers.sample(oracle, edm, many))
  variation = 0.5 * float(jnp.abs(share - 1 / 8).sum())
  print(f"within 3 std: DLG {by_chain:.3f}, EDM {by_edm:.3f}; total variation over modes {variation:.3f}")
  assert by_chain > 10 * by_edm and by_chain > 0.3 and variation < 0.1


@pytest.mark.parametrize("name", ["vp_linear", pytest.param("edm", marks=pytest.mark.slow)])
def test_the_joint_law_stays(name):
  """From the exact joint law, 15 small moves leave levels even (chi-square, 0.999) and |x|^2 at each right (4
  standard errors, 3%)."""
  process = processes.PROCESSES[name]()
  oracle = oracles.gaussian(process, [0.0, 0.0], 0.04)
  levels = process.t_of_log_snr(-2 * np.log(np.geomspace(0.3, 3.0, 8)))
  count = 4000
  which = jax.random.randint(jax.random.key(0), (count,), 0, 8)
  t = jnp.asarray(levels, jnp.float32)[which]
  x = oracle.sample(jax.random.key(1), count, t=t)
  starts = solvers.denoising_mcmc(
    oracle,
    x,
    t,
    levels,
    solvers.level_posterior(oracle, levels),
    keys=jax.random.split(jax.random.key(2), count),
    rounds=1,
    burn_in=14,
    moves=1,
    step=0.01,
  )
  t, x = np.asarray(starts.t[0]), np.asarray(starts.x[0], np.float64)
  nearest = np.abs(t[:, None] - levels[None]).argmin(axis=1)
  counts = np.bincount(nearest, minlength=8)
  assert np.sum((counts - count / 8) ** 2) / (count / 8) < 24.3
  assert np.mean(nearest != np.asarray(which)) > 0.5  # they have moved
  m = process.marginal(levels[nearest])
  square = np.sum(x**2, axis=1) / (m.alpha**2 * 0.04 + m.sigma**2)  # chi-square with two degrees of freedom
  for level in range(8):
    here = square[nearest == level]
    assert abs(here.mean() / 2 - 1) < 4 / np.sqrt(here.size) + 0.03


@pytest.mark.slow
def test_chains_are_alone_and_starts_are_the_least_noisy():
  process = processes.edm()
  oracle = oracles.gaussian(process, [0.5, 0.0], 0.04)
  levels = np.geomspace(0.05, 5.0, 30)
  logits, keys = solvers.level_posterior(oracle, levels), jax.random.split(jax.random.key(0), 8)
  x, t = jax.random.normal(jax.random.key(1), (8, 2)), jnp.full(8, 1.0)
  run = lambda rows, **options: solvers.denoising_mcmc(
    oracle, x[rows], t[rows], levels, logits, keys=keys[rows], **{**dict(rounds=2, moves=4), **options}
  )
  whole = run(slice(None))
  order = np.array([3, 1, 7, 0, 2, 6, 5, 4])
  moved = run(order)
  np.testing.assert_array_equal(moved.x, whole.x[:, order])
  np.testing.assert_array_equal(moved.t, whole.t[:, order])
  # Four rounds of one move each are the same chain: a round's start is the one of its moves with the smallest
  # level.
  single = run(slice(None), rounds=8, moves=1)
  t = np.asarray(single.t).reshape(2, 4, 8)
  np.testing.assert_array_equal(whole.t, t.min(axis=1))
  best = t.argmin(axis=1)
  np.testing.assert_array_equal(
    whole.x,
    np.take_along_axis(np.asarray(single.x).reshape(2, 4, 8, 2), best[:, None, :, None], axis=1)[:, 0],
  )


def test_mistakes_are_named():
  process = processes.edm()
  oracle = oracles.gaussian(process, [0.5, 0.0], 0.04)
  x, t, keys = jnp.ones((4, 2)), jnp.ones(4), jax.random.split(jax.random.key(0), 4)
  levels = np.geomspace(0.05, 5.0, 30)
  logits = solvers.level_posterior(oracle, levels)
  call = lambda x=x, t=t, levels=levels, **options: solvers.denoising_mcmc(
    oracle, x, t, levels, logits, keys=keys, **{**dict(rounds=1), **options}
  )
  for options, says in (
    (dict(rounds=0), "at least 1"),
    (dict(step=0.0), "positive step"),
    (dict(clip=-1.0), "clip"),
    (dict(levels=np.array([1.0, 0.0])), "both noise and signal"),
    (dict(t=jnp.ones(3)), "one time and one key a row"),
    (dict(x=jnp.full((4, 2), jnp.nan)), "left the numbers"),
  ):
    with pytest.raises(ValueError, match=says):
      call(**options)
