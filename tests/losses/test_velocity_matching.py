"""Velocity matching between two data sets: what the laws of one data set do not see."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion import denoisers, losses, oracles, processes

FIRST = (np.array([0.4, -0.7]), np.array([[0.6, 0.2], [0.2, 0.3]]))
SECOND = (np.array([-1.0, 1.5]), np.array([[0.3, -0.1], [-0.1, 0.8]]))
PATHS = {
  "linear": processes.linear,
  "bridge": lambda: processes.linear(bridge=0.4),
  "trigonometric": processes.trigonometric,
  "to_data": processes.spherical,
  "to_noise": lambda: processes.linear("data", "normal"),
}
EVERY = pytest.mark.parametrize("name", PATHS)


def oracle(path):
  ends = [
    ([1.0], [end[0]], [end[1]]) if what == "data" else None for end, what in zip((FIRST, SECOND), path.ends)
  ]
  return oracles.path_mixture(path, *ends)


def family(path):
  """The oracle's velocity plus an affine field of x; the truth at zero."""

  def velocity(own, x, t, cond=None):
    del cond
    own = own.astype(x.dtype)
    return oracle(path).velocity(x, t).astype(x.dtype) + x @ own[:2] + own[2][None]

  return losses.roles(model=denoisers.from_functions(jnp.zeros((3, 2)), velocity=velocity))


def batch(path, n, seed=0):
  generator = np.random.default_rng(seed)
  drawn = [jnp.asarray(generator.multivariate_normal(*end, n), jnp.float32) for end in (FIRST, SECOND)]
  data = [x for x, what in zip(drawn, path.ends) if what == "data"]
  return dict(zip(("x", "x1"), data))


@EVERY
def test_the_gradient_at_the_oracle_is_zero_in_expectation(name):
  """Each component within 4.5 standard errors of 8,192 draws at times away from the ends (4e-5 for the 6 of
  a case)."""
  path = PATHS[name]()
  loss = losses.chain(
    losses.velocity_matching(path), losses.at_times(losses.uniform_times(0.1, 0.9), roles=family(path))
  )

  @jax.jit
  def gradients(own):
    values = lambda own: loss.per_example(
      {"model": own, "loss": {}}, loss.init(jax.random.key(0))[1], 0, jax.random.key(4), batch(path, 8192)
    )[0]
    return jax.jacfwd(values)(own).reshape(8192, -1)

  at_truth, off = (
    np.asarray(gradients(own), np.float64) for own in (jnp.zeros((3, 2)), jnp.full((3, 2), 0.5))
  )
  assert np.all(np.abs(at_truth.mean(0)) <= 4.5 * at_truth.std(0) / np.sqrt(8192))
  assert np.any(np.abs(off.mean(0)) > 10 * off.std(0) / np.sqrt(8192))


@EVERY
def test_the_value_is_the_squared_error_of_the_slope(name):
  """Against the slope of x_t in t, taken by forward differentiation of the path itself."""
  path = PATHS[name]()
  objective = losses.velocity_matching(path)
  t = jnp.linspace(0.1, 0.9, 8)
  draw = objective.draw(jax.random.key(1), batch(path, 8), t, {})
  still = denoisers.from_functions(velocity=lambda params, x, t, cond: 0.5 * x)
  placed = objective.place({}, draw)
  slope = jax.jvp(lambda t: path.corrupt(draw.x0, draw.noise, t, draw.x1), (t,), (jnp.ones_like(t),))[1]
  terms = objective({"model": still}, draw)
  np.testing.assert_allclose(terms.interior, np.sum(np.square(0.5 * placed.x_t - slope), axis=1), rtol=1e-4)
  mean = losses.velocity_matching(path, per_dimension=True)({"model": still}, draw)
  np.testing.assert_allclose(mean.interior, terms.interior / 2, rtol=1e-6)


def test_rows_follow_their_index_and_ends_stay_paired():
  path = processes.linear(bridge=0.4)
  objective, data = losses.velocity_matching(path), batch(path, 8)
  whole = objective.draw(jax.random.key(3), data, jnp.full(8, 0.5), {})
  np.testing.assert_array_equal(whole.x0, data["x"])
  np.testing.assert_array_equal(whole.x1, data["x1"])
  rows = np.array([5, 2, 7])
  part = {name: array[rows] for name, array in data.items()} | {"index": jnp.asarray(rows, jnp.int32)}
  again = objective.draw(jax.random.key(3), part, jnp.full(3, 0.5), {})
  for leaf in ("x0", "x1", "noise"):
    np.testing.assert_array_equal(getattr(again, leaf), getattr(whole, leaf)[rows])


def test_misfits_raise_a_sentence():
  objective = losses.velocity_matching(processes.linear())
  x = jnp.zeros((4, 2))
  for call, words in (
    (lambda: losses.velocity_matching(processes.masked(3, (2,))), "that has a velocity"),
    (lambda: losses.velocity_matching(None), "that has a velocity"),
    (lambda: objective.draw(jax.random.key(0), {"x": x}, None, {}), "a dict with 'x' and 'x1'"),
    (lambda: objective.draw(jax.random.key(0), {"x": x, "x1": x[:2]}, None, {}), "paired row by row"),
    (lambda: losses.velocity_matching(processes.edm()).draw(None, x, None, {}), "a dict with 'x'"),
  ):
    with pytest.raises(ValueError, match=words):
      call()
