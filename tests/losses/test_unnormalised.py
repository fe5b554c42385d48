"""Unnormalised densities.

The minimisers of noise-contrastive estimation and of the compositional likelihood.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion import denoisers, losses, processes

CLOSING = losses.at_times(
  losses.uniform_times(0.0, 1.0),
  roles=losses.roles(
    model=denoisers.from_functions(
      energy=lambda own, x, t, cond=None: (
        0.5 * jnp.exp(own["log_precision"]) * jnp.sum(jnp.square(x - own["mean"]), 1)
      )
    )
  ),
)
TRUTH = {"mean": 1.5, "log_precision": float(np.log(1 / 0.8**2))}
LOG_Z = float(0.5 * np.log(2 * np.pi * 0.8**2))


def gradient_of(loss, own, loss_params, state, size=200_000, steps=1):
  """The gradient at parameters, with the loss's value and state, on a large batch of N(1.5, 0.8^2)."""
  x = 1.5 + 0.8 * jax.random.normal(jax.random.key(1), (size, 1))

  @jax.jit
  def run(own, loss_params, state):
    return jax.value_and_grad(
      lambda own, loss_params: loss(
        {"model": own, "loss": loss_params}, state, 0, jax.random.key(2), {"x": x}
      ),
      argnums=(0, 1),
      has_aux=True,
    )(own, loss_params)

  (value, (state, metrics)), gradient = run(own, loss_params, state)
  return float(value), state, metrics, gradient


@pytest.mark.parametrize("num_noise", [pytest.param(1, marks=pytest.mark.slow), 4])
def test_the_true_density_and_normaliser_are_where_the_loss_is_least(num_noise):
  """All gradients vanish at the truth, log Z among them (200,000 points: within 0.01), and do not away from
  it."""
  loss = losses.chain(
    losses.noise_contrastive_estimation(noise=losses.gaussian_noise(0.0, 2.0), num_noise=num_noise), CLOSING
  )
  loss_params, state = loss.init(jax.random.key(0))
  own = jax.tree.map(jnp.float32, TRUTH)
  at_truth = gradient_of(loss, own, loss_params | {"log_normalizer": jnp.float32(LOG_Z)}, state)[3]
  assert max(abs(float(g)) for g in jax.tree.leaves(at_truth)) < 0.01
  wrong = gradient_of(loss, own, loss_params | {"log_normalizer": jnp.float32(LOG_Z + 0.5)}, state)[3]
  assert float(wrong[1]["log_normalizer"]) > 0.05


@pytest.mark.slow
def test_a_learned_noise_fits_the_data_and_feels_nothing_of_the_logistic_loss():
  loss = losses.chain(
    losses.noise_contrastive_estimation(noise=losses.fitted_gaussian_noise(0.0, 1.0)), CLOSING
  )
  loss_params, state = loss.init(jax.random.key(0))
  assert set(loss_params) == {"noise", "log_normalizer"}
  own = jax.tree.map(jnp.float32, TRUTH)
  noise = gradient_of(loss, own, loss_params, state)[3][1]["noise"]
  # Of the negative log-likelihood of N(1.5, 0.64) under N(m, s^2) at m = 0, s = 1: -1.5 and 1 - (1.5^2 +
  # 0.64).
  np.testing.assert_allclose([noise["mean"], noise["log_std"]], [-1.5, 1 - 2.89], atol=0.03)
  fitted = {"mean": jnp.float32(1.5), "log_std": jnp.float32(np.log(0.8))}
  noise = gradient_of(loss, own, {"noise": fitted, "log_normalizer": jnp.float32(LOG_Z)}, state)[3][1][
    "noise"
  ]
  assert max(abs(float(g)) for g in noise.values()) < 0.01
  # Where model and noise are the data's density alike, nothing tells them apart.
  value = gradient_of(loss, own, {"noise": fitted, "log_normalizer": jnp.float32(LOG_Z)}, state)[2]
  np.testing.assert_allclose(value["nce"], 2 * np.log(2), atol=0.01)


def test_the_compositional_likelihood_is_the_likelihood_and_its_gradient():
  """On a large batch with a broad noise: value and gradient of the exact negative log-likelihood, away from
  the truth."""
  loss = losses.chain(
    losses.compositional_likelihood(noise=losses.gaussian_noise(0.0, 2.5), rate=1.0), CLOSING
  )
  loss_params, state = loss.init(jax.random.key(0))
  own = {"mean": jnp.float32(0.5), "log_precision": jnp.float32(-0.4)}

  def exact(own):  # of N(1.5, 0.64) under N(mean, 1/precision)
    square = (1.5 - own["mean"]) ** 2 + 0.64
    return (
      0.5 * jnp.exp(own["log_precision"]) * square + 0.5 * jnp.log(2 * jnp.pi) - 0.5 * own["log_precision"]
    )

  value, state, metrics, gradient = gradient_of(loss, own, loss_params, state)
  expected, slope = jax.value_and_grad(exact)(own)
  np.testing.assert_allclose(value, expected, atol=0.02)
  np.testing.assert_allclose(metrics["log_normalizer"], 0.5 * np.log(2 * np.pi) + 0.2, atol=0.02)
  for name in own:
    np.testing.assert_allclose(gradient[0][name], slope[name], atol=0.02)
  assert int(state["objective"]["count"]) == 1
  np.testing.assert_allclose(state["objective"]["log_normalizer"], metrics["log_normalizer"], rtol=1e-6)


