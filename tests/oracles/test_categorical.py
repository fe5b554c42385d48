"""The uniform-resample categorical against enumeration of every clean state and every resampling."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from diffusion import oracles, processes

SIZES = (3, 2, 4)
JOINT = np.random.default_rng(0).dirichlet(np.full(24, 0.7)).reshape(SIZES)
STATES = np.array(list(itertools.product(*map(range, SIZES))))


def kernel(b, size):
  return np.full((size, size), b / size) + (1 - b) * np.eye(size)


def enumerated(b):
  """Transition matrix over all states [24 clean, 24 noisy]: the product of the coordinates' kernels."""
  matrix = np.ones((1, 1))
  for size in SIZES:
    matrix = np.kron(matrix, kernel(b, size))
  return matrix


@jax.jit
def outputs(oracle, x, t):
  return {
    "table": oracle.table(t),
    "log_prob": oracle.log_prob(x, t),
    "time_score": oracle.time_score(x, t),
    "d_t": jax.jvp(lambda t: oracle.log_prob(x, t), (t,), (jnp.ones_like(t),))[1],
    "ratios": oracle.ratios(x, t),
    "concrete": oracle.concrete(x, t),
    "log_posterior": oracle.log_posterior(x, t),
    "denoise": oracle(x, t),
    "log_kernel": oracle.log_kernel(x, jnp.roll(x, 5, axis=0), t),
  }


@struct.dataclass
class Squared:
  """A schedule whose slope is not one: b = t^2."""

  def __call__(self, t):
    return processes.Keep(1.0 - t**2, t**2, -2.0 * t)

  def t_of_noised(self, noised):
    return noised**0.5


@pytest.mark.parametrize(
  "clock, t", [("identity", 1e-4), ("identity", 0.1), ("identity", 0.6), ("identity", 1.0), ("squared", 0.5)]
)
def test_everything_equals_enumeration(x64, t, clock):
  b = t if clock == "identity" else t**2
  oracle = oracles.uniform_resample_categorical(
    JOINT, **({} if clock == "identity" else {"schedule": Squared()})
  )
  got = {k: np.asarray(a) for k, a in outputs(oracle, jnp.asarray(STATES), jnp.full(24, t)).items()}
  matrix = enumerated(b)
  p = JOINT.reshape(-1) @ matrix
  np.testing.assert_allclose(got["table"].reshape(24, 24), np.tile(p, (24, 1)), rtol=1e-12)
  np.testing.assert_allclose(got["log_prob"], np.log(p), rtol=1e-12)
  np.testing.assert_allclose(got["time_score"], got["d_t"], rtol=1e-10, atol=1e-10)
  # The derivative of a density sums to nothing.
  assert abs(np.sum(p * got["time_score"])) < 1e-11 * np.sum(p * np.abs(got["time_score"]))

  posterior = JOINT.reshape(-1, 1) * matrix / p  # [clean, noisy]
  np.testing.assert_allclose(np.exp(got["log_posterior"].reshape(24, 24)), posterior.T, rtol=1e-10)
  log_prob = dict(zip(map(tuple, STATES), np.log(p)))
  for row, x in enumerate(STATES):
    for d, size in enumerate(SIZES):
      marginal = [posterior[STATES[:, d] == k, row].sum() for k in range(size)]
      np.testing.assert_allclose(np.exp(got["denoise"][row, d, :size]), marginal, rtol=1e-10)
      assert np.all(got["denoise"][row, d, size:] == -np.inf)
      neighbours = [tuple(np.where(np.arange(3) == d, k, x)) for k in range(size)]
      ratios = np.exp([log_prob[y] - log_prob[tuple(x)] for y in neighbours])
      np.testing.assert_allclose(got["ratios"][row, d, :size], ratios, rtol=1e-10)
      np.testing.assert_allclose(got["concrete"][row, d, :size], ratios - 1, rtol=1e-10, atol=1e-12)
      assert np.all(got["ratios"][row, d, size:] == 0) and np.all(got["concrete"][row, d, size:] == 0)
  start = np.roll(np.arange(24), 5)
  np.testing.assert_allclose(got["log_kernel"], np.log(matrix[start, np.arange(24)]), rtol=1e-10)


def test_ratios_are_posterior_means_of_the_kernels_ratios(x64):
  """E[q(y | x_0) / q(x | x_0) | x_t = x] = p_t(y) / p_t(x), the identity behind denoising concrete score
  matching."""
  t, oracle = 0.3, oracles.uniform_resample_categorical(JOINT)
  got = np.asarray(outputs(oracle, jnp.asarray(STATES), jnp.full(24, t))["ratios"])
  matrix = enumerated(t)
  posterior = JOINT.reshape(-1, 1) * matrix / (JOINT.reshape(-1) @ matrix)
  index = {tuple(s): i for i, s in enumerate(STATES)}
  for row, x in enumerate(STATES):
    for d, k in itertools.product(range(3), range(2)):
      y = index[tuple(np.where(np.arange(3) == d, k, x))]
      np.testing.assert_allclose(
        got[row, d, k], np.sum(posterior[:, row] * matrix[:, y] / matrix[:, row]), rtol=1e-10
      )


