"""Masking with an exponent for each value: the bound, and its gradient without bias."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion import losses, processes
from losses import enumerated

K, D = 3, 2
JOINT = enumerated.joint(D, K, seed=3)
EXPONENTS = np.array([0.6, 1.0, 2.3])
CLEAN = enumerated.states(K, D)
HIDDEN = np.array(list(itertools.product([False, True], repeat=D)))
PROCESS = processes.masked(K, (D,), t_min=0.0)
OBJECTIVE = losses.generalised_masked_cross_entropy(PROCESS)


def transition(t, w):
  masked = t**w
  return np.concatenate([np.diag(1 - masked), masked[:, None]], axis=1)


def schedule(w):
  return losses.value_exponents(w, K)


def value(logits, log_w, placed, weights):
  own = schedule(1.0).with_params({"log_exponents": log_w})
  roles = {"model": enumerated.tabular(PROCESS, logits, K + 1), "schedule": own}
  return jnp.sum(weights * OBJECTIVE.evaluate(roles, placed, {}, {}, losses.START).interior)


VALUE = jax.jit(value)


def single(t, w):
  """Every (x_0, x_t), with twice the same draw, so that nothing is left for the baseline."""
  x0, x_t, weights = enumerated.pairs(JOINT, transition(t, w))
  return enumerated.placed(t, x0, x_t, second=jnp.asarray(x_t)), jnp.asarray(weights)


def bound(logits_at, w):
  nodes, weights = enumerated.smooth_integral(40)
  return sum(
    float(dt * VALUE(jnp.asarray(logits_at(t)), jnp.log(w), *single(t, w))) for t, dt in zip(nodes, weights)
  )


@pytest.mark.parametrize("w", [np.ones(K), EXPONENTS])
def test_at_the_exact_posterior_the_bound_is_the_entropy_whatever_the_exponents(w, x64):
  """To 1e-5 nats; a posterior that belongs to other exponents is above."""
  logits = lambda t, w: np.log(np.maximum(enumerated.posterior(JOINT, transition(t, w)), 1e-300))
  assert abs(bound(lambda t: logits(t, w), w) - enumerated.entropy(JOINT)) < 1e-5
  other = bound(lambda t: logits(t, EXPONENTS[::-1]), w)
  assert other > enumerated.entropy(JOINT) + 0.01


def test_exponents_of_one_are_the_masked_cross_entropy(x64):
  logits = jnp.asarray(np.random.default_rng(0).normal(size=((K + 1) ** D, D, K)))
  placed, weights = single(0.4, np.ones(K))
  plain = enumerated.expected(losses.masked_cross_entropy(PROCESS), PROCESS, K + 1)(logits, placed, weights)
  np.testing.assert_allclose(VALUE(logits, jnp.zeros(K), placed, weights), plain[0], rtol=1e-12)


def test_the_gradient_of_the_exponents_has_no_bias(x64):
  """Over all pairs of masks at one time: the mean gradient is that of the mean value, for both roles."""
  t, logits = 0.4, jnp.asarray(np.random.default_rng(1).normal(size=((K + 1) ** D, D, K)))
  rows = np.array(list(itertools.product(range(len(CLEAN)), range(4), range(4))))
  x0, first, second = CLEAN[rows[:, 0]], HIDDEN[rows[:, 1]], HIDDEN[rows[:, 2]]
  p0 = jnp.asarray(JOINT[tuple(x0.T)])
  hide = lambda hidden: np.where(hidden, K, x0)
  placed = enumerated.placed(t, x0, hide(first), second=jnp.asarray(hide(second)))

  def q(log_w, hidden):
    masked = jnp.exp(jnp.exp(log_w)[x0] * np.log(t))
    return jnp.prod(jnp.where(hidden, masked, 1.0 - masked), axis=1)

  log_w = jnp.log(EXPONENTS)
  weights = p0 * q(log_w, first) * q(log_w, second)
  slopes = jax.jit(jax.grad(value, argnums=(0, 1)))
  estimated = slopes(logits, log_w, placed, weights)
  # The mean value itself, the chances of the masks differentiated too; each value with itself as baseline.
  same = enumerated.placed(t, x0, hide(first), second=jnp.asarray(hide(first)))
  mean = lambda logits, log_w: value(logits, log_w, same, p0 * q(log_w, first) / 4.0)
  for found, exact in zip(estimated, jax.jit(jax.grad(mean, argnums=(0, 1)))(logits, log_w)):
    np.testing.assert_allclose(found, exact, atol=1e-12)
    assert np.abs(exact).max() > 1e-3
  # Without the score function the gradient of the exponents would be another.
  alone = slopes(logits, log_w, same, p0 * q(log_w, first) / 4.0)[1]
  assert np.abs(alone - estimated[1]).max() > 1e-3


@pytest.mark.slow
def test_rows_and_draws_follow_the_exponents():
  """Each value is masked as often as its exponent says: within 4.5 standard errors."""
  objective, n = OBJECTIVE, 4000
  x0 = jnp.asarray(np.tile([[0, 2]], (n, 1)), jnp.int32)
  draw = objective.draw(jax.random.key(0), {"x": x0}, jnp.full(n, 0.5), {})
  placed = objective.place({"schedule": schedule(EXPONENTS)}, draw)
  for x_t in (placed.x_t, placed.targets["second"]):
    share, p = np.asarray(x_t == K).mean(0), 0.5 ** EXPONENTS[[0, 2]]
    assert np.all(np.abs(share - p) < 4.5 * np.sqrt(p * (1 - p) / n))
  assert np.any(placed.x_t != placed.targets["second"])


@pytest.mark.slow
def test_a_schedule_is_learned_with_the_model():
  """Both roles train in one call of the loss: the gradient of each is there, and finite at both ends."""
  network = enumerated.tabular(PROCESS, jnp.zeros(((K + 1) ** D, D, K)), K + 1)
  roles = losses.roles(model=network, schedule=schedule(EXPONENTS), trainable=("model", "schedule"))
  loss = losses.chain(OBJECTIVE, losses.at_times(losses.low_discrepancy(), roles=roles))
  params = {"model": network.params, "schedule": schedule(EXPONENTS).params, "loss": {}}
  state = loss.init(jax.random.key(0))[1]
  x = jnp.asarray(CLEAN[np.random.default_rng(0).choice(len(CLEAN), 64, p=JOINT.reshape(-1))])
  slope = jax.jit(jax.grad(lambda p: loss(p, state, 0, jax.random.key(1), {"x": x})[0]))(params)
  for leaf in jax.tree.leaves(slope):
    assert np.all(np.isfinite(leaf)) and np.any(leaf != 0)


def test_misfits_raise_a_sentence():
  for call, words in (
    (lambda: losses.generalised_masked_cross_entropy(processes.uniform_resample(3)), "ends in masks"),
    (lambda: losses.value_exponents([1.0, -1.0], 2), "positive"),
    (lambda: losses.value_exponents([1.0, 1.0], 3), "one number or 3"),
  ):
    with pytest.raises(ValueError, match=words):
      call()
