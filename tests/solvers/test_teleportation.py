"""The jump through the high-noise part of a run."""

import digits_kde
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion import oracles, processes, solvers


@pytest.mark.parametrize("name", processes.PROCESSES)
def test_the_jump_is_the_exact_flow_of_gaussian_data(name, x64):
  """To 1e-9, from the process's own end (alpha = 0 on two of them) and each row to its own time; the fit is
  that of the data it saw."""
  process = processes.PROCESSES[name]()
  rng = np.random.default_rng(0)
  data = rng.normal(size=(50, 3)) @ rng.normal(size=(3, 3)) + [1.0, -2.0, 0.5]
  fit = solvers.fit_gaussian(data)
  np.testing.assert_allclose(fit.basis * fit.eigenvalues @ fit.basis.T, np.cov(data.T, bias=True), atol=1e-12)
  oracle = oracles.gaussian(process, data.mean(axis=0), np.cov(data.T, bias=True))
  x = process.prior(jax.random.split(jax.random.key(0), 4), (3,)).astype(jnp.float64)
  times = jnp.asarray([0.9, 0.5, 0.1, 0.01]) * process.t_max
  exact = oracle.flow(x, jnp.full(4, 1.0 * process.t_max), times)
  np.testing.assert_allclose(solvers.teleport(process, fit, x, times), exact, rtol=1e-9, atol=1e-9)
  there = solvers.teleport(process, fit, x, 0.6 * process.t_max)
  two_jumps = solvers.teleport(process, fit, there, 0.1 * process.t_max, t_from=0.6 * process.t_max)
  np.testing.assert_allclose(
    two_jumps, solvers.teleport(process, fit, x, 0.1 * process.t_max), rtol=1e-9, atol=1e-9
  )


def test_a_subspace_is_enough_where_the_rest_has_one_variance(x64):
  """The covariance of k directions and one number for the rest; with rest = 0, the paper's factor sigma_to /
  sigma_from there."""
  process = processes.edm()
  basis = np.linalg.qr(np.random.default_rng(0).normal(size=(6, 6)))[0]
  points = (
    np.concatenate([basis.T, -basis.T]) * np.sqrt(6 * np.tile([4.0, 2.0, 0.3, 0.3, 0.3, 0.3], 2))[:, None]
  )
  whole, some = solvers.fit_gaussian(points), solvers.fit_gaussian(points, rank=2)
  np.testing.assert_allclose(some.eigenvalues, [4.0, 2.0], rtol=1e-12)
  x = 80 * jax.random.normal(jax.random.key(0), (3, 6), jnp.float64)
  np.testing.assert_allclose(
    solvers.teleport(process, some, x, 2.0), solvers.teleport(process, whole, x, 2.0), rtol=1e-9
  )
  bare = solvers.teleport(process, some.replace(rest=0.0), x, 2.0)
  np.testing.assert_allclose(bare @ basis[:, 2:], x @ basis[:, 2:] * 2.0 / 80.0, rtol=1e-9)


@pytest.mark.slow
def test_it_saves_evaluations_on_digits():
  """Heun on Karras nodes, RMSE to the converged flow (arXiv:2412.09726): 15 evaluations after a jump to sigma
  = 5 do what 25 do."""
  process = processes.edm()
  denoiser, x = digits_kde.denoiser(process), process.prior(jax.random.split(jax.random.key(7), 600), (64,))
  fit = solvers.fit_gaussian(digits_kde.points())
  fit = fit.replace(eigenvalues=fit.eigenvalues + digits_kde.STD**2)
  run = lambda start, n, **options: solvers.sample(
    denoiser, solvers.heun(process, solvers.grids.karras(process, n, clean=True, **options)), start
  )
  exact = run(x, 200)
  error = lambda out: float(jnp.sqrt(jnp.mean((out - exact) ** 2)))
  whole = {2 * n - 1: error(run(x, n)) for n in (8, 13)}
  jumped = {
    (sigma, 2 * n - 1): error(run(solvers.teleport(process, fit, x, sigma), n, t_max=sigma))
    for sigma, n in ((10.0, 6), (5.0, 8))
  }
  print(f"RMSE by evaluations: {whole}; from a jump to sigma: {jumped}")
  assert jumped[10.0, 11] < whole[15] and jumped[5.0, 15] < 1.03 * whole[25]


def test_mistakes_are_named():
  process, fit = processes.edm(), solvers.fit_gaussian(np.eye(3))
  x = jnp.ones((2, 3))
  for call, says in (
    (lambda: solvers.fit_gaussian(np.ones((1, 3))), "at least two"),
    (lambda: solvers.fit_gaussian(np.full((4, 3), np.nan)), "finite"),
    (lambda: solvers.fit_gaussian(np.eye(3), rank=4), "rank"),
    (lambda: solvers.teleport(process, fit, jnp.ones((2, 4)), 1.0), "fitted data"),
    (lambda: solvers.teleport(process, fit, x, 90.0), "from a later time"),
    (lambda: solvers.teleport(process, fit, x, jnp.array([1.0, 5.0]), t_from=3.0), "from a later time"),
  ):
    with pytest.raises(ValueError, match=says):
      call()
