"""Classifiers between waymarks.

Their optimum is the bridge's own ratio, and many bridges make a time score.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion import denoisers, density_ratio, losses, oracles, processes

SECOND = ([1.0], [[0.7]], [0.25])


def bridge_field(oracle, marks):
  """The exact logit of a bridge over its length, at any time inside of it."""

  def time_score(x, t, cond=None):
    edges = jnp.asarray(marks, t.dtype)
    k = jnp.searchsorted(edges, t) - 1
    return (oracle.log_prob(x, edges[k + 1]) - oracle.log_prob(x, edges[k])) / (edges[k + 1] - edges[k])

  return time_score


@pytest.mark.slow
@pytest.mark.parametrize("num,power", [pytest.param(1, 1.0, marks=pytest.mark.slow), (3, 2.0)])
def test_the_gradient_is_zero_at_the_exact_ratios(num, power):
  """Along the directions 1 and x, within 4.5 standard errors; off the truth it is far from zero."""
  path, size = processes.spherical(), 8192
  oracle = oracles.path_mixture(path, None, SECOND)
  marks = (np.arange(num + 1) / num) ** power
  field = bridge_field(oracle, marks)
  objective = losses.telescoping_ratio(path, num, power=power)
  x = 0.7 + 0.5 * jax.random.normal(jax.random.key(0), (size, 1))
  t = jax.random.uniform(jax.random.key(1), (size,))
  draw = objective.draw(jax.random.key(2), {"x": x}, t, {})

  @jax.jit
  @jax.jacfwd
  def rows(shift):
    off = lambda own, x, t, cond: field(x, t) + shift[0] + shift[1] * x[:, 0]
    return objective({"model": denoisers.from_functions(time_score=off)}, draw).interior

  slope = np.asarray(rows(jnp.zeros(2)), np.float64)
  assert np.all(np.abs(slope.mean(0)) < 4.5 * slope.std(0) / np.sqrt(size))
  off = np.asarray(rows(jnp.array([0.5, 0.5])), np.float64)
  assert np.any(np.abs(off.mean(0)) > 10 * off.std(0) / np.sqrt(size))
  ratio = density_ratio.log_ratio(field, path, x[:5], nodes=density_ratio.bridges(path, num, power=power))
  np.testing.assert_allclose(
    ratio, oracle.log_prob(x[:5], jnp.ones(5)) - oracle.log_prob(x[:5], jnp.zeros(5)), atol=1e-4
  )


def test_the_logit_over_the_length_becomes_the_time_score_to_second_order(x64):
  path = processes.trigonometric("normal", "data")
  oracle = oracles.path_mixture(path, None, SECOND)
  x, t = jnp.linspace(-1.0, 2.0, 7)[:, None], jnp.full(7, 0.5)
  error = jax.jit(
    lambda h: jnp.max(
      jnp.abs(bridge_field(oracle, jnp.stack([0.5 - h, 0.5 + h]))(x, t) - oracle.time_score(x, t))
    )
  )
  errors = [error(h) for h in (0.02, 0.01)]
  assert abs(np.log2(errors[0] / errors[1]) - losses.telescoping_ratio(path, 8).bias_order) < 0.02


def test_misfits_raise_a_sentence():
  for build, words in (
    (lambda: losses.telescoping_ratio(processes.linear(), 0), "at least one bridge"),
    (lambda: losses.telescoping_ratio(None, 2), "densities that change"),
    (lambda: losses.telescoping_ratio(processes.linear(), 2, power=-1.0), "positive power"),
  ):
    with pytest.raises(ValueError, match=words):
      build()
