"""Averages by power functions: their closed forms, and what sums of stored ones are worth."""

import functools
import itertools
from fractions import Fraction

import numpy as np
import pytest

from diffusion.run import posthoc

STORED = tuple(posthoc.power_gamma(one) for one in (0.05, 0.10))


def stored(count, total=64.0):
  """(steps, gammas) of two averages at `count` equally spaced steps, the last of which is `total`."""
  steps = np.repeat(total * np.arange(1, count + 1) / count, 2)
  return steps, np.tile(STORED, count)


nodes = functools.cache(np.polynomial.legendre.leggauss)


def quadrature(values, upto, points=100):
  """The integral from 0 to `upto` by Gauss and Legendre: exact for polynomials of degree 2 points - 1."""
  node, weight = nodes(points)
  return upto / 2 * np.sum(weight * values(upto / 2 * (node + 1)))


@pytest.mark.parametrize("length", [1e-4, 0.01, 0.05, 0.1, 0.1234, 0.25, 0.2886, posthoc.LONGEST])
def test_power_and_length_are_inverse(length):
  gamma = posthoc.power_gamma(length)
  assert gamma >= 0
  np.testing.assert_allclose(posthoc.sigma_rel(gamma), length, rtol=1e-12)


@pytest.mark.parametrize("gamma", [0, 1, 3, 7, 17])
def test_length_is_the_deviation_of_the_profile(gamma):
  """Mean (gamma+1)/(gamma+2) and deviation of the density, by quadrature; and the power back from it."""
  step = 7.0
  moment = lambda k: quadrature(lambda tau: tau**k * posthoc.profile(tau, step, gamma), step)
  np.testing.assert_allclose(moment(0), 1.0, rtol=1e-10)
  np.testing.assert_allclose(moment(1), step * (gamma + 1) / (gamma + 2), rtol=1e-10)
  deviation = quadrature(lambda tau: (tau - moment(1)) ** 2 * posthoc.profile(tau, step, gamma), step)
  np.testing.assert_allclose(np.sqrt(deviation) / step, posthoc.sigma_rel(gamma), rtol=1e-9)
  np.testing.assert_allclose(
    posthoc.power_gamma(float(posthoc.sigma_rel(gamma))), gamma, rtol=1e-8, atol=1e-8
  )


@pytest.mark.parametrize("length", [0.0, -0.1, 9e-5, 0.2887, 1.0, float("nan")])
def test_lengths_out_of_range(length):
  with pytest.raises(ValueError, match="from 0.0001 to 0.2887"):
    posthoc.power_gamma(length)


@pytest.mark.parametrize("gamma", [0, 1, 3, 7])
def test_the_running_average_is_the_explicit_sum(gamma):
  """theta_hat(t) = beta(t) theta_hat(t-1) + (1 - beta(t)) theta(t) with beta(t) = (1 - 1/t)^(gamma+1), from
  any start, is the sum of w(tau) theta(tau) with the profile's share of each step: exactly, in fractions."""
  generator = np.random.default_rng(0)
  theta = [Fraction(int(number), 64) for number in generator.integers(-500, 500, 12)]
  running = Fraction(17)
  for t, value in enumerate(theta, 1):
    beta = (1 - Fraction(1, t)) ** (gamma + 1)
    running = beta * running + (1 - beta) * value
    share = [
      Fraction(tau ** (gamma + 1) - (tau - 1) ** (gamma + 1), t ** (gamma + 1)) for tau in range(1, t + 1)
    ]
    assert sum(share) == 1
    assert running == sum(weight * one for weight, one in zip(share, theta))
    integrals = [
      quadrature(lambda x, tau=tau: posthoc.profile(tau - 1 + x, t, gamma), 1.0, 8) for tau in range(1, t + 1)
    ]
    np.testing.assert_allclose(integrals, [float(one) for one in share], rtol=1e-12)


@pytest.mark.parametrize("gamma", STORED)
def test_the_running_average_is_the_explicit_sum_for_any_power(gamma):
  """The same in float64 for the powers of lengths 0.05 and 0.1, to rounding; and the sum of weights
  proportional to tau^gamma is its limit for long runs, at first order in 1/t."""
  theta = np.random.default_rng(1).normal(size=50)
  running = 3.0
  for t, value in enumerate(theta, 1):
    beta = (1 - 1 / t) ** (gamma + 1)
    running = beta * running + (1 - beta) * value
  tau = np.arange(51) / 50
  weights = np.diff(tau ** (gamma + 1))
  np.testing.assert_allclose(running, weights @ theta, rtol=1e-13)

  def apart(total):
    tau = np.arange(total + 1) / total
    plain = tau[1:] ** gamma
    return np.abs(np.diff(tau ** (gamma + 1)) - plain / plain.sum()).sum()

  np.testing.assert_allclose(apart(1000) / apart(2000), 2.0, rtol=0.02)


def test_gram_is_the_integral_of_the_products():
  steps, gammas = np.array([1.0, 2.5, 2.5, 9.0]), np.array([0.0, 3.3, 17.0, 6.9])
  others, powers = np.array([2.5, 4.0, 9.0]), np.array([3.3, 0.0, 1.2])
  found = posthoc.gram(steps, gammas, others, powers)
  expected = [
    [
      quadrature(lambda tau: posthoc.profile(tau, t, g) * posthoc.profile(tau, u, h), min(t, u))
      for u, h in zip(others, powers)
    ]
    for t, g in zip(steps, gammas)
  ]
  np.testing.assert_allclose(found, expected, rtol=1e-7)
  own = posthoc.gram(steps, gammas, steps, gammas)
  np.testing.assert_array_equal(own, own.T)
  assert np.linalg.eigvalsh(own).min() > 0


