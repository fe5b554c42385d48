"""Ancestral sampling with a learned variance: the authors' formula and rungs, and exact Gaussian laws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion import denoisers, guidance, oracles, processes, solvers
from diffusion.solvers import randomness

ROWS = 5


def authors_step(betas, kept, i, x, x0, v, noise):
  """One step of `p_sample` from kept[i] in float64, from arXiv:2102.09672 (eqs. 9 to 12 and 15).

  betas [N] of the whole ladder; kept: ascending whole numbers of steps; v in [0, 1].
  """
  abar = np.cumprod(1 - np.asarray(betas, np.float64))[kept]
  before = np.append(1.0, abar[:-1])
  beta = 1 - abar / before
  small = beta * (1 - before) / (1 - abar)
  of_x0 = np.sqrt(before[i]) * beta[i] / (1 - abar[i])
  of_x = np.sqrt(1 - beta[i]) * (1 - before[i]) / (1 - abar[i])
  mean = of_x0 * x0 + of_x * x
  if i == 0:
    return mean
  return mean + np.exp(0.5 * (v * np.log(beta[i]) + (1 - v) * np.log(small[i]))) * noise


@pytest.mark.parametrize("ladder", ["linear", "cosine"])
@pytest.mark.parametrize("bound", [None, 0.5])
def test_each_step_is_that_of_the_authors(ladder, bound):
  """Every step of seven of forty rungs, against the formula in float64, to float32's rounding."""
  betas = {"linear": processes.ddpm_betas(40), "cosine": processes.cosine_betas(40)}[ladder]
  process, n = processes.vp_ladder(betas), 7
  kept = [round(k * 39 / 6) for k in range(n)]
  solver = solvers.learned_ancestral(process, solvers.learned_ancestral_grid(process, n), bound=bound)
  np.testing.assert_allclose(np.asarray(solver.times)[:-1], (np.array(kept[::-1]) + 1) / 40, rtol=1e-6)
  draw = np.random.default_rng(0)
  x, x0, v = (jnp.asarray(draw.normal(size=(ROWS, 3)), jnp.float32) for _ in range(3))
  v = jax.nn.sigmoid(v)
  keys = jax.random.split(jax.random.key(1), ROWS)
  for i in range(n):
    told = denoisers.Prediction(x0=x0, variance_fraction=v)
    found = solver.tell(solver.begin(x, keys), i, told, keys)
    noise = np.asarray(randomness.normal(keys, i + 1, 0, x), np.float64)
    clipped = x0 if bound is None else np.clip(x0, -bound, bound)
    wanted = authors_step(
      betas, kept, n - 1 - i, *(np.asarray(one, np.float64) for one in (x, clipped, v)), noise
    )
    np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=2e-6)


def fractions(process, grid, variance):
  """v of the exact variance of x' given x in a grid's steps, for data of this variance [D]: [n, D].

  Var[x' | x] = beta~ + (d mean / d x0)^2 Var[x0 | x] (arXiv:2201.06503, eq. 7), here from the joint law of
  (x', x).
  """
  a, s = (
    np.asarray(leaf, np.float64)[:, None]
    for leaf in (process.marginal(grid).alpha, process.marginal(grid).sigma)
  )
  total = a**2 * variance + s**2
  step = a[:-1] / a[1:]  # x = step x' + sqrt(beta) z
  beta = s[:-1] ** 2 - (step * s[1:]) ** 2
  exact = total[1:] - (step * total[1:]) ** 2 / total[:-1]
  small = beta * s[1:] ** 2 / s[:-1] ** 2
  return np.log(exact / small) / np.log(beta / small)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_the_exact_variance_gives_the_exact_law_in_any_number_of_steps(n):
  """Gaussian data from their marginal at the first time: moments at the last, within five errors."""
  process = processes.ddpm_ladder(100)
  mean, variance = np.array([0.7, -0.4, 0.0]), np.array([0.03, 0.4, 0.9])
  oracle = oracles.gaussian(process, mean, variance, dtype=jnp.float32)
  grid = np.linspace(0.9, 0.05, n + 1)
  v = fractions(process, grid, variance)
  assert np.all((v > 0) & (v < 1)), "between the variances of a point and of N(0, 1)"
  table = jnp.asarray(v, jnp.float32)

  def fraction(params, x, t, cond):
    nearest = jnp.argmin(jnp.abs(t[:, None] - jnp.asarray(grid[None, :-1], jnp.float32)), axis=1)
    return table[nearest]

  denoiser = denoisers.extend(oracle, variance_fraction=fraction)
  rows = 40_000
  x = oracle.sample(jax.random.key(0), rows, t=float(grid[0]))
  keys = jax.random.split(jax.random.key(1), rows)
  run = lambda solver: np.asarray(solvers.sample(denoiser, solver, x, keys=keys), np.float64)
  found = run(solvers.learned_ancestral(process, grid))
  end = process.marginal(grid[-1])
  wanted = float(end.alpha) ** 2 * variance + float(end.sigma) ** 2
  error = np.abs(found.mean(0) - float(end.alpha) * mean) / np.sqrt(wanted / rows)
  spread = np.abs(found.var(0) / wanted - 1) / np.sqrt(2 / rows)
  assert error.max() < 5 and spread.max() < 5, (error, spread)
  off = run(solvers.ancestral(process, grid)).var(0) / wanted - 1
  assert n > 2 or np.abs(off).max() > 0.1  # what a fixed variance leaves


