"""The oracle of a path: density against sampling, scores against automatic differentiation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion import oracles, processes

FIRST = ([0.3, 0.7], [[-1.0, 0.5], [1.5, 0.0]], [[[0.5, 0.2], [0.2, 0.3]], [0.4, 0.2]])
SECOND = ([0.6, 0.4], [[0.0, -1.0], [0.5, 2.0]], [0.3, [[0.6, -0.3], [-0.3, 0.4]]])
ORACLES = {
  "linear": lambda: oracles.path_mixture(processes.linear(), FIRST, SECOND),
  "bridge": lambda: oracles.path_mixture(processes.linear(bridge=0.5), FIRST, SECOND),
  "spherical": lambda: oracles.path_mixture(processes.spherical("data", "data"), FIRST, SECOND),
  "to_data": lambda: oracles.path_mixture(processes.spherical(), None, SECOND),
  "diffusion": lambda: oracles.path_mixture(processes.subvp(), FIRST),
}


@pytest.mark.parametrize("name", ORACLES)
def test_scores_are_the_derivatives_of_the_density(name, x64):
  oracle = ORACLES[name]()
  x = jnp.asarray(np.random.default_rng(0).normal(size=(6, 2)))
  t = jnp.linspace(0.05, 0.95, 6)

  @jax.jit
  def both(x, t):
    one = lambda x, t: oracle.log_prob(x[None], t[None])[0]
    slopes = jax.vmap(jax.grad(one, (0, 1)))(x, t)
    return slopes, (oracle.score(x, t), oracle.time_score(x, t))

  slopes, given = both(x, t)
  np.testing.assert_allclose(given[0], slopes[0], rtol=1e-9, atol=1e-11)
  np.testing.assert_allclose(given[1], slopes[1], rtol=1e-9, atol=1e-11)


def test_the_density_is_normalised_and_that_of_the_samples():
  oracle = ORACLES["bridge"]()
  line = np.linspace(-7.0, 7.0, 141)
  grid = np.stack(np.meshgrid(line, line), -1).reshape(-1, 2)
  log_prob = jax.jit(oracle.log_prob)(jnp.asarray(grid, jnp.float32), jnp.full(grid.shape[:1], 0.4))
  mass = np.exp(np.asarray(log_prob, np.float64)) * (line[1] - line[0]) ** 2
  assert abs(mass.sum() - 1.0) < 1e-4
  mean = mass @ grid
  cov = np.einsum("n,nd,ne->de", mass, grid - mean, grid - mean)
  drawn = np.asarray(jax.jit(oracle.sample, static_argnums=1)(jax.random.key(1), 20_000, 0.4), np.float64)
  np.testing.assert_allclose(drawn.mean(0), mean, atol=4.5 * np.sqrt(np.diag(cov).max() / 20_000))
  np.testing.assert_allclose(np.cov(drawn.T), cov, atol=0.05)


@pytest.mark.slow
def test_a_diffusion_has_the_mixture_oracle_of_its_process(x64):
  process = processes.vp_linear()
  plain = oracles.gaussian_mixture(process, *FIRST[:2], [np.array(FIRST[2][0]), np.diag(FIRST[2][1])])
  oracle = oracles.path_mixture(process, FIRST)
  x, t = jnp.asarray(np.random.default_rng(1).normal(size=(4, 2))), jnp.linspace(0.1, 1.0, 4)
  np.testing.assert_allclose(oracle.log_prob(x, t), plain.log_prob(x, t), rtol=1e-10)
  np.testing.assert_allclose(oracle.time_score(x, t), plain.time_score(x, t), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
  "build,words",
  [
    (lambda: oracles.path_mixture(processes.linear(), FIRST), "second end of linear is data"),
    (
      lambda: oracles.path_mixture(processes.spherical(), FIRST, SECOND),
      "first end of spherical is a standard normal",
    ),
    (lambda: oracles.path_mixture(processes.linear(), FIRST, ([1.0], [[0.0]], [1.0])), "means"),
    (
      lambda: oracles.path_mixture(processes.through(processes.linear(), jnp.log, jnp.exp), FIRST, SECOND),
      "no map",
    ),
    (lambda: oracles.path_mixture(None, FIRST), "densities that change smoothly"),
  ],
)
def test_what_does_not_fit_raises_a_sentence(build, words):
  with pytest.raises(ValueError, match=words):
    build()


@pytest.mark.parametrize("name", ORACLES)
def test_the_velocity_carries_the_density(name, x64):
  """The continuity equation d/dt log p = -div v - v . score; x_t and its slope from the posterior means."""
  oracle = ORACLES[name]()
  path = oracle.process
  x = jnp.asarray(np.random.default_rng(2).normal(size=(6, 2)))
  t = jnp.linspace(0.1, 0.9, 6)
  one = lambda x, t: oracle.velocity(x[None], t[None])[0]
  views = ("velocity", "score", "time_score", *path.parts)

  @jax.jit
  def answers(x, t):
    slopes = jax.vmap(jax.jacfwd(one))(x, t)
    return oracle(x, t, views=views).views, jnp.trace(slopes, axis1=1, axis2=2), path.blend(t)

  found, divergence, blend = jax.tree.map(np.asarray, answers(x, t))
  carried = -divergence - np.sum(found["velocity"] * found["score"], axis=1)
  np.testing.assert_allclose(found["time_score"], carried, rtol=1e-9, atol=1e-11)
  root = np.sqrt(blend.variance)
  slope = 0.5 * blend.d_variance / np.where(root > 0, root, 1.0)
  numbers = {"x0": (blend.first, blend.d_first), "x1": (blend.second, blend.d_second), "eps": (root, slope)}
  for which, whole in ((0, x), (1, found["velocity"])):
    parts = sum(numbers[part][which][:, None] * found[part] for part in path.parts)
    np.testing.assert_allclose(parts, whole, rtol=1e-9, atol=1e-10)
