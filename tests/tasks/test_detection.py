"""Detection by likelihood and by the variance of a trajectory, where both are known in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from diffusion import denoisers, metrics, oracles, processes, solvers, tasks


def test_surprise_detects_as_the_likelihood_ratio_does():
  """Usual N(0, I), unusual N(0, s^2 I): both scores grow with |x|, so the area is P(F_dd > 1/s^2), the most
  that any test has."""
  dim, s = 3, 1.7
  usual = oracles.gaussian(processes.edm(), np.zeros(dim), np.ones(dim), dtype=jnp.float32)
  rng = np.random.default_rng(0)
  known, unknown = rng.normal(size=(2000, dim)), s * rng.normal(size=(2000, dim))
  score = lambda x: tasks.surprise(usual, jnp.asarray(x, jnp.float32), num_steps=16)
  found = score(unknown)
  assert found.evaluations == 64
  ratio = lambda x: scipy.stats.norm.logpdf(x, scale=s).sum(1) - scipy.stats.norm.logpdf(x).sum(1)
  area = metrics.auroc(found.score, score(known).score)
  np.testing.assert_allclose(area.value, metrics.auroc(ratio(unknown), ratio(known)).value, atol=1e-3)
  assert (
    abs(area.value - scipy.stats.f.sf(s**-2, dim, dim)) < 4.5 * area.error
  )  # fails by chance with probability 7e-6


def test_something_flat_is_too_probable_and_still_not_typical():
  """N(0, 0.1^2 I) under a model of N(0, I) in 50 dimensions: the more probable, and found by its distance
  from the mean alone."""
  dim = 50
  log_prob = lambda x: scipy.stats.norm.logpdf(x).sum(1)
  rng = np.random.default_rng(0)
  known, held, flat = (
    rng.normal(size=(500, dim)),
    rng.normal(size=(500, dim)),
    0.1 * rng.normal(size=(500, dim)),
  )
  assert metrics.auroc(-log_prob(flat), -log_prob(known)).value < 1e-6
  typical = lambda x: np.asarray(
    tasks.atypicality(jnp.asarray(-log_prob(x), jnp.float32), jnp.asarray(-log_prob(held), jnp.float32))
  )
  assert metrics.auroc(typical(flat), typical(known)).value > 1 - 1e-6


def counted(denoiser):
  """(the denoiser, a list that grows by one for each of its calls at run time)."""
  calls = []

  def fn(params, x, t, cond):
    jax.debug.callback(lambda: calls.append(1))
    return denoiser(x, t, cond, views=("x0",)).x0

  return denoisers.from_function(fn, denoiser.process, denoisers.x0()), calls


def test_the_variance_along_a_gaussian_trajectory_is_known(x64):
  """Along the flow x0 = m + c v alpha / sqrt(alpha^2 v + sigma^2) with c constant, so its variance over times
  is c^2 v^2 times a number."""
  process = processes.vp_linear()
  mean, v = np.array([1.0, -0.5]), np.array([4.0, 0.25])
  oracle = oracles.gaussian(process, mean, v)
  errors = []
  x = jnp.asarray(np.random.default_rng(0).normal(size=(5, 2)))
  m = process.marginal(process.t_max)
  c = (np.asarray(x) - m.alpha * mean) / np.sqrt(m.alpha**2 * v + m.sigma**2)
  denoiser, calls = counted(oracle)
  for n in (200, 400):
    table, last = solvers.dpmpp_2m(process, solvers.grids.log_snr(process, n), dtype=np.float64), n // 2
    found = solvers.sample(denoiser, tasks.watched(table, last), x)
    here = process.marginal(table.t[-1 - last : -1].astype(np.float64))
    path = v * here.alpha[:, None] / np.sqrt(here.alpha[:, None] ** 2 * v + here.sigma[:, None] ** 2)
    exact = np.mean(c**2 * path.var(axis=0), axis=1)
    errors.append(np.abs(np.asarray(found.variance) / exact - 1.0).max())
    np.testing.assert_array_equal(found.x, solvers.sample(denoiser, table, x))
  assert errors[1] < errors[0] / 3 and errors[1] < 1e-3, errors
  jax.effects_barrier()
  assert len(calls) == 2 * (200 + 400)  # no call is spent on the variance


def test_watching_changes_no_sample_and_keeps_rows_apart():
  process = processes.edm(sigma_min=0.01, sigma_max=10.0)
  data = oracles.gaussian_mixture(process, None, [[-1.0, 0.0], [1.0, 0.3]], 0.01, dtype=jnp.float32)
  table = solvers.build("dpmpp_2m_sde", process, 12)
  x, keys = (
    process.prior(jax.random.split(jax.random.key(0), 6), (2,)),
    jax.random.split(jax.random.key(1), 6),
  )
  plain, states = solvers.sample(data, table, x, keys=keys, trajectory=True)
  found, count = solvers.sample(data, tasks.watched(table, 5), x, keys=keys, evaluations=True)
  np.testing.assert_array_equal(found.x, plain)
  assert count.tolist() == [table.cost] * 6
  predicted = jax.jit(lambda x, t: data(x, t))(
    states[7:12].reshape(30, 2), jnp.asarray(np.repeat(table.t[7:12], 6))
  ).x0.reshape(5, 6, 2)
  np.testing.assert_allclose(
    found.variance, np.asarray(predicted).var(axis=0).mean(axis=1), rtol=1e-3, atol=1e-9
  )
  np.testing.assert_array_equal(
    solvers.sample(data, tasks.watched(table, 5), x[::-1], keys=keys[::-1]).variance, found.variance[::-1]
  )


@pytest.mark.parametrize(
  "make,words",
  [
    (lambda p: tasks.watched(solvers.build("heun", p, 5), 1), "from 2 of the solver's evaluations"),
    (lambda p: tasks.watched(solvers.build("ddim", p, 5), 6), "all 5 of them"),
    (lambda p: tasks.atypicality(jnp.ones(3), jnp.ones(4)), "ten at least"),
    (
      lambda p: tasks.surprise(oracles.gaussian(p, [0.0], [1.0]), jnp.ones((3, 1)), divergence="rademacher"),
      "one key a row",
    ),
  ],
)
def test_mistakes_are_named(make, words):
  with pytest.raises(ValueError, match=words):
    make(processes.vp_linear())


def test_an_adaptive_solver_has_no_rows_to_watch():
  with pytest.raises(TypeError, match="of fixed steps"):
    tasks.watched(solvers.build("dpm_solver_adaptive", processes.vp_linear()))
