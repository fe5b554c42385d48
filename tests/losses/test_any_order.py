"""Autoregression in an order of chance: it is the masked cross-entropy of a model without time."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion import denoisers, losses, processes
from losses import enumerated

K, D = 3, 5
JOINT = enumerated.joint(D, K)


@functools.cache
def process():
  return processes.masked(K, (D,), t_min=0.0)


def elsewhere():
  return np.random.default_rng(4).normal(size=((K + 1) ** D, D, K))


def exact():
  return np.log(np.maximum(enumerated.posterior(JOINT, enumerated.masking(0.5, K)), 1e-300))


@functools.cache
def programs():
  return tuple(
    enumerated.expected(make(process()), process(), K + 1)
    for make in (losses.masked_cross_entropy, losses.any_order_autoregression)
  )


def masked_bound(logits):
  """The integral over all times, exact: of degree D - 1 in t."""
  total = 0.0
  for t, w in zip(*enumerated.integral(3)):
    x0, x_t, weights = enumerated.pairs(JOINT, enumerated.masking(t, K))
    found = programs()[0](jnp.asarray(logits), enumerated.placed(t, x0, x_t), jnp.asarray(w * weights))
    total = jax.tree.map(lambda a, b: a + b, found, total) if total else found
  return total


def any_order(logits):
  """The mean over orders and positions: over the number of masks and where they are."""
  x0, x_t, _ = enumerated.pairs(JOINT, enumerated.masking(0.5, K))
  hidden = x_t == K
  count = hidden.sum(1)
  x0, hidden, count = x0[count > 0], hidden[count > 0], count[count > 0]
  weights = JOINT[tuple(x0.T)] / np.array([D * math.comb(D, n) for n in count])
  draw = losses.Draw(t=jnp.asarray((count - 0.5) / D), x0=jnp.asarray(x0), noise=jnp.asarray(1.0 - hidden))
  placed = losses.any_order_autoregression(process()).place({}, draw)
  np.testing.assert_array_equal(placed.x_t == K, hidden)
  return programs()[1](jnp.asarray(logits), placed, jnp.asarray(weights))


def test_a_model_without_time_has_one_value_and_gradient_under_both(x64):
  """Exact, over all states and masks of 5 coordinates of 3 values; at the posterior it is the entropy."""
  away = elsewhere()
  for logits in (away, exact()):
    (masked, masked_slope), (any_order_, slope) = masked_bound(logits), any_order(logits)
    np.testing.assert_allclose(any_order_, masked, rtol=1e-12)
    np.testing.assert_allclose(slope, masked_slope, rtol=1e-9, atol=1e-12)
  np.testing.assert_allclose(any_order_, enumerated.entropy(JOINT), atol=1e-10)
  np.testing.assert_allclose(slope, 0.0, atol=1e-12)
  assert np.abs(any_order(away)[1]).max() > 1e-3


def test_the_number_of_masks_follows_the_time_and_is_even_under_stratified_times():
  of = processes.masked(K, (D,))
  objective = losses.any_order_autoregression(of)
  t = losses.low_discrepancy(losses.uniform_times(of.t_min, of.t_max)).sample(jax.random.key(0), 4 * D)
  draw = objective.draw(jax.random.key(1), {"x": jnp.zeros((4 * D, D), jnp.int32)}, t, {})
  placed = objective.place({}, draw)
  count = np.sum(np.asarray(placed.x_t == of.mask), axis=1)
  assert np.bincount(count, minlength=D + 1).tolist() == [0, *[4] * D]
  # The time that is told is one at which these coordinates, and no others, are masked.
  np.testing.assert_array_equal(of.corrupt(draw.x0, draw.noise, placed.t + 1e-6), placed.x_t)


def test_misfits_raise_a_sentence():
  roles = losses.roles(model=denoisers.from_functions(logits=jnp.sin))
  for call, words in (
    (lambda: losses.any_order_autoregression(processes.uniform_resample(3)), "ends in masks"),
    (
      lambda: losses.chain(
        losses.any_order_autoregression(process()),
        losses.at_times(losses.uniform_times(0.1, 0.9), roles=roles),
      ),
      "integrates over times",
    ),
  ):
    with pytest.raises(ValueError, match=words):
      call()
