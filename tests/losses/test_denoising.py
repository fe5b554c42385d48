"""Denoising score matching, condition dropout and learned uncertainty against what they promise."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from diffusion import denoisers, losses, processes
from losses import gaussian_family as family


def test_the_oracle_reaches_the_posterior_variance():
  """E ||eps - E[eps|x_t]||^2 = tr(sigma^-2 alpha^2 Cov[x0|x_t]): within 4.5 standard errors of its closed
  form."""
  process = processes.vp_linear()
  t = jnp.full((20000,), 0.3)
  objective = losses.denoising_score_matching(process)
  draw = objective.draw(jax.random.key(1), family.batch(20000), t, {})
  values = np.asarray(objective(family.bound(process, family.params()), draw).interior, np.float64)
  m = process.marginal(0.3)
  covariance = np.asarray(family.COVARIANCE)
  total = m.alpha**2 * covariance + m.sigma**2 * np.eye(2)
  posterior = covariance - m.alpha**2 * covariance @ np.linalg.solve(total, covariance)
  expected = (m.alpha / m.sigma) ** 2 * np.trace(posterior)
  assert abs(values.mean() - expected) < 4.5 * values.std() / np.sqrt(values.size)


def test_per_dimension_divides_by_the_dimension():
  process = processes.edm()
  sums, means = (losses.denoising_score_matching(process, per_dimension=flag) for flag in (False, True))
  draw = sums.draw(jax.random.key(1), family.batch(6), jnp.ones(6), {})
  roles = family.bound(process, family.params(family.ELSEWHERE))
  np.testing.assert_allclose(sums(roles, draw).interior, 2 * means(roles, draw).interior)


@pytest.mark.parametrize("target", ["eps", "x0", "score", "v"])
def test_the_ends_of_the_process_are_finite(target):
  """t = 0 holds no noise and t = 1 no signal; a network in the target's own view has a finite loss at
  both."""
  process = processes.rectified_flow()
  kind = getattr(denoisers, target)()
  template = denoisers.from_function(lambda params, x, t, cond: params * x, process, kind, jnp.ones(()))
  objective = losses.denoising_score_matching(process, target=target)
  draw = objective.draw(jax.random.key(0), family.batch(2), jnp.array([0.0, 1.0]), {})
  roles = losses.roles(model=template)
  value = lambda p: jnp.sum(objective(roles({"model": p}, {}), draw).interior)
  assert np.all(np.isfinite(jax.value_and_grad(value)(jnp.ones(()))))


def test_half_precision_data_is_reduced_in_single():
  process = processes.vp_linear()
  template = denoisers.from_function(
    lambda p, x, t, cond: (0.0 * x).astype(x.dtype), process, denoisers.eps(), {}
  )
  objective = losses.denoising_score_matching(process)
  x = jnp.zeros((2, 4096))
  draw = objective.draw(jax.random.key(0), {"x": x}, jnp.full(2, 0.5), {})
  roles = losses.roles(model=template)({"model": {}}, {})
  placed = objective.place(roles, draw)
  placed = placed.replace(x_t=placed.x_t.astype(jnp.bfloat16), noise=jnp.ones_like(draw.noise))
  terms = objective.evaluate(roles, placed, {}, {}, losses.START)
  np.testing.assert_allclose(terms.interior, 4096.0)


class Counting(nn.Module):
  """A network with dropout and a mutable count of its calls."""

  @nn.compact
  def __call__(self, x, t, cond=None, train=False):
    calls = self.variable("counts", "calls", lambda: jnp.zeros(()))
    if train and not self.is_initializing():
      calls.value = calls.value + 1.0
    return nn.Dropout(0.5, deterministic=not train)(nn.Dense(x.shape[-1])(x))


def test_mutable_collections_and_dropout_go_through_the_loss_state():
  process, x = processes.vp_linear(), jnp.ones((8, 2))
  variables = Counting().init(jax.random.key(0), x, jnp.ones(8))
  template = denoisers.from_flax(
    Counting(), process, denoisers.eps(), variables["params"], {"counts": variables["counts"]}
  )
  loss = losses.chain(
    losses.denoising_score_matching(process),
    losses.at_times(roles=losses.roles(model=template, ema=template)),
  )
  loss_params, state = loss.init(jax.random.key(0))
  params = {"model": variables["params"], "ema": variables["params"], "loss": loss_params}
  step = jax.jit(
    lambda state, i, train: loss(params, state, i, jax.random.key(1), {"x": x}, train=train), static_argnums=2
  )
  first, (state, _) = step(state, 0, True)
  again, (state, _) = step(state, 0, True)
  assert float(state["collections"]["model"]["counts"]["calls"]) == 2.0
  assert float(state["collections"]["ema"]["counts"]["calls"]) == 0.0
  assert first == again
  quiet, (state, _) = step(state, 0, False)
  assert quiet != first and float(state["collections"]["model"]["counts"]["calls"]) == 2.0


def test_condition_dropout_drops_whole_examples_at_its_rate():
  """The dropped fraction within 4.5 standard errors; labels and vectors of one example go together."""
  size, rate = 5000, 0.3
  objective = losses.chain(losses.denoising_score_matching(processes.edm()), losses.condition_dropout(rate))
  plain = losses.denoising_score_matching(processes.edm())
  cond = {"label": jnp.arange(size) % 7, "vector": jnp.ones((size, 3))}
  batch, t = {"x": jnp.zeros((size, 2)), "cond": cond}, jnp.ones(size)
  draw = objective.draw(jax.random.key(0), batch, t, {})
  dropped = np.asarray(draw.cond["label"] == -1)
  assert abs(dropped.mean() - rate) < 4.5 * np.sqrt(rate * (1 - rate) / size)
  np.testing.assert_array_equal(
    np.asarray(draw.cond["vector"]), np.where(dropped[:, None], 0.0, 1.0) * np.ones(3)
  )
  np.testing.assert_array_equal(np.asarray(draw.cond["label"])[~dropped], np.asarray(cond["label"])[~dropped])
  # The noise is the one drawn without dropout.
  np.testing.assert_array_equal(draw.noise, plain.draw(jax.random.key(0), batch, t, {}).noise)


def noise_level_loss(process):
  """A loss whose expectation at each time is known: (sigma^2 + 1) times a mean-one variable."""

  def draw(key, batch, t, state):
    keys = losses.example_keys(key, batch)
    return losses.Draw(t=t, x0=batch["x"], targets={"z": jax.vmap(jax.random.exponential)(keys)})

  def place(roles, draw):
    return losses.placed_at(draw, draw.x0)

  def evaluate(roles, placed, params, state, clock):
    return losses.terms((process.marginal(placed.t).sigma ** 2 + 1.0) * placed.targets["z"])

  return losses.Objective("noise_level", draw=draw, place=place, evaluate=evaluate, process=process)


def test_the_optimal_uncertainty_is_the_log_of_the_expected_loss():
  """u is linear in its parameters, so Newton's method finds the optimum; u = log E[L] to 3% of E[L]
  inside."""
  process = processes.vp_linear()
  objective = losses.chain(noise_level_loss(process), losses.uncertainty(32))
  (params, state), t = objective.init(jax.random.key(0)), jnp.linspace(0.01, 1.0, 400)
  draw = losses.Draw(t=t, x0=jnp.zeros((400, 1)), targets={"z": jnp.ones(400)})
  flat, unflatten = ravel_pytree(params["own"])

  def terms(vector):
    return objective({}, draw, {"inner": {}, "own": unflatten(vector)}, state)

  value = lambda vector: jnp.mean(terms(vector).interior) + 5e-7 * jnp.sum(vector**2)
  newton = jax.jit(
    lambda vector: vector - jnp.linalg.solve(jax.hessian(value)(vector), jax.grad(value)(vector))
  )
  for _ in range(8):
    flat = newton(flat)
  expected = jnp.log(process.marginal(t).sigma ** 2 + 1.0)
  np.testing.assert_allclose(terms(flat).metrics["uncertainty"], expected, atol=0.03)
  np.testing.assert_allclose(np.mean(terms(flat).interior), np.mean(1.0 + expected), atol=1e-3)


def test_uncertainty_starts_as_the_plain_loss():
  process = processes.edm()
  plain = losses.denoising_score_matching(process)
  learned = losses.chain(plain, losses.uncertainty())
  params, state = learned.init(jax.random.key(0))
  draw = plain.draw(jax.random.key(1), family.batch(5), jnp.linspace(0.1, 2.0, 5), {})
  own = family.params(family.ELSEWHERE)
  np.testing.assert_array_equal(
    learned(family.bound(process, own), draw, params, state).interior,
    plain(family.bound(process, own), draw).interior,
  )