@pytest.mark.parametrize("count", [1, 5, 64])
@pytest.mark.parametrize("which", [0, 1])
def test_a_stored_profile_is_itself(count, which):
  steps, gammas = stored(count)
  found = posthoc.combine(steps, gammas, steps[-1], gammas[-2 + which])
  expected = np.zeros(2 * count)
  expected[-2 + which] = 1
  np.testing.assert_allclose(found.weights, expected, atol=1e-9)
  assert found.error < 1e-7


@pytest.mark.parametrize("length", [0.03, 0.075, 0.15, 0.2])
def test_the_sum_is_the_nearest_of_total_one(length):
  """The error is that of the profiles by quadrature, and grows in every direction that keeps the total."""
  steps, gammas = stored(6)
  gamma = posthoc.power_gamma(length)
  found = posthoc.combine(steps, gammas, 64.0, gamma)
  np.testing.assert_allclose(found.weights.sum(), 1.0, rtol=1e-12)

  def error(weights):
    """Piece by piece, for the profiles jump where they end."""
    total, edges = 0.0, np.unique([0.0, *steps])
    for low, high in itertools.pairwise(edges):
      inside = lambda x, low=low, high=high: (
        (
          weights
          @ (posthoc.profile(low + x[None], steps[:, None], gammas[:, None]) * (steps[:, None] >= high))
          - posthoc.profile(low + x, 64.0, gamma)
        )
        ** 2
      )
      total += quadrature(inside, high - low)
    return np.sqrt(total / quadrature(lambda x: posthoc.profile(x, 64.0, gamma) ** 2, 64.0))

  np.testing.assert_allclose(found.error, error(found.weights), rtol=1e-6)
  for direction in np.random.default_rng(0).normal(size=(20, len(steps))):
    direction -= direction.mean()
    assert error(found.weights + 1e-3 * direction) > found.error


def mixture(count, gamma, total=64.0):
  """(error, total) of a sum that needs no solving, for powers below the stored g: a bound on the nearest.

  p(tau; T, gamma) = c p(tau; T, g) + the integral over t <= T of a t^gamma p(tau; t, g), where c is
  (gamma+1)/(g+1) and a is (1-c) (gamma+1) / T^(gamma+1): integrate over t from tau to T. The weight of each t
  goes to the next snapshot.
  """
  (g, _), (steps, gammas) = STORED, stored(count, total)
  share = (gamma + 1) / (g + 1)
  weights = np.zeros(2 * count)
  weights[::2] = (1 - share) * np.diff((np.arange(count + 1) / count) ** (gamma + 1))
  weights[-2] += share
  inner, across = (
    posthoc.gram(steps, gammas, steps, gammas),
    posthoc.gram(steps, gammas, [total], [gamma])[:, 0],
  )
  square = posthoc.gram([total], [gamma], [total], [gamma])[0, 0]
  return np.sqrt((square - 2 * weights @ across + weights @ inner @ weights) / square), weights.sum()


@pytest.mark.parametrize("length", [0.06, 0.075, 0.15, 0.2, 0.25, 0.28])
def test_more_snapshots_come_nearer_and_as_near_as_a_mixture(length):
  gamma = posthoc.power_gamma(length)
  errors = []
  for count in (1, 2, 4, 8, 16, 32, 64):
    found = posthoc.combine(*stored(count), 64.0, gamma)
    bound, total = mixture(count, gamma)
    np.testing.assert_allclose(total, 1.0, rtol=1e-12)
    assert found.error <= bound
    errors.append(found.error)
  assert all(later < earlier for earlier, later in itertools.pairwise(errors))
  assert mixture(64, gamma)[0] < 0.25 * mixture(2, gamma)[0]


def test_lengths_between_the_stored_ones_converge_at_second_order():
  """With n snapshots the error is about 1/n^2: a jump at the end would make it 1/sqrt(n)."""
  errors = {
    count: posthoc.combine(*stored(count), 64.0, posthoc.power_gamma(0.075)).error for count in (16, 32, 64)
  }
  np.testing.assert_allclose(np.log2(errors[16] / errors[32]), 2.0, atol=0.1)
  np.testing.assert_allclose(np.log2(errors[32] / errors[64]), 2.0, atol=0.1)


def test_nothing_depends_on_the_unit_of_the_steps():
  few, many = (posthoc.combine(*stored(9, total), total, 3.0) for total in (9.0, 9e6))
  np.testing.assert_allclose(few.weights, many.weights, rtol=1e-9, atol=1e-12)
  assert posthoc.reach(*stored(9, 9.0), 9.0) == posthoc.reach(*stored(9, 9e6), 9e6)


def test_what_is_within_reach_is_near_and_grows():
  spans = [posthoc.reach(*stored(count), 64.0) for count in (2, 8, 32)]
  for (low, high), count in zip(spans, (2, 8, 32)):
    for length in (low, high):
      assert posthoc.combine(*stored(count), 64.0, posthoc.power_gamma(length)).error <= posthoc.NEAR
  assert spans[0][0] > spans[1][0] > spans[2][0] and spans[0][1] < spans[1][1] < spans[2][1]
