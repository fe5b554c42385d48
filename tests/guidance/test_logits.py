"""Guidance of discrete processes: known answers on log-probabilities, and what every transform keeps."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion import guidance, oracles, processes, solvers

PROCESS = processes.masked(3, (2,), t_min=0.0)
MASK = PROCESS.mask
WEIGHTS = np.array([0.3, 0.7])
TABLES = np.exp(np.random.default_rng(1).normal(size=(2, 3, 3)))
TABLES /= TABLES.sum(axis=(1, 2), keepdims=True)
SCALES = jnp.asarray([0.0, 0.5, 1.0, 3.0, 1.0])


def labelled(process=PROCESS):
  """Two classes of two tokens of three letters: a class is asked for by its label, -1 is both."""
  return oracles.masked_categorical(process, list(TABLES), WEIGHTS, labels=[0, 1], dtype=np.float32)


def points():
  """(x [5, 2], t [5], cond): all masks, some, and none."""
  x = jnp.asarray([[3, 3], [3, 0], [2, 3], [3, 3], [1, 2]], jnp.int32)
  return x, jnp.asarray([0.9, 0.5, 0.3, 0.7, 0.2]), {"label": jnp.asarray([0, 1, 1, 1, 0])}


def log_class(oracle, x, t, cond):
  """log p(label | x_t), exact at every state: by the tables of what is seen."""
  weight = jnp.asarray(np.log(WEIGHTS), jnp.float32)[cond["label"]]
  return weight + oracle.log_prob(x, t, cond) - oracle.log_prob(x, t)


TRANSFORMS = {
  "classifier_free": (lambda oracle, w: guidance.classifier_free(w), 0.0),
  "classifier_free, interval": (lambda oracle, w: guidance.classifier_free(w, interval=(0.1, 0.8)), 0.0),
  "autoguidance": (
    lambda oracle, w: guidance.autoguidance(oracle.replace(tables=oracle.tables[::-1]), w),
    0.0,
  ),
  "classifier": (lambda oracle, w: guidance.classifier(log_class, oracle, w), 0.0),
  "temperature": (lambda oracle, w: guidance.temperature(0.5 + w), 0.5),
  "nucleus": (lambda oracle, w: guidance.nucleus(0.5 + 0.2 * w), 2.5),
  "by_condition, learned": (
    lambda oracle, w: guidance.chain(guidance.by_condition(), guidance.learned(w)),
    0.0,
  ),
}


@functools.partial(jax.jit, static_argnames="views")
def call(denoiser, x, t, cond, views=("logits", "probabilities")):
  return denoiser(x, t, cond, views=views)


QUICK = ("classifier_free", "classifier", "temperature", "nucleus")


@pytest.mark.parametrize(
  "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in TRANSFORMS]
)
def test_what_every_transform_of_logits_keeps(name):
  """Normalised log-probabilities, of which all views follow; what is not masked stays; rows do not meet; at
  its neutral setting it changes nothing; another number does not trace it again."""
  make, neutral = TRANSFORMS[name]
  oracle, (x, t, cond) = labelled(), points()
  found = call(make(oracle, 1.3)(oracle), x, t, cond)
  np.testing.assert_allclose(found.probabilities.sum(-1), 1.0, rtol=1e-5)
  np.testing.assert_allclose(jnp.exp(found.logits), found.probabilities, rtol=1e-5, atol=1e-7)
  seen = np.asarray(x) != MASK
  np.testing.assert_array_equal(np.asarray(found.probabilities)[seen], np.eye(3)[np.asarray(x)[seen]])
  alone = call(make(oracle, 1.3)(oracle), x, t, cond, views=("probabilities",))
  assert set(alone) == {"probabilities"}
  np.testing.assert_allclose(alone.probabilities, found.probabilities, rtol=1e-6)

  order = np.array([3, 1, 4, 0, 2])
  moved = call(make(oracle, 1.3)(oracle), x[order], t[order], jax.tree.map(lambda leaf: leaf[order], cond))
  np.testing.assert_array_equal(moved.logits, found.logits[order])
  before = call._cache_size()
  same = call(make(oracle, neutral)(oracle), x, t, cond)
  other = call(make(oracle, 0.2)(oracle), x, t, cond)
  assert call._cache_size() == before
  plain = oracle(x, t, cond, views=("probabilities",)).probabilities
  np.testing.assert_allclose(same.probabilities, plain, rtol=1e-4, atol=1e-6)
  assert np.abs(other.probabilities - found.probabilities).max() > 1e-3


@pytest.mark.parametrize("name", ["classifier_free", pytest.param("autoguidance", marks=pytest.mark.slow)])
def test_extrapolated_logits_are_normalised_powers(name):
  """p^(1 + w) q^-w of each coordinate, each row with its own w; ratios and rates follow from them."""
  oracle, (x, t, cond) = labelled(), points()
  guided = TRANSFORMS[name][0](oracle, SCALES)(oracle)
  found = guided(x, t, cond, views=("probabilities", "ratios", "rates"))
  p = np.asarray(oracle.probabilities(x, t, cond), np.float64)
  other = oracle if name == "classifier_free" else oracle.replace(tables=oracle.tables[::-1])
  q = np.asarray(other.probabilities(x, t, None if name == "classifier_free" else cond), np.float64)
  w = np.asarray(SCALES, np.float64)[:, None, None]
  exact = np.where(p > 0, p * (np.where(p > 0, p, 1) / np.where(p > 0, q, 1)) ** w, 0.0)
  exact /= exact.sum(-1, keepdims=True)
  np.testing.assert_allclose(found.probabilities, exact, rtol=2e-5, atol=1e-6)
  follows = PROCESS.convert("probabilities", jnp.asarray(exact, jnp.float32), x, t, ("ratios", "rates"))
  np.testing.assert_allclose(found.ratios, follows["ratios"], rtol=1e-4, atol=1e-6)
  np.testing.assert_allclose(found.rates, follows["rates"], rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_what_the_other_model_excludes_is_finite_and_preferred():
  """q = 0 where p is not: the value takes all, and nothing is NaN; p = 0 stays 0 whatever q says."""
  oracle = lambda row: oracles.masked_categorical(processes.masked(3, (1,)), [row], dtype=np.float32)
  guided = guidance.autoguidance(oracle([0.5, 0.0, 0.5]), 1.0)(oracle([0.6, 0.4, 0.0]))
  x, t = jnp.full((1, 1), 3, jnp.int32), jnp.ones(1)
  np.testing.assert_allclose(
    guided(x, t, views=("probabilities",)).probabilities, [[[0, 1, 0]]], rtol=0, atol=1e-6
  )


@pytest.mark.parametrize("label", [1, pytest.param(0, marks=pytest.mark.slow)])
def test_a_classifier_on_masks_is_bayes_rule_at_every_coordinate(label):
  """With the exact log p(class | x_t) and scale 1, the unconditional model becomes the conditional one; with
  another scale p(x_0 = k | x_t) p(class | x_t with k)^scale, normalised."""
  oracle, (x, t, _) = labelled(), points()
  cond = {"label": jnp.full(5, label)}

  def evidence(params, x, t, cond):
    return log_class(params, x, t, {"label": jnp.full(x.shape[0], label)})

  guided = guidance.classifier(evidence, oracle, 1.0)(oracle)
  found = guided(x, t, views=("probabilities",)).probabilities
  np.testing.assert_allclose(found, oracle.probabilities(x, t, cond), rtol=2e-5, atol=1e-6)

  half = guidance.classifier(evidence, oracle, 0.5)(oracle)
  found = np.asarray(half(x, t, views=("probabilities",)).probabilities)
  plain = np.asarray(oracle.probabilities(x, t), np.float64)
  for place in range(2):
    of_class = [np.exp(evidence(oracle, x.at[:, place].set(k), t, None)) for k in range(3)]
    exact = plain[:, place] * np.stack(of_class, axis=1).astype(np.float64) ** 0.5
    exact /= exact.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found[:, place], exact, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_a_classifier_without_masks_is_bayes_rule_for_ratios():
  """On uniform resampling p_t(y | class) / p_t(x | class) is the ratio times p(class | y) / p(class | x): the
  conditional oracle's own, and its rates with it."""
  process = processes.uniform_resample(3, (2,))
  make = lambda table: oracles.discrete(process, table, dtype=np.float32)
  both, second = make(np.einsum("m,mab->ab", WEIGHTS, TABLES)), make(TABLES[1])

  def evidence(params, x, t, cond):
    return jnp.log(0.7) + second.log_prob(x, t) - both.log_prob(x, t)

  guided = guidance.classifier(evidence)(both)
  x, t = jnp.asarray([[0, 1], [2, 2], [1, 0]], jnp.int32), jnp.asarray([0.9, 0.5, 0.2])
  views = ("ratios", "rates", "probabilities")
  found, exact = guided(x, t, views=views), second(x, t, views=views)
  for view in views:
    np.testing.assert_allclose(found[view], exact[view], rtol=2e-4, atol=2e-5)


