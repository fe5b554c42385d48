"""The oracle of any discrete process against enumeration, and against the oracles of single processes."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion import oracles, processes

SIZES = (3, 2, 4)
TABLES = [np.random.default_rng(seed).dirichlet(np.full(24, 0.7)).reshape(SIZES) for seed in (0, 1)]
JOINT = 0.3 * TABLES[0] + 0.7 * TABLES[1]
STATES = jnp.asarray(list(itertools.product(*map(range, SIZES))), jnp.int32)
ROWS = np.ones(len(STATES))


@functools.partial(jax.jit, static_argnames="views")
def answered(oracle, x, t, cond=None, views=("probabilities",)):
  return oracle(x, t, cond, views=views).views


@pytest.mark.parametrize("build", [processes.uniform_resample, processes.discretised_gaussian])
def test_every_answer_equals_enumeration(build, x64):
  process = build(np.array(SIZES))
  oracle = oracles.discrete(process, TABLES, [0.3, 0.7], [0, 1])
  t = 0.4
  kernels = [process.transition(None, t, size)[:size, :size] for size in SIZES]
  law = np.einsum("abc,ai,bj,ck->ijk", JOINT, *kernels)
  found = answered(oracle, STATES, t * ROWS, views=oracle.methods)
  np.testing.assert_allclose(np.exp(-found["energy"]), law.reshape(-1), rtol=1e-10)
  np.testing.assert_allclose(oracle.law(jnp.full(2, t))[1], law, rtol=1e-10)
  for row, x in enumerate(np.asarray(STATES)):
    joint = JOINT * functools.reduce(np.multiply.outer, [q[:, a] for q, a in zip(kernels, x)])
    for d, size in enumerate(SIZES):
      own = joint.sum(tuple(e for e in range(3) if e != d)) / joint.sum()
      np.testing.assert_allclose(found["probabilities"][row, d, :size], own, rtol=1e-10)
      ratios = [law[tuple(k if e == d else x[e] for e in range(3))] / law[tuple(x)] for k in range(size)]
      np.testing.assert_allclose(found["ratios"][row, d, :size], ratios, rtol=1e-10)
      assert not found["ratios"][row, d, size:].any()
  h = 1e-5
  after, before = (np.asarray(oracle.law(jnp.full(1, t + step))[0]) for step in (h, -h))
  slope = (np.log(after) - np.log(before)).reshape(-1) / (2 * h)
  np.testing.assert_allclose(found["time_score"], slope, rtol=1e-6, atol=1e-8)
  np.testing.assert_allclose(oracle.entropy(), -np.sum(JOINT * np.log(JOINT)), rtol=1e-12)
  alone = oracles.discrete(process, TABLES[1])
  np.testing.assert_allclose(
    answered(oracle, STATES, t * ROWS, {"label": jnp.ones(len(STATES), jnp.int32)})["probabilities"],
    answered(alone, STATES, t * ROWS)["probabilities"],
    rtol=1e-12,
  )


def test_it_equals_the_oracles_of_single_processes(x64):
  uniform = oracles.uniform_resample_categorical(JOINT)
  ours = oracles.discrete(uniform.process, JOINT)
  views = ("logits", "ratios", "time_score", "energy")
  for a, b in zip(*(answered(o, STATES, 0.3 * ROWS, views=views).values() for o in (ours, uniform))):
    np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)
  masked = processes.masked(2, (3,), schedule=processes.cosine_keep())
  table = JOINT[:2, :, :2]
  states = jnp.asarray(list(itertools.product(range(3), repeat=3)), jnp.int32)
  first, second = (build(masked, table) for build in (oracles.discrete, oracles.masked_categorical))
  views = ("probabilities", "time_score", "energy")
  for a, b in zip(*(answered(o, states, jnp.full(27, 0.3), views=views).values() for o in (first, second))):
    np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.slow
def test_rates_are_the_views_of_the_process(x64):
  """Of a masked process too, up to t = 1 where all is masked."""
  masked = processes.masked(2, (3,))
  oracle = oracles.discrete(masked, JOINT[:2, :, :2])
  states = jnp.asarray(list(itertools.product(range(3), repeat=3)), jnp.int32)
  found = answered(oracle, states, jnp.full(27, 0.4), views=oracle.methods)
  seen = np.asarray(states) < 2
  np.testing.assert_allclose(found["ratios"].sum(-1)[seen], 1.0)
  for row, d in zip(*np.nonzero(~seen)):
    for k in range(2):
      other = states[row].at[d].set(k)[None]
      ratio = jnp.exp(
        oracle.log_prob(other, jnp.full(1, 0.4)) - oracle.log_prob(states[row][None], jnp.full(1, 0.4))
      )
      np.testing.assert_allclose(found["ratios"][row, d, k], ratio[0], rtol=1e-10)
  np.testing.assert_allclose(
    found["rates"], np.where(seen[..., None] | (np.arange(3) == 2), 0, found["ratios"] / 0.6)
  )
  top = oracle.rates(jnp.full((1, 3), 2), jnp.ones(1))
  np.testing.assert_allclose(top[..., :2], oracle.probabilities(jnp.full((1, 3), 2), jnp.ones(1)), rtol=1e-12)


@pytest.mark.slow
def test_draws_follow_the_law():
  """Pearson's statistic over 24 states: chi-squared with 23 degrees, above 70 once in 1e6."""
  oracle = oracles.discrete(processes.uniform_resample(np.array(SIZES)), JOINT)
  n = 20_000
  for t, law in ((None, JOINT), (0.3, np.asarray(oracle.law(jnp.full(1, 0.3))[0]))):
    x = np.asarray(oracle.sample(jax.random.key(0), n, t))
    counts = np.zeros(SIZES)
    np.add.at(counts, tuple(x.T), 1)
    assert np.sum((counts - n * law) ** 2 / (n * law)) < 70.0
  few = oracle.sample(jax.random.key(0), 5, 0.3)
  np.testing.assert_array_equal(few, x[:5])


def test_mistakes_raise_a_sentence():
  with pytest.raises(ValueError, match="so that probs is a table of shape \\(3, 2, 4\\)"):
    oracles.discrete(processes.uniform_resample(np.array(SIZES)), JOINT[:2])
  with pytest.raises(ValueError, match="one time for each row"):
    oracles.discrete(processes.uniform_resample(np.array(SIZES)), JOINT).log_prob(STATES, jnp.ones(2))
