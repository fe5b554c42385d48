"""What each kernel leaves invariant.

By its own linear map on a Gaussian, by its moments on a mixture, and its order against the others.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion import mcmc, oracles, processes
from diffusion.math import symmetric
from diffusion.mcmc.ozaki import factors, relative

MEAN, COVARIANCE = np.array([0.3, -0.5]), np.array([[0.5, 0.3], [0.3, 0.4]])
PRECISION = np.linalg.inv(COVARIANCE)
FULL = lambda x: jnp.broadcast_to(jnp.asarray(-PRECISION, x.dtype)[None], (x.shape[0], 2, 2))
SCORE = lambda x: -(x - jnp.asarray(MEAN, x.dtype)[None]) @ jnp.asarray(PRECISION, x.dtype)


def affine(kernel, x64=True):
  """(A, b, L L^T) of a step x -> A x + b + L z that is affine in x and z."""
  keys = jax.random.split(jax.random.key(0), 3)
  z = np.asarray(
    mcmc.langevin(lambda x: 0.0 * x, 1.0).step(mcmc.langevin(jnp.sin, 1.0).init(jnp.zeros((3, 2))), keys)[0].x
  )
  step = lambda x: kernel.step(kernel.init(x), keys)[0].x
  slope = jax.jacfwd(lambda one: step(jnp.broadcast_to(one[None], (3, 2)))[0])(jnp.zeros(2))
  found = np.linalg.solve(np.concatenate([z, np.ones((3, 1))], 1), np.asarray(step(jnp.zeros((3, 2)))))
  return np.asarray(slope), found[2], found[:2].T @ found[:2]


@pytest.mark.parametrize("form", ["full", "low rank", "diagonal"])
@pytest.mark.parametrize("step_size", [1e-7, 0.3, 5.0, 1e4])
def test_ozaki_leaves_a_gaussian_as_it_is_at_any_step_size(form, step_size, x64):
  """A S A^T + L L^T = S and A m + b = m, to 1e-9."""
  covariance = COVARIANCE if form != "diagonal" else np.diag(np.diag(COVARIANCE))
  precision = np.linalg.inv(covariance)
  score = lambda x: -(x - jnp.asarray(MEAN)[None]) @ jnp.asarray(precision)
  values, vectors = np.linalg.eigh(-precision)
  hessian = {
    "full": lambda x: jnp.broadcast_to(jnp.asarray(-precision)[None], (x.shape[0], 2, 2)),
    "diagonal": lambda x: symmetric.Diagonal(
      jnp.broadcast_to(jnp.asarray(np.diag(-precision))[None], x.shape)
    ),
    "low rank": lambda x: symmetric.LowRank(
      jnp.full(x.shape, values[1]),
      jnp.broadcast_to(np.sqrt(values[1] - values[0]) * vectors[:, :1][None], (x.shape[0], 2, 1)),
      (-1,),
    ),
  }[form]
  slope, offset, spread = affine(mcmc.ozaki(score, hessian, step_size))
  np.testing.assert_allclose(slope @ covariance @ slope.T + spread, covariance, atol=1e-9)
  np.testing.assert_allclose(slope @ MEAN + offset, MEAN, atol=1e-9)
  expected = vectors @ np.diag(np.exp(0.5 * step_size * values)) @ vectors.T  # the flow of the mean, exactly
  np.testing.assert_allclose(slope, expected, atol=1e-9)


def test_langevin_has_the_variance_that_it_says(x64):
  """v / (1 - h / (4 v)) in each eigendirection of a Gaussian is the fixed point of its step."""
  step_size = 0.2
  slope, offset, spread = affine(mcmc.langevin(SCORE, step_size))
  values, vectors = np.linalg.eigh(COVARIANCE)
  biased = vectors @ np.diag(values / (1 - step_size / (4 * values))) @ vectors.T
  np.testing.assert_allclose(slope @ biased @ slope.T + spread, biased, atol=1e-12)
  np.testing.assert_allclose(slope @ MEAN + offset, MEAN, atol=1e-12)


RING = oracles.gaussian_mixture(processes.edm(), None, [[1.5, 0.0], [-1.5, 0.3]], [[0.3, 0.1], [0.2, 0.5]])


def test_ozaki_tends_to_langevin(x64):
  """With the same noise the difference is of order h^(3/2) on a mixture: halving h divides it by 2.83, within
  3%."""
  ring = oracles.gaussian_mixture(processes.edm(), None, [[1.5, 0.0], [-1.5, 0.3]], [[0.3, 0.1], [0.2, 0.5]])
  score, hessian = mcmc.at_time(ring.score, 0.1), mcmc.at_time(ring.hessian, 0.1)
  x, keys = jnp.array([[1.0, 0.4], [0.0, 0.1], [-1.4, 0.9]]), jax.random.split(jax.random.key(1), 3)

  @jax.jit
  def gap(step_size):
    one, other = mcmc.ozaki(score, hessian, step_size), mcmc.langevin(score, step_size)
    return jnp.linalg.norm(one.step(one.init(x), keys)[0].x - other.step(other.init(x), keys)[0].x)

  gaps = [float(gap(jnp.asarray(h))) for h in (4e-4, 2e-4, 1e-4)]
  np.testing.assert_allclose(np.log2(np.array(gaps[:-1]) / gaps[1:]), 1.5, atol=0.05)


def test_the_guard_cuts_growth_and_says_so():
  eigenvalues = jnp.array([[-50.0, 0.0, 5.0, 1e4]])
  drift, spread, cut = factors(eigenvalues, jnp.float32(0.5), jnp.float32(1.0))
  assert cut.tolist() == [[False, False, True, True]]
  np.testing.assert_allclose(
    drift[0, 1:], [0.25, 0.5 * np.expm1(0.5), 0.5 * np.expm1(0.5)], rtol=1e-6
  )  # as at l = growth / h
  np.testing.assert_allclose(spread[0, 2:], np.sqrt(0.5 * np.expm1(1.0)), rtol=1e-6)
  kernel = mcmc.ozaki(lambda x: 0.0 * x, lambda x: symmetric.Diagonal(jnp.full_like(x, 1e4)), 0.5)
  done = mcmc.run(kernel, jnp.zeros((2, 2)), jax.random.key(0), 5)
  np.testing.assert_array_equal(done.info["guarded"], [1.0, 1.0])
  assert np.abs(done.x).max() < 20.0


def test_the_relative_exponential_keeps_its_digits():
  u = np.concatenate([s * np.logspace(-8, 1.5, 200) for s in (-1, 1)])
  np.testing.assert_allclose(relative(jnp.asarray(u, jnp.float32)), np.expm1(u) / u, rtol=1e-6)
  assert np.isfinite(jax.vmap(jax.grad(relative))(jnp.array([0.0, 1e-6, 1.0]))).all()


@functools.cache
def moved(name):
  """(start, end, accepted) of 8000 chains that start from the mixture itself."""
  start = RING.sample(jax.random.key(3), 8000, t=0.1)
  step_size = 0.35
  kernel = (
    mcmc.mala(mcmc.at_time(RING.log_prob, 0.1), step_size)
    if name == "mala"
    else mcmc.langevin(mcmc.at_time(RING.score, 0.1), step_size)
  )
  done = mcmc.run(kernel, start, jax.random.key(4), 30)
  return np.asarray(start, np.float64), np.asarray(done.x, np.float64), done.info


def z_scores(start, end):
  """Of the differences of the means of x, x^2 and sign(x_0), in standard errors of two independent samples.

  The ends are correlated with the starts, if at all, positively, so these are at most the true ones."""
  features = lambda x: np.concatenate([x, x**2, x[:, :1] * x[:, 1:], np.sign(x[:, :1])], 1)
  a, b = features(start), features(end)
  return (a.mean(0) - b.mean(0)) / np.sqrt((a.var(0) + b.var(0)) / len(a))


@pytest.mark.slow
def test_mala_leaves_the_target_as_it_is_and_langevin_does_not():
  """Six moments within 4.5 standard errors (4e-5 in all), where ULA at the same step is off by more than 10
  in one."""
  start, end, info = moved("mala")
  assert np.abs(z_scores(start, end)).max() < 4.5
  accepted = float(info["accepted"].mean())
  assert 0.4 < accepted < 0.95 and np.mean(np.any(start != end, axis=1)) > 0.99
  start, end, _ = moved("langevin")
  assert np.abs(z_scores(start, end)).max() > 10.0


def test_a_proposal_without_a_density_is_refused():
  wall = lambda x: jnp.where(x[:, 0] > 0.0, -x[:, 0], jnp.nan)
  done = mcmc.run(mcmc.mala(wall, 1.0), jnp.full((200, 1), 0.5), jax.random.key(0), 50, thin=1)
  assert np.all(done.samples > 0.0) and done.info["accepted"].mean() > 0.2


def test_arrays_of_a_target_are_data():
  """Another oracle of the same shapes is the same program."""
  kernels = [
    mcmc.langevin(mcmc.at_time(oracles.gaussian(processes.edm(), [float(c)], 1.0).score, 0.3), 0.1)
    for c in (0, 5)
  ]
  first, second = (jax.tree.structure(kernel) for kernel in kernels)
  assert first == second and len(jax.tree.leaves(kernels[0])) > 2


@pytest.mark.parametrize(
  "build,error,words",
  [
    (lambda: mcmc.langevin(SCORE, 0.0), ValueError, "positive step_size"),
    (lambda: mcmc.mala(lambda x: x, -1.0), ValueError, "positive step_size"),
    (lambda: mcmc.ozaki(SCORE, FULL, 0.1, growth=0.0), ValueError, "growth > 0"),
    (lambda: mcmc.langevin(3.0, 0.1), TypeError, "a function of x"),
    (
      lambda: mcmc.run(mcmc.ozaki(SCORE, lambda x: x, 0.1), jnp.zeros((2, 2)), jax.random.key(0), 3),
      ValueError,
      r"\[B, 2, 2\]",
    ),
  ],
)
def test_mistakes_raise_a_sentence(build, error, words):
  with pytest.raises(error, match=words):
    build()
