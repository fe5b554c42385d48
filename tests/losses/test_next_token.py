"""Each token given those before it: at the true law the loss is the entropy, and the likelihood is exact."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion import denoisers, likelihood, losses, networks, processes

START = np.array([0.5, 0.3, 0.2])
STEP = np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8], [0.3, 0.4, 0.3]])
LENGTH = 4


def chain(params, x, t, cond):
  """The logits of a Markov chain, and `params` [3] added to each: zero at the truth."""
  before = jnp.log(jnp.asarray(STEP, jnp.float32))[x[:, :-1]]
  first = jnp.broadcast_to(jnp.log(jnp.asarray(START, jnp.float32)), (x.shape[0], 1, 3))
  return jnp.concatenate([first, before], axis=1) + params[None, None, :]


def every_sequence():
  """All 3^4 sequences and their probabilities."""
  x = np.stack(np.meshgrid(*[np.arange(3)] * LENGTH, indexing="ij"), -1).reshape(-1, LENGTH)
  p = START[x[:, 0]] * np.prod([STEP[x[:, i], x[:, i + 1]] for i in range(LENGTH - 1)], axis=0)
  return jnp.asarray(x, jnp.int32), p


def test_at_the_truth_the_loss_is_the_entropy_and_stationary():
  x, p = every_sequence()
  model = denoisers.from_functions(jnp.zeros(3), next_logits=chain)
  objective = losses.next_token()
  draw = losses.Draw(t=jnp.zeros(len(x)), x0=x)

  def mean(params):
    return jnp.sum(
      jnp.asarray(p, jnp.float32) * objective({"model": model.with_params(params)}, draw).interior
    )

  value, gradient = jax.value_and_grad(mean)(jnp.zeros(3))
  np.testing.assert_allclose(value, -np.sum(p * np.log(p)), rtol=2e-6)
  np.testing.assert_allclose(gradient, 0.0, atol=2e-6)
  assert mean(jnp.array([0.3, 0.0, 0.0])) > value + 1e-3
  nats = likelihood.next_token_log_likelihood(model, x)
  np.testing.assert_allclose(nats, np.log(p), rtol=2e-6)


@pytest.mark.slow
def test_a_causal_network_has_probabilities_that_sum_to_one():
  """Over all sequences: what a sum over conditionals that see their own token would not do."""
  net = networks.SequenceTransformer(num_values=3, width=8, depth=1, num_heads=2, causal=True)
  network, process = networks.as_network(net), processes.masked(3, (LENGTH,))
  x, _ = every_sequence()
  params, _ = network.init(jax.random.key(0), x, jnp.zeros(len(x)), None)
  params = jax.tree.map(lambda leaf: 0.5 * jax.random.normal(jax.random.key(leaf.size), leaf.shape), params)
  model = denoisers.from_network(network, process, denoisers.logits(), params, None, network.views)
  nats = np.asarray(likelihood.next_token_log_likelihood(model, x), np.float64)
  np.testing.assert_allclose(np.exp(nats).sum(), 1.0, rtol=1e-5)
  assert nats.std() > 0.1


def test_what_does_not_fit_is_refused():
  loss = losses.next_token()
  key, t = jax.random.key(0), jnp.zeros(2)
  with pytest.raises(ValueError, match="a dict with 'x'"):
    loss.draw(key, {"y": jnp.zeros((2, 3), jnp.int32)}, t, {})
  for x in (jnp.zeros((2, 3)), jnp.zeros((2, 3, 1), jnp.int32)):
    with pytest.raises(ValueError, match="whole numbers of shape"):
      loss.draw(key, {"x": x}, t, {})
  with pytest.raises(ValueError, match="next_logits"):
    losses.at_times(
      losses.uniform_times(0.0, 1.0),
      roles=losses.roles(model=denoisers.from_functions(logits=lambda params, x, t, cond: x)),
    )(loss)
