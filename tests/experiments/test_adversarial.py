"""Attacks on a classifier.

Their closed form on a linear one, the ball and the range they stay in, and that they gain with steps.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.density_uses import adversarial

SIZE = 0.1


@pytest.fixture(scope="module")
def images():
  """(x [40, 12] in [0, 1], some entries at its ends, labels of three classes)."""
  rng = np.random.default_rng(0)
  x = np.clip(rng.normal(0.5, 0.4, size=(40, 12)), 0.0, 1.0).astype(np.float32)
  return jnp.asarray(x), jnp.asarray(rng.integers(0, 3, size=40))


def layers(seed, *sizes):
  """A perceptron of random weights, sharp enough that some answers are certain in float32."""
  rng = np.random.default_rng(seed)
  return tuple(
    (jnp.asarray(rng.normal(size=pair), jnp.float32), jnp.asarray(rng.normal(size=pair[1:]), jnp.float32))
    for pair in itertools.pairwise(sizes)
  )


@pytest.mark.parametrize("steps", [1, 10])
def test_of_two_linear_classes_the_attack_is_the_sign_of_their_difference(images, steps):
  """The log-odds are (w_other - w_own) x, so the best that the ball allows is x + size sign(w_other - w_own),
  cut to [0, 1], in one step or in ten.

  Also where the answer is so sure (bias 200) that the gradient of the cross-entropy is zero in float32.
  """
  x, label = images[0], images[1] % 2
  ((weights, bias),) = layers(1, 12, 2)
  direction = jnp.where(label[:, None] == 0, weights[:, 1] - weights[:, 0], weights[:, 0] - weights[:, 1])
  expected = jnp.clip(x + SIZE * jnp.sign(direction), 0.0, 1.0)
  for sure in (0.0, 200.0):
    found = adversarial.attacked(((weights, bias.at[0].add(sure)),), x, label, SIZE, steps)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_one_step_is_the_sign_of_the_gradient_of_the_cross_entropy(images):
  """On a perceptron that is never certain, against the gradient of the loss itself."""
  x, label = images
  network = tuple((0.3 * weights, bias) for weights, bias in layers(2, 12, 16, 3))
  loss = lambda x: (
    -jnp.sum(jnp.take_along_axis(jax.nn.log_softmax(adversarial.logits(network, x)), label[:, None], axis=1))
  )
  expected = jnp.clip(x + SIZE * jnp.sign(jax.grad(loss)(x)), 0.0, 1.0)
  np.testing.assert_allclose(adversarial.attacked(network, x, label, SIZE), expected, atol=1e-6)


def test_more_steps_stay_in_the_ball_and_in_the_range_and_do_more_harm(images):
  x, label = images
  network = layers(2, 12, 16, 3)

  def margin(x):
    said = adversarial.logits(network, x)
    own = jax.nn.one_hot(label, 3, dtype=bool)
    return said[own] - jnp.max(jnp.where(own, -jnp.inf, said), axis=1)

  found = [adversarial.attacked(network, x, label, SIZE, steps) for steps in (1, 10)]
  for moved in found:
    assert jnp.abs(moved - x).max() <= SIZE + 1e-6 and moved.min() >= 0.0 and moved.max() <= 1.0
  before, once, often = (float(jnp.mean(margin(moved))) for moved in (x, *found))
  assert often < once < before


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_perceptron_is_that_of_scikit_learn(images):
  from sklearn.neural_network import MLPClassifier

  x, label = np.asarray(images[0], np.float64), np.asarray(images[1])
  network = MLPClassifier((5, 4), activation="tanh", max_iter=400, random_state=0).fit(x, label)
  theirs = tuple(zip(map(jnp.float32, network.coefs_), map(jnp.float32, network.intercepts_)))
  found = jax.nn.softmax(adversarial.logits(theirs, jnp.asarray(x, jnp.float32)))
  np.testing.assert_allclose(found, network.predict_proba(x), atol=1e-5)