def test_its_two_ends_are_the_fixed_variances():
  """v = 0 and v = 1 are `ancestral`, small and large, on the same noise."""
  process = processes.ddpm_ladder(50)
  grid = solvers.learned_ancestral_grid(process, 6)
  oracle = oracles.gaussian(process, np.zeros(2), 0.5, dtype=jnp.float32)
  keys = jax.random.split(jax.random.key(0), ROWS)
  x = process.prior(keys, (2,))
  for value, variance in ((0.0, "small"), (1.0, "large")):
    denoiser = denoisers.extend(oracle, variance_fraction=lambda p, x, t, c, value=value: 0 * x + value)
    learned = solvers.sample(denoiser, solvers.learned_ancestral(process, grid), x, keys=keys)
    fixed = solvers.sample(oracle, solvers.ancestral(process, grid, variance=variance), x, keys=keys)
    np.testing.assert_allclose(learned, fixed, rtol=1e-4, atol=1e-5)


def space_timesteps(total, count):
  """The rule of improved DDPM (arXiv:2102.09672, section 4): even real steps from first to last."""
  place, found = 0.0, []
  for _ in range(count):
    found.append(round(place))
    place += (total - 1) / (count - 1)
  return found


@pytest.mark.parametrize("total, count", [(1000, 250), (1000, 1000), (4000, 100), (300, 7), (1000, 2)])
def test_rungs_are_those_of_the_authors(total, count):
  found = solvers.learned_ancestral_grid(processes.ddpm_ladder(total), count)
  wanted = [(k + 1) / total for k in reversed(space_timesteps(total, count))]
  np.testing.assert_allclose(found, [*wanted, 0.0], rtol=1e-12)


def test_guidance_leaves_the_variance_to_the_conditional_network():
  """As in the authors' DiT; and clipping x0, or a classifier, moves nothing of it."""
  process = processes.ddpm_ladder(40)

  def network(params, x, t, cond):
    label = cond["label"].astype(x.dtype)[:, None]
    return jnp.concatenate([x + label, 0.0 * x + 0.2 * label], axis=-1)

  plain = denoisers.from_function(network, process, denoisers.with_variance(denoisers.x0()))
  pull = lambda params, x, t, cond: -0.5 * jnp.sum(x**2, axis=1)
  x, t, cond = jnp.ones((1, 2)), jnp.full(1, 0.5), {"label": jnp.array([3])}
  for around in (
    guidance.classifier_free(2.0),
    guidance.static_threshold(0.5),
    guidance.classifier(pull, scale=3.0),
    guidance.epsilon_scaling(1.1),
    guidance.autoguidance(plain, 1.0),
  ):
    found = around(plain)(x, t, cond, views=("x0", "variance_fraction"))
    np.testing.assert_allclose(found.variance_fraction, 0.5 * (1 + 0.2 * 3), rtol=1e-6)
  all_of = guidance.conjunction([{"label": 1}, {"label": 2}])(plain)
  np.testing.assert_allclose(
    all_of(x, t, views=("x0", "variance_fraction")).variance_fraction, 0.4, rtol=1e-6
  )


def test_mistakes_are_named():
  process = processes.ddpm_ladder(40)
  with pytest.raises(ValueError, match="40 rungs is respaced to 1 to 40 steps, got 41"):
    solvers.build("learned_ancestral", process, 41)
  with pytest.raises(ValueError, match="bound=0"):
    solvers.build("learned_ancestral", process, 5, bound=0)
  oracle = oracles.gaussian(process, np.zeros(2), 0.5, dtype=jnp.float32)
  keys = jax.random.split(jax.random.key(0), 2)
  with pytest.raises(ValueError, match="'variance_fraction'"):
    solvers.sample(oracle, solvers.build("learned_ancestral", process, 5), jnp.ones((2, 2)), keys=keys)
