"""The masked categorical against enumeration of every clean state and every set of masks."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion import guidance, oracles, processes

K, D = 3, 3
TABLES = [np.random.default_rng(seed).dirichlet(np.full(K**D, 0.7)).reshape((K,) * D) for seed in (0, 1)]
WEIGHTS = np.array([0.3, 0.7])
JOINT = 0.3 * TABLES[0] + 0.7 * TABLES[1]
STATES = np.array(list(itertools.product(range(K + 1), repeat=D)), np.int32)
PROCESS = processes.masked(K, (D,), schedule=processes.cosine_keep())


def enumerated(joint, t):
  """p_t of each state and the posterior of each coordinate, [S] and [S, D, K], from first principles."""
  hidden = np.sin(0.5 * np.pi * t)
  law, posterior = np.zeros(len(STATES)), np.zeros((len(STATES), D, K))
  for row, x in enumerate(STATES):
    for clean in itertools.product(range(K), repeat=D):
      chance = joint[clean] * np.prod(
        [hidden if seen == K else (1 - hidden) * (seen == own) for seen, own in zip(x, clean)]
      )
      law[row] += chance
      for d, own in enumerate(clean):
        posterior[row, d, own] += chance
  return law, posterior / law[:, None, None]


@pytest.fixture(scope="module")
def oracle():
  return lambda **options: oracles.masked_categorical(PROCESS, TABLES, WEIGHTS, **options)


def test_everything_equals_enumeration(oracle, x64):
  law, posterior = enumerated(JOINT, 0.4)
  found = jax.jit(lambda o, x, t: o(x, t, views=o.views))(
    oracle(), jnp.asarray(STATES), jnp.full(len(STATES), 0.4)
  )
  np.testing.assert_allclose(np.exp(-found.energy), law, rtol=1e-10)
  np.testing.assert_allclose(found.energy.shape, (len(STATES),))
  np.testing.assert_allclose(found.probabilities, posterior, rtol=1e-10, atol=1e-14)
  with np.errstate(divide="ignore"):
    np.testing.assert_allclose(found.logits, np.log(posterior), rtol=1e-9, atol=1e-12)
  slope = jax.jvp(
    lambda t: oracle().log_prob(jnp.asarray(STATES), t),
    (jnp.full(len(STATES), 0.4),),
    (jnp.ones(len(STATES)),),
  )[1]
  np.testing.assert_allclose(found.time_score, slope, rtol=1e-9)
  np.testing.assert_allclose(oracle().entropy(), -np.sum(JOINT * np.log(JOINT)), rtol=1e-12)


def test_the_posterior_knows_no_time(oracle):
  x = jnp.asarray(STATES)
  first, second = (oracle().probabilities(x, jnp.full(len(STATES), t)) for t in (0.2, 1.0))
  np.testing.assert_array_equal(first, second)


def test_samples_follow_the_law(oracle):
  """Pearson's statistic over 64 states, above 140 once in 1e7 at 63 degrees; a seed's first rows do not
  move."""
  n = 20_000
  x = np.asarray(oracle().sample(jax.random.key(0), n, 0.4))
  counts = (x[:, None, :] == STATES[None]).all(2).sum(0)
  expected = n * enumerated(JOINT, 0.4)[0]
  assert np.sum((counts - expected) ** 2 / expected) < 140.0
  np.testing.assert_array_equal(oracle().sample(jax.random.key(0), 5, 0.4), x[:5])


def test_guidance_of_logits_multiplies_the_odds_of_classes(oracle, x64):
  """(1 + w) conditional - w unconditional, on log-probabilities (arXiv:2207.12598, eq. 6), normalised; what
  is seen stays seen."""
  conditional = oracle(labels=[0, 1])
  x, t = jnp.asarray(STATES), jnp.full(len(STATES), 0.4)
  for label, table in enumerate(TABLES):
    cond = {"label": jnp.full(len(STATES), label)}
    guided = guidance.classifier_free(1.5)(conditional)(x, t, cond, views=("logits",)).logits
    p, q = enumerated(table, 0.4)[1], enumerated(JOINT, 0.4)[1]
    with np.errstate(divide="ignore", invalid="ignore"):
      wanted = np.where(p > 0, 2.5 * np.log(p) - 1.5 * np.log(q), -np.inf)
    wanted = wanted - np.logaddexp.reduce(wanted, axis=-1, keepdims=True)
    np.testing.assert_allclose(guided, wanted, rtol=1e-9, atol=1e-9)
  # An interval is of levels, here the probability of a mask, sin(.2 pi) = .588.
  cond = {"label": jnp.zeros(len(STATES), int)}
  for interval, active in (((0.5, 0.6), True), ((0.6, 1.0), False)):
    guided = guidance.classifier_free(1.5, interval=interval)(conditional)(
      x, t, cond, views=("logits",)
    ).logits
    plain = conditional.logits(x, t, cond)
    assert bool(np.allclose(guided, plain)) is not active


def test_what_does_not_fit_raises_a_sentence(oracle):
  x, t = jnp.zeros((2, D), jnp.int32), jnp.ones(2)
  for call, words in (
    (lambda: oracles.masked_categorical(PROCESS, np.ones((K, K))), "table of shape"),
    (lambda: oracles.masked_categorical(PROCESS, TABLES, [1.0]), "1 weights|weights must be 2"),
    (lambda: oracle().logits(x.astype(jnp.float32), t), "must be integers"),
    (lambda: oracle().logits(x, t[:1]), "one time for each row"),
    (lambda: oracle().logits(x, t, {"label": t}), "no classes"),
  ):
    with pytest.raises(ValueError, match=words):
      call()
