"""Directional derivatives.

Exact ones against closed forms and each other, differences at the order they claim.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.math import directional

WEIGHTS = np.random.default_rng(0).normal(size=(6, 3))


def network(x):
  """Smooth, with every derivative; softplus has no Taylor rule."""
  return jnp.sum(jnp.tanh(jnp.asarray(WEIGHTS, x.dtype) @ x)) + jnp.exp(-jnp.sum(x * x))


def test_polynomials_and_exponentials_in_closed_form(x64):
  x, v = jnp.array([0.3, -0.5, 0.8]), jnp.array([1.0, 2.0, -1.0])
  a = np.array([0.5, -0.2, 0.7])
  slope = float(a @ np.asarray(v))
  value = np.exp(float(a @ np.asarray(x)))
  found = directional.derivatives(lambda x: jnp.exp(jnp.asarray(a) @ x), x, v, 5)
  np.testing.assert_allclose(found, [value * slope**k for k in range(6)], rtol=1e-12)


def test_nested_forward_mode_and_taylor_mode_agree_where_both_work(x64):
  x, v = jnp.array([0.3, -0.5, 0.8]), jnp.array([1.0, 2.0, -1.0])
  nested, taylor, gradient, hessian = jax.jit(
    lambda x: (
      directional.derivatives(network, x, v, 4),
      directional.derivatives(network, x, v, 4, method="jet"),
      jax.grad(network)(x),
      jax.hessian(network)(x),
    )
  )(x)
  np.testing.assert_allclose(nested, taylor, rtol=1e-9)
  np.testing.assert_allclose(nested[1:3], [gradient @ v, v @ hessian @ v], rtol=1e-11)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_differences_have_the_order_they_claim(order, x64):
  """Halving the step divides the error of the highest derivative by four (order 2), observed between 1.9 and
  2.1."""
  x, v = jnp.array([0.3, -0.5, 0.8]), jnp.array([0.6, 0.0, -0.8])
  exact, *found = jax.jit(
    lambda x: (
      directional.derivatives(network, x, v, order),
      *(directional.differences(network, x, v, order, step=h) for h in (0.04, 0.02)),
    )
  )(x)
  errors = np.array([np.abs(np.subtract(one, exact)) for one in found])
  assert 1.9 < np.log2(errors[0, -1] / errors[1, -1]) < 2.1
  lower = errors[:, :-1][:, errors[0, :-1] > 1e-12]
  assert np.all(np.log2(lower[0] / lower[1]) > 1.9)


def test_stencils_are_exact_on_polynomials(x64):
  """Through P points, powers below P and, by symmetry, one more for the highest derivative."""
  one = jnp.ones(())
  for order in range(1, 6):
    for power in range(order + 2):
      found = directional.differences(lambda x, power=power: x**power, 0.0 * one, one, order, step=0.5)
      assert abs(float(found[-1]) - (np.prod(range(1, power + 1)) if power == order else 0.0)) < 1e-9


def test_pytrees_pass_through():
  f = lambda x: {"square": x * x, "sum": jnp.sum(x)}
  x, v = jnp.array([1.0, 2.0]), jnp.array([1.0, 0.0])
  for found in (
    directional.derivatives(f, x, v, 2),
    directional.derivatives(f, x, v, 2, method="jet"),
    directional.differences(f, x, v, 2, step=0.125),
  ):
    np.testing.assert_allclose(found[2]["square"], [2.0, 0.0], atol=1e-4)
    np.testing.assert_allclose(found[1]["sum"], 1.0, rtol=1e-5)


@pytest.mark.parametrize(
  "call,words",
  [
    (lambda x: directional.derivatives(network, x, x, -1), "0 or more"),
    (lambda x: directional.derivatives(network, x, x[:2]), "one shape"),
    (lambda x: directional.derivatives(network, x, x, 1, method="taylor"), "choose one of jvp, jet"),
    (
      lambda x: directional.derivatives(lambda y: jnp.sum(jax.nn.softplus(y)), x, x, 2, method="jet"),
      "use method='jvp'",
    ),
    (lambda x: directional.differences(network, x, x, 0, step=0.1), "order 1 or more"),
    (lambda x: directional.differences(network, x, x, 2, step=0.0), "positive"),
  ],
)
def test_mistakes_raise_a_sentence(call, words):
  with pytest.raises(ValueError, match=words):
    call(jnp.ones(3))