def test_temperature_and_nucleus_by_hand():
  oracle = oracles.masked_categorical(processes.masked(4, (1,)), [[0.4, 0.3, 0.2, 0.1]], dtype=np.float32)
  x, t = jnp.full((3, 1), 4, jnp.int32), jnp.ones(3)
  p = lambda denoiser: np.asarray(denoiser(x, t, views=("probabilities",)).probabilities[:, 0])
  each = np.array([0.5, 1.0, 2.0])
  powers = np.array([0.4, 0.3, 0.2, 0.1]) ** (1 / each[:, None])
  np.testing.assert_allclose(
    p(guidance.temperature(jnp.asarray(each, jnp.float32))(oracle)),
    powers / powers.sum(1, keepdims=True),
    rtol=1e-5,
  )
  cut = p(guidance.nucleus(jnp.asarray([0.3, 0.5, 0.75]))(oracle))
  exact = np.array([[1, 0, 0, 0], [4 / 7, 3 / 7, 0, 0], [4 / 9, 3 / 9, 2 / 9, 0]])
  np.testing.assert_allclose(cut, exact, rtol=1e-5, atol=1e-7)
  np.testing.assert_allclose(p(guidance.nucleus(top_k=2)(oracle)), exact[[1, 1, 1]], rtol=1e-5, atol=1e-7)
  np.testing.assert_allclose(
    p(guidance.nucleus(0.3, top_k=3)(oracle)), exact[[0, 0, 0]], rtol=1e-5, atol=1e-7
  )


