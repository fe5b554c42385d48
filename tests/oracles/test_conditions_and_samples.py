"""Oracles as denoisers: classes, samples, compilation and messages."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion import oracles, processes

MEANS = np.array([[-1.5, 0.5], [1.0, 1.0], [0.3, -2.0], [2.0, -1.0]])
COVARIANCES = np.array(
  [[[0.5, 0.3], [0.3, 0.4]], [[0.2, -0.1], [-0.1, 0.9]], [[0.05, 0.0], [0.0, 0.1]], [[0.3, 0.0], [0.0, 0.3]]]
)
WEIGHTS = np.array([0.4, 0.2, 0.3, 0.1])
LABELS = np.array([0, 1, 0, 2])


def mixture(process, keep=slice(None), **kwargs):
  return oracles.gaussian_mixture(process, WEIGHTS[keep], MEANS[keep], COVARIANCES[keep], **kwargs)


def atoms(process, keep=slice(None), **kwargs):
  return oracles.atoms(process, MEANS[keep], WEIGHTS[keep], **kwargs)


@jax.jit
def outputs(oracle, x, t, cond=None):
  views = oracle(x, t, cond, views=("x0", "score", "v"))
  return jax.tree.leaves(
    (views, [f(x, t, cond) for f in (oracle.posterior_covariance, oracle.log_prob, oracle.time_score)])
  )


@pytest.mark.parametrize("make", [mixture, atoms])
def test_a_label_restricts_to_its_components(x64, make):
  process = processes.rectified_flow()
  whole = make(process, labels=LABELS)
  x = jnp.tile(jnp.array([[0.4, -0.6], [1.0, 0.3]]), (4, 1))
  t = jnp.tile(jnp.array([0.3, 1.0]), 4)
  label = jnp.repeat(jnp.array([0, 1, 2, -1]), 2)
  mixed = outputs(whole, x, t, {"label": label})
  for row, keep in enumerate([[0, 2], [1], [3], slice(None)]):
    part = slice(2 * row, 2 * row + 2)
    for a, b in zip(mixed, outputs(make(process, keep), x, t), strict=True):
      np.testing.assert_allclose(a[part], b[part], rtol=1e-9, atol=1e-12)
  # Bayes: the classes' densities, weighted, are the density.
  log_prob = lambda c: whole.log_prob(x, t, {"label": jnp.full(8, c)})
  total = sum(w * np.exp(log_prob(c)) for c, w in enumerate([0.7, 0.2, 0.1]))
  np.testing.assert_allclose(np.exp(whole.log_prob(x, t)), total, rtol=1e-9)


def test_an_absent_class_is_not_a_number():
  x, t = jnp.zeros((1, 2)), jnp.ones(1)
  oracle = jax.jit(mixture(processes.edm(), labels=LABELS).log_prob)
  assert np.all(np.isnan(oracle(x, t, {"label": jnp.array([7])})))


def moments(kind):
  """Mean, covariance and largest standardised fourth moment of the data."""
  if kind == "gaussian":
    return MEANS[0], COVARIANCES[0]
  mean = WEIGHTS @ MEANS
  spread = np.einsum("k,kd,ke->de", WEIGHTS, MEANS - mean, MEANS - mean)
  return mean, spread + (np.einsum("k,kde->de", WEIGHTS, COVARIANCES) if kind == "mixture" else 0.0)


@pytest.mark.parametrize("kind", ["gaussian", "mixture", "atoms"])
def test_samples_have_the_marginals_moments(kind):
  """Five standard errors for each entry of mean and covariance, estimated from the same 20,000 draws."""
  process = processes.vp_linear()
  make = {
    "gaussian": lambda p: oracles.gaussian(p, MEANS[0], COVARIANCES[0]),
    "mixture": mixture,
    "atoms": atoms,
  }[kind]
  oracle, n = make(process), 20_000
  draw = jax.jit(lambda o, key, t: o.sample(key, n, t))
  score_of = jax.jit(lambda o, x, t: o.score(x, t))
  mean, covariance = moments(kind)
  for t in (None, 0.2, 1.0):
    x = np.asarray(draw(oracle, jax.random.key(4), t), np.float64)
    m = process.marginal(0.0 if t is None else t)
    alpha, sigma = (1.0, 0.0) if t is None else (m.alpha, m.sigma)
    centred = x - alpha * mean
    assert np.all(np.abs(centred.mean(0)) < 5 * x.std(0) / np.sqrt(n))
    products = centred[:, :, None] * centred[:, None, :]
    expected = alpha**2 * covariance + sigma**2 * np.eye(2)
    assert np.all(np.abs(products.mean(0) - expected) < 5 * products.std(0) / np.sqrt(n))
    # The score belongs to the samples: E[score] = 0 and E[score x^T] = -I (Stein).
    if t is not None:
      score = np.asarray(
        score_of(oracle, jnp.asarray(x, jnp.float32), jnp.full(n, t, jnp.float32)), np.float64
      )
      stein = score[:, :, None] * centred[:, None, :]
      assert np.all(np.abs(score.mean(0)) < 5 * score.std(0) / np.sqrt(n))
      assert np.all(np.abs(stein.mean(0) + np.eye(2)) < 5 * stein.std(0) / np.sqrt(n))


def test_components_are_drawn_with_their_weights():
  """Five standard errors of each binomial share; a label draws from its class alone."""
  n, oracle = 20_000, oracles.atoms(processes.edm(), MEANS, WEIGHTS, labels=LABELS)
  x = oracle.sample(jax.random.key(5), n)
  share = np.array([np.mean(np.all(np.asarray(x) == m.astype(np.float32), axis=1)) for m in MEANS])
  assert np.all(np.abs(share - WEIGHTS) < 5 * np.sqrt(WEIGHTS * (1 - WEIGHTS) / n))
  label = jnp.arange(n) % 3
  x = np.asarray(oracle.sample(jax.random.key(6), n, cond={"label": label}))
  nearest = np.argmin(np.linalg.norm(x[:, None] - MEANS[None], axis=2), axis=1)
  np.testing.assert_array_equal(LABELS[nearest], label)


def test_sample_i_depends_on_key_and_i_alone():
  oracle, key = mixture(processes.vp_cosine()), jax.random.key(0)
  sample = jax.jit(lambda n, t: oracle.sample(key, n, t), static_argnums=0)
  few, many = np.asarray(sample(3, jnp.full(3, 0.4))), np.asarray(sample(8, 0.4))
  np.testing.assert_allclose(few, many[:3], rtol=1e-6)
  each = np.asarray(sample(3, jnp.array([0.4, 0.5, 0.4])))
  np.testing.assert_allclose(each[[0, 2]], few[[0, 2]], rtol=1e-6)


def test_new_numbers_do_not_compile_again():
  traces = []

  @jax.jit
  def run(oracle, x, t, cond):
    traces.append(1)
    return oracle(x, t, cond).x0

  x, t = jnp.ones((2, 2)), jnp.array([0.3, 0.6])
  for process in (processes.vp_linear(), processes.vp_linear(beta_max=10.0)):
    for means in (MEANS, MEANS + 1.0):
      for label in ([0, -1], [2, 1]):
        oracle = oracles.gaussian_mixture(process, WEIGHTS, means, COVARIANCES, labels=LABELS)
        run(oracle, x, t, {"label": jnp.array(label)})
  assert len(traces) == 1


def test_an_oracle_takes_any_event_shape():
  rng = np.random.default_rng(0)
  points = rng.standard_normal((5, 2, 3, 1))
  process, t = processes.rectified_flow(), jnp.array([0.2, 0.9])
  flat, shaped = oracles.atoms(process, points.reshape(5, 6)), oracles.atoms(process, points)
  x = shaped.sample(jax.random.key(0), 2, t)
  assert x.shape == (2, 2, 3, 1)
  for a, b in zip(outputs(shaped, x, t), outputs(flat, x.reshape(2, 6), t), strict=True):
    np.testing.assert_allclose(np.reshape(a, b.shape), b, rtol=1e-5, atol=1e-6)


EDM = processes.edm()


@pytest.mark.parametrize(
  "call, message",
  [
    (lambda: oracles.gaussian(EDM, np.zeros(2), np.ones((3, 3))), r"got shape \(3, 3\)"),
    (lambda: oracles.gaussian(EDM, np.zeros(2), np.array([[1.0, 0.5], [0.0, 1.0]])), "symmetric"),
    (lambda: oracles.gaussian(EDM, np.zeros(2), np.array([[1.0, 2.0], [2.0, 1.0]])), "semi-definite"),
    (lambda: oracles.gaussian_mixture(EDM, [0.5, -0.5], np.zeros((2, 1)), 1.0), "none negative"),
    (lambda: oracles.gaussian_mixture(EDM, None, np.zeros((3, 1)), [1.0, 1.0]), "3 covariances"),
    (lambda: oracles.atoms(EDM, np.zeros((2, 1)), labels=[0, -1]), "from 0 up"),
    (lambda: oracles.atoms(EDM, np.zeros((2, 1)))(jnp.zeros((1, 2)), jnp.ones(1)), "event shape"),
    (lambda: oracles.atoms(EDM, np.zeros((2, 1)))(jnp.zeros((1, 1)), jnp.ones(())), "one time for each row"),
    (
      lambda: oracles.atoms(EDM, np.zeros((2, 1)))(
        jnp.zeros((1, 1)), jnp.ones(1), {"label": jnp.zeros(1, int)}
      ),
      "no classes",
    ),
    (
      lambda: mixture(EDM, labels=LABELS)(jnp.zeros((1, 2)), jnp.ones(1), {"vector": jnp.zeros(1)}),
      "conditioned on 'label'",
    ),
    (lambda: mixture(EDM)(jnp.zeros((1, 2)), jnp.ones(1), views=("noise",)), "unknown view"),
  ],
)
def test_wrong_arguments_say_what_is_allowed(call, message):
  with pytest.raises(ValueError, match=message):
    call()
