"""Sampling towards a reward: against the tilted laws of Gaussians, mixtures and listed tokens."""

import discrete_cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion import oracles, processes, solvers

EDM = processes.edm(sigma_min=0.02, sigma_max=20.0)
GRID = np.append(np.geomspace(20.0, 0.02, 40), 0.0)
ANCESTRAL = solvers.ancestral(EDM, GRID)
MIXTURE = oracles.gaussian_mixture(EDM, [0.5, 0.5], [[-2.0], [2.0]], [0.25, 0.25])
first = lambda x: x[:, 0]
near = lambda x: -jnp.abs(x[:, 0] - 2.5)


def draws(denoiser, solver, number, seed=0):
  keys = jax.random.split(jax.random.key(seed), number)
  return np.asarray(solvers.sample(denoiser, solver, EDM.prior(keys, (1,)), keys=keys))


@pytest.mark.slow
def test_one_candidate_is_the_solver_itself():
  """The same draws at the same cost, to the rounding of another program; of a solver with a memory too."""
  for inner in (ANCESTRAL, solvers.dpmpp_2m_sde(EDM, GRID)):
    solver = solvers.svdd(EDM, inner, near, candidates=1, alpha=1.0)
    np.testing.assert_allclose(draws(MIXTURE, solver, 64), draws(MIXTURE, inner, 64), rtol=1e-5, atol=1e-5)
    assert solver.cost == inner.cost
  case = discrete_cases.joint_5x3()
  inner, keys = solvers.build("masked_ancestral", case.process, 8), jax.random.split(jax.random.key(0), 64)
  solver = solvers.svdd(case.process, inner, lambda x: x[:, 0].astype(jnp.float32), candidates=1)
  run = lambda solver: np.asarray(solvers.sample(case.denoiser, solver, case.masks(64), keys=keys))
  np.testing.assert_array_equal(run(solver), run(inner))


@pytest.mark.parametrize("number, m", [(500, 8), pytest.param(4000, 64, marks=pytest.mark.slow)])
def test_a_linear_reward_of_gaussian_data_shifts_them(number, m):
  """N(m, s^2) exp(c x / alpha) is N(m + c s^2 / alpha, s^2), and the posterior mean's value is exact there.

  The mean and the deviation are met within five standard errors and the 1 / M that remains.
  """
  oracle = oracles.gaussian(EDM, np.array([0.5]), np.array([0.64]))
  x = draws(oracle, solvers.svdd(EDM, ANCESTRAL, first, candidates=m, alpha=2.0), number)
  error = 5 * 0.8 / np.sqrt(number)
  assert abs(x.mean() - (0.5 + 0.64 / 2.0)) < error + 0.32 / m
  assert abs(x.std() - 0.8) < error / np.sqrt(2) + 0.8 / m


@pytest.mark.slow
@pytest.mark.parametrize("number, most", [(4000, 50)])
def test_more_candidates_come_nearer_and_the_best_alone_is_kept_at_zero(number, most):
  """Of a mixture with r = -|x - 2.5|: E r grows with M towards the tilted law's; alpha = 0 goes beyond it.

  The target is an integral, -0.523. The posterior mean's value is too high for a concave reward, so that with
  many candidates it is passed by a little: by less than 0.15.
  """
  z = np.linspace(-8, 8, 160_001)
  law = np.exp(-0.5 * ((z - 2) / 0.5) ** 2) + np.exp(-0.5 * ((z + 2) / 0.5) ** 2)
  tilted = law * np.exp(-np.abs(z - 2.5))
  target = -(tilted * np.abs(z - 2.5)).sum() / tilted.sum()
  assert abs(target + 0.523) < 1e-3
  rewards = {}
  for m in (1, 2, most):
    solver = solvers.svdd(EDM, ANCESTRAL, near, candidates=m, alpha=1.0)
    rewards[m] = float(near(draws(MIXTURE, solver, number)).mean())
  assert rewards[1] < rewards[2] < rewards[most]
  assert abs(rewards[most] - target) < 0.15
  best = solvers.svdd(EDM, ANCESTRAL, near, candidates=5)
  assert float(near(draws(MIXTURE, best, 250)).mean()) > -0.02


def exact_value(case, reward, alpha):
  """The soft value of a listed law: (denoiser of the tilted law, value)."""
  tilted = oracles.masked_categorical(case.process, case.law * np.exp(reward / alpha))
  base = oracles.masked_categorical(case.process, case.law)
  of = lambda x, t, prediction: alpha * (tilted.log_prob(x, t) - base.log_prob(x, t)).astype(jnp.float32)
  return of, np.asarray(tilted.tables[0])


@pytest.mark.parametrize(
  "steps, m, number", [(6, 4, 1000), pytest.param(40, 32, 4000, marks=pytest.mark.slow)]
)
def test_listed_tokens_are_tilted(steps, m, number):
  """With the exact soft value the law of five tokens comes from afar to the tilted one.

  To within chance, what the solver's own steps cost and 1 / M.
  """
  case = discrete_cases.joint_5x3()
  alpha, reward = 0.5, np.random.default_rng(1).normal(size=case.law.shape)
  value, target = exact_value(case, reward, alpha)
  table = jnp.asarray(reward, jnp.float32)
  own = lambda x: table[tuple(x[:, d] for d in range(case.size))]
  inner = solvers.masked_ancestral(case.process, case.process.default_grid(steps))
  keys = jax.random.split(jax.random.key(3), number)
  found = {}
  for candidates in (1, m):
    solver = solvers.svdd(case.process, inner, own, candidates=candidates, alpha=alpha, value=value)
    x = solvers.sample(case.denoiser, solver, case.masks(number), keys=keys)
    found[candidates] = discrete_cases.total_variation(np.asarray(x), target)
  far = 0.5 * np.abs(case.law - target).sum()
  assert found[1] > far - 0.1
  assert found[m] < discrete_cases.floor(target, number) + far / m + 0.6 / steps, found


def test_what_it_refuses():
  masked = processes.masked(3, (4,))
  unmask = solvers.masked_ancestral(masked, [1.0, 0.5, 0.0])
  for make, message in (
    (lambda: solvers.svdd(EDM, solvers.ddim(EDM, GRID), near), "ddim draws none: take one with noise"),
    (lambda: solvers.svdd(EDM, solvers.heun_churn(EDM, GRID, s_churn=4.0), near), "takes several a step"),
    (lambda: solvers.svdd(EDM, solvers.adaptive_sde(EDM), near), "chooses its steps as it goes"),
    (lambda: solvers.svdd(EDM, ANCESTRAL, near, candidates=0), "at least 1, got 0"),
    (lambda: solvers.svdd(masked, unmask, near, alpha=-1.0), "alpha is at least 0, got -1"),
  ):
    with pytest.raises(ValueError, match=message):
      make()