def test_ends(x64):
  """At b = 0 the data itself, at b = 1 the uniform distribution, and a finite slope at both."""
  oracle = oracles.uniform_resample_categorical(JOINT)
  x = jnp.asarray(STATES)
  zero, one = (outputs(oracle, x, jnp.full(24, t)) for t in (0.0, 1.0))
  np.testing.assert_allclose(zero["log_prob"], np.log(JOINT).reshape(-1), rtol=1e-12)
  np.testing.assert_allclose(one["log_prob"], -np.log(24.0), rtol=1e-12)
  np.testing.assert_allclose(np.exp(zero["log_posterior"].reshape(24, 24)), np.eye(24), atol=1e-15)
  np.testing.assert_allclose(np.exp(one["log_posterior"][0]), JOINT, rtol=1e-12)
  for t, end in ((1e-9, zero), (1 - 1e-9, one)):
    near = outputs(oracle, x, jnp.full(24, t))
    for key in ("time_score", "concrete", "log_prob"):
      np.testing.assert_allclose(near[key], end[key], rtol=1e-5, atol=1e-7)


def test_float32_agrees(x64):
  t = jnp.tile(jnp.array([1e-5, 1e-2, 0.5, 0.99999, 1.0, 0.0], jnp.float32), 4)
  low = outputs(oracles.uniform_resample_categorical(JOINT, dtype=jnp.float32), jnp.asarray(STATES), t)
  high = outputs(oracles.uniform_resample_categorical(JOINT), jnp.asarray(STATES), t.astype(jnp.float64))
  for key in low:
    assert low[key].dtype == jnp.float32
    a, b = np.asarray(low[key], np.float64), np.asarray(high[key])
    np.testing.assert_array_equal(np.isfinite(a), np.isfinite(b))
    scale = 1 + np.abs(np.where(np.isfinite(b), b, 0)).reshape(24, -1).max(1).reshape(
      (24,) + (1,) * (b.ndim - 1)
    )
    np.testing.assert_allclose(
      np.where(np.isfinite(a), a / scale, 0), np.where(np.isfinite(b), b / scale, 0), atol=3e-6, err_msg=key
    )


@pytest.mark.parametrize("t", [None, 0.3])
def test_samples_have_the_table(t):
  """Pearson's statistic of 50,000 draws over 24 states: chi-squared with 23 degrees, exceeded at 70 once in
  10^6."""
  n, oracle = 50_000, oracles.uniform_resample_categorical(JOINT)
  x = np.asarray(jax.jit(lambda key: oracle.sample(key, n, t))(jax.random.key(0)))
  counts = np.bincount(np.ravel_multi_index(x.T, SIZES), minlength=24)
  expected = n * JOINT.reshape(-1) @ enumerated(t or 0.0)
  assert np.sum((counts - expected) ** 2 / expected) < 70
  few = np.asarray(oracle.sample(jax.random.key(0), 3, t))
  np.testing.assert_array_equal(few, x[:3])


def test_a_perturbed_state_follows_the_kernel(x64):
  n, t, oracle = 40_000, 0.4, oracles.uniform_resample_categorical(JOINT)
  x0 = jnp.broadcast_to(jnp.array([[1, 0, 3]], jnp.int32), (n, 3))
  x = np.asarray(oracle.perturb(jax.random.key(1), x0, jnp.full(n, t)))
  assert x.dtype == np.int32
  counts = np.bincount(np.ravel_multi_index(x.T, SIZES), minlength=24)
  expected = n * enumerated(t)[np.ravel_multi_index((1, 0, 3), SIZES)]
  assert np.sum((counts - expected) ** 2 / expected) < 70


def test_independent_coordinates_are_a_product(x64):
  first, second = np.array([0.2, 0.8]), np.array([0.5, 0.1, 0.4])
  pair = oracles.uniform_resample_categorical([first, second])
  x, t = jnp.array([[0, 2], [1, 1]]), jnp.array([0.2, 0.7])
  parts = [
    oracles.uniform_resample_categorical(p).log_prob(x[:, i : i + 1], t)
    for i, p in enumerate((first, second))
  ]
  np.testing.assert_allclose(pair.log_prob(x, t), parts[0] + parts[1], rtol=1e-12)


@pytest.mark.parametrize(
  "call, message",
  [
    (lambda: oracles.uniform_resample_categorical([0.5, -0.5]), "not negative"),
    (lambda: oracles.uniform_resample_categorical(np.ones((3, 1))), "two or more values"),
    (lambda: oracles.uniform_resample_categorical(np.ones((101,) * 3)), "10\\^6"),
    (
      lambda: oracles.uniform_resample_categorical(np.ones(3)).log_prob(jnp.zeros((2, 2), int), jnp.ones(2)),
      "one column a coordinate",
    ),
    (
      lambda: oracles.uniform_resample_categorical(np.ones(3)).log_prob(jnp.zeros((2, 1), int), jnp.ones(3)),
      "one time for each row",
    ),
    (
      lambda: oracles.uniform_resample_categorical(np.ones(3))(
        jnp.zeros((1, 1), int), jnp.ones(1), {"label": jnp.zeros(1)}
      ),
      "no classes",
    ),
  ],
)
def test_wrong_arguments_say_what_is_allowed(call, message):
  with pytest.raises(ValueError, match=message):
    call()
