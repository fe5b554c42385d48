"""Masks with an exponent for each value: a chain, its rates, and the bound that belongs to it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion import losses, processes
from losses import enumerated

W = np.array([0.6, 1.0, 2.3])
K, D = 3, 2


def process(**options):
  return processes.masked_by_value(W, (D,), t_min=0.0, **options)


def test_it_is_a_chain_whose_generator_is_the_slope_of_its_transitions():
  """Chapman and Kolmogorov, dT/dt = T Q by central differences, absent values stay."""
  of, (r, s, t), h = process(schedule=processes.cosine_keep()), np.array([0.2, 0.5, 0.8]), 1e-6
  for size in (None, 2):
    step = lambda a, b, size=size: of.transition(a, b, size)
    np.testing.assert_allclose(step(r, s) @ step(s, t), step(r, t), rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(step(None, t).sum(-1), 1.0, atol=1e-14)
    np.testing.assert_allclose(step(None, t)[: size or K, K], of.level(t) ** W[: size or K], rtol=1e-12)
    slope = (step(None, t + h) - step(None, t - h)) / (2 * h)
    np.testing.assert_allclose(step(None, t) @ of.generator(t, size), slope, rtol=1e-7, atol=1e-8)
  np.testing.assert_array_equal(of.transition(None, t, 2)[2], np.eye(K + 1)[2])


def test_exponents_of_one_are_the_masked_process(x64):
  """Transition, rates, posterior and ratios, of a law and all states."""
  of, plain = processes.masked_by_value(np.ones(K), (D,)), processes.masked(K, (D,))
  x = jnp.asarray(enumerated.states(K + 1, D))
  p = jax.nn.softmax(jnp.asarray(np.random.default_rng(0).normal(size=(len(x), D, K))))
  s, t = jnp.full(len(x), 0.3), jnp.full(len(x), 0.7)
  views = ("probabilities", "ratios", "rates")
  for view, value in of.convert("probabilities", p, x, t, views).items():
    np.testing.assert_allclose(value, plain.convert("probabilities", p, x, t, views)[view], atol=1e-12)
  known = of.convert("probabilities", p, x, t, views)["probabilities"]
  np.testing.assert_allclose(of.posterior(known, x, s, t), plain.posterior(known, x, s, t), atol=1e-12)


def test_rates_are_those_of_the_generator_and_stay_finite_where_all_is_masked(x64):
  of, x = process(), jnp.asarray(enumerated.states(K + 1, D))
  known = of.convert("logits", jnp.zeros((len(x), D, K)), x, jnp.full(len(x), 0.6), ("probabilities",))[
    "probabilities"
  ]
  t = jnp.full(len(x), 0.6)
  generic = of.inflow(x, t) * of.posterior_ratios(known, x, t)
  np.testing.assert_allclose(of.posterior_rates(known, x, t), generic, atol=1e-12)
  last = of.posterior_rates(known, x, jnp.ones(len(x)))
  np.testing.assert_allclose(last[-1], np.pad(np.broadcast_to(W / K, (D, K)), [(0, 0), (0, 1)]), atol=1e-12)


def test_each_value_is_masked_as_often_as_its_exponent_says():
  """20,000 draws: within 4.5 standard errors (7e-6 each)."""
  of, n = process(), 20_000
  x0 = jnp.asarray(np.tile([[0, 2]], (n, 1)), jnp.int32)
  noise = of.noise(jax.random.split(jax.random.key(0), n), x0)
  share, p = np.asarray(of.corrupt(x0, noise, jnp.full(n, 0.5)) == K).mean(0), 0.5 ** W[[0, 2]]
  assert np.all(np.abs(share - p) < 4.5 * np.sqrt(p * (1 - p) / n))


def test_its_bound_is_the_generalised_masked_cross_entropy(x64):
  """Row by row at one time, of any model; and the entropy at the exact posterior, to 1e-5 nats."""
  of, plain = process(), processes.masked(K, (D,), t_min=0.0)
  p = enumerated.joint(D, K)
  x0, x_t, _ = enumerated.pairs(p, enumerated.kernel(of, 0.4))
  logits = jnp.asarray(np.random.default_rng(1).normal(size=((K + 1) ** D, D, K)))
  placed = enumerated.placed(0.4, x0, x_t, second=jnp.asarray(x_t))
  found = losses.continuous_time_bound(of).evaluate(
    {"model": enumerated.tabular(of, logits, K + 1)}, placed, {}, {}, losses.START
  )
  roles = {"model": enumerated.tabular(plain, logits, K + 1), "schedule": losses.value_exponents(W, K)}
  wanted = losses.generalised_masked_cross_entropy(plain).evaluate(roles, placed, {}, {}, losses.START)
  np.testing.assert_allclose(found.interior, wanted.interior, rtol=1e-10, atol=1e-12)
  program = enumerated.expected(losses.continuous_time_bound(of), of, K + 1)
  exact = lambda t: enumerated.log_posterior(of, p, t)
  value, slope = enumerated.bound(program, of, p, exact, enumerated.smooth_integral(36))
  assert abs(value - enumerated.entropy(p)) < 1e-5 and np.abs(slope).max() < 1e-12


def test_mistakes_are_named():
  for arguments in (([1.0], (2,)), ([1.0, -1.0], (2,)), ([1.0, 1.0], ())):
    with pytest.raises(ValueError, match="a positive exponent for each of two or more values"):
      processes.masked_by_value(*arguments)