@pytest.mark.slow
def test_samples_under_a_classifier_have_the_law_of_the_class():
  """First-hitting through the guided denoiser: 20,000 draws against the class's own table, chi-square of 8
  degrees of freedom below 31.8, its 0.9999 quantile."""
  oracle, count = labelled(), 20_000
  guided = guidance.classifier(
    lambda params, x, t, cond: log_class(params, x, t, {"label": jnp.ones(x.shape[0], jnp.int32)}), oracle
  )(oracle)
  keys = jax.random.split(jax.random.key(0), count)
  x = PROCESS.prior(keys, (2,))
  out = np.asarray(solvers.sample(guided, solvers.first_hitting(PROCESS), x, keys=keys))
  counts = np.bincount(3 * out[:, 0] + out[:, 1], minlength=9)
  wanted = count * TABLES[1].ravel()
  assert np.sum((counts - wanted) ** 2 / wanted) < 31.8


@pytest.mark.parametrize(
  "make,words",
  [
    (lambda: guidance.temperature(0.0), "above 0, got 0.0"),
    (lambda: guidance.nucleus(1.5), "at most 1, got 1.5"),
    (lambda: guidance.nucleus(top_k=0), "at least 1"),
    (
      lambda: guidance.temperature(0.5)(oracles.gaussian(processes.edm(), [0.0], 1.0)),
      "acts on logits of a discrete process",
    ),
    (
      lambda: guidance.classifier(lambda p, x, t, c: x[:, :1])(labelled())(*points()[:2]),
      "one number per example",
    ),
    (
      lambda: guidance.temperature(0.5)(labelled())(*points()[:2], views=("energy",)),
      "unknown view 'energy'",
    ),
  ],
)
def test_mistakes_are_named(make, words):
  with pytest.raises(ValueError, match=words):
    make()