@pytest.mark.slow
def test_the_running_normaliser_lowers_the_variance_and_its_bias_is_of_the_order_it_declares():
  """Batches of 4 at fixed parameters: E log u is off by about -Var(u) / (2 u^2), which halves with the
  rate."""
  gaps = {}
  own = {"mean": jnp.float32(0.5), "log_precision": jnp.float32(-0.4)}
  truth = 0.5 * np.log(2 * np.pi) + 0.2
  x = jnp.zeros((4, 1))
  for rate in (0.2, 0.1):
    objective = losses.compositional_likelihood(noise=losses.gaussian_noise(0.0, 4.0), rate=rate)
    roles = CLOSING(objective).roles({"model": own, "loss": {}}, {})

    def chain(key, objective=objective, roles=roles):
      def step(state, key):
        draw = objective.draw(key, {"x": x}, jnp.zeros(4), state)
        terms = objective(roles, draw, state=state)
        return objective.update(state, draw.t, terms), terms.metrics["log_normalizer"][0]

      return jax.lax.scan(step, objective.init(key)[1], jax.random.split(key, 300))[1][100:]

    off = jax.jit(jax.vmap(chain))(jax.random.split(jax.random.key(0), 500)) - truth
    gaps[rate] = float(
      jnp.mean(jnp.expm1(off) - off)
    )  # u itself is unbiased: a control variate of mean nought
  assert objective.bias_order == 1
  assert 1.7 < gaps[0.2] / gaps[0.1] < 2.5, gaps  # 0.2 / 1.8 over 0.1 / 1.9 is 2.1


@pytest.mark.slow
def test_both_act_on_noised_data_with_a_noise_that_is_noised_alike(x64):
  """At the noised Gaussian's own energy: NCE cannot tell a noise that is the data's own density, and the
  weights are one."""
  process = processes.vp_cosine()
  t = jnp.full((6,), 0.4)
  variance = lambda t: process.marginal(t).alpha ** 2 * 0.64 + process.marginal(t).sigma ** 2
  energy = lambda own, x, t, cond=None: jnp.sum(
    0.5 * (x - 1.5 * process.marginal(t).alpha[:, None]) ** 2 / variance(t)[:, None]
    + 0.5 * jnp.log(2 * np.pi * variance(t))[:, None],
    1,
  )
  roles = losses.roles(model=denoisers.from_functions(energy=energy))
  for objective in (
    losses.noise_contrastive_estimation(process, losses.gaussian_noise(1.5, 0.8), learn_normalizer=False),
    losses.compositional_likelihood(process, losses.gaussian_noise(1.5, 0.8)),
  ):
    loss_params, state = objective.init(jax.random.key(0))
    draw = objective.draw(jax.random.key(1), {"x": jnp.ones((6, 1))}, t, state)
    terms = objective(roles({"model": {}}), draw, loss_params, state)
    if objective.coupled:
      np.testing.assert_allclose(terms.metrics["log_normalizer"], 0.0, atol=1e-12)
      np.testing.assert_allclose(terms.metrics["log_weight_variance"], 0.0, atol=1e-12)
    else:
      np.testing.assert_allclose(terms.interior, 2 * np.log(2), rtol=1e-12)


def test_the_gaussian_mean_is_found_where_the_classifier_is_flat():
  """R = 4 in 200 steps: within 0.15 by MECO with a broad noise, off by more than 0.3 by NCE at the better of
  two rates."""
  from experiments.meco import unnormalised

  error = lambda objective, rate: unnormalised.mean_errors(
    objective, 4.0, learning_rate=rate, steps=200, batch_size=128, seed=0
  )[-1]
  assert error(losses.compositional_likelihood(noise=losses.gaussian_noise(0.0, 4.0)), 0.05) < 0.15
  nce = losses.noise_contrastive_estimation(noise=losses.gaussian_noise(0.0, 1.0))
  assert min(error(nce, 0.05), error(nce, 0.5)) > 0.3


@pytest.mark.parametrize(
  "build,error,words",
  [
    (lambda: losses.noise_contrastive_estimation(noise=1.0), TypeError, "losses.gaussian_noise"),
    (lambda: losses.noise_contrastive_estimation(num_noise=0), ValueError, "num_noise=1 or more"),
    (lambda: losses.compositional_likelihood(rate=0.0), ValueError, "between 0 and 1"),
    (
      lambda: losses.compositional_likelihood(noise=losses.fitted_gaussian_noise()),
      ValueError,
      "a noise that is given",
    ),
    (lambda: losses.gaussian_noise(0.0, 0.0), ValueError, "positive"),
    (lambda: losses.fitted_gaussian_noise(np.zeros(2), np.array([1.0, -1.0])), ValueError, "positive"),
    (lambda: losses.noise_contrastive_estimation(process=2.0), ValueError, "process=None; got float"),
  ],
)
def test_mistakes_raise_a_sentence(build, error, words):
  with pytest.raises(error, match=words):
    build()
