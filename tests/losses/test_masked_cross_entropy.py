"""The laws for the objective of masked states, whose data and model are a table; its value is the entropy."""

import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from diffusion import denoisers, losses, oracles, processes

SIZE, K, D = 16, 3, 2
JOINT = np.random.default_rng(2).dirichlet(np.full(K**D, 1.5)).reshape(K, K)
CLEAN = np.array(list(itertools.product(range(K), repeat=D)), np.int32)
EVERY = pytest.mark.parametrize("name", processes.MASKED)


def process(name="masked"):
  return processes.MASKED[name](K, (D,))


def oracle(of):
  return oracles.masked_categorical(of, JOINT)


def family(of, own=None):
  """The role 'model': the oracle's logits, plus a number for each state and value; the truth at zero."""

  def logits(own, x, t, cond=None):
    del cond
    exact = oracles.masked_categorical(of, JOINT, dtype=own.dtype).logits(x, t)
    return exact + own[x[:, 0], x[:, 1]]

  own = jnp.zeros((K + 1, K + 1, D, K)) if own is None else own
  return losses.roles(model=denoisers.from_functions(own, logits=logits))


def elsewhere(dtype=jnp.float32):
  return jnp.asarray(np.random.default_rng(3).normal(size=(K + 1, K + 1, D, K)), dtype)


def batch(n, seed=0):
  generator = np.random.default_rng(seed)
  x = CLEAN[generator.choice(len(CLEAN), n, p=JOINT.reshape(-1))]
  return {"x": jnp.asarray(x), "cond": {"label": jnp.asarray(generator.integers(0, 5, n), jnp.int32)}}


def times(n=SIZE):
  return jnp.linspace(0.1, 0.9, n)


def expectation(objective, of, model, t):
  """The exact expectation of the interior at time t, over clean states and masks."""
  rows = np.array(list(itertools.product(range(len(CLEAN)), *[range(2)] * D)))
  x0, hidden = CLEAN[rows[:, 0]], rows[:, 1:]
  keep = of.clock(float(t))
  weights = JOINT.reshape(-1)[rows[:, 0]] * np.prod(np.where(hidden, keep.noised, keep.alpha), axis=1)
  # Noise of 0 masks a coordinate at any time, and of 1 never.
  draw = losses.Draw(t=jnp.full(len(rows), t), x0=jnp.asarray(x0), noise=jnp.asarray(1.0 - hidden))
  return jnp.sum(jnp.asarray(weights) * objective({"model": model}, draw).interior)


@EVERY
def test_at_the_exact_posterior_the_bound_is_the_entropy(name, x64):
  """By enumeration at 64 nodes of Gauss-Legendre over t in [0, 1], to 1e-5 nats; away from it the bound is
  higher."""
  of = process(name)
  objective = losses.masked_cross_entropy(of)
  u, w = np.polynomial.legendre.leggauss(64)
  value = jax.jit(lambda model, t: expectation(objective, of, model, t))
  bound = lambda model: sum(
    0.5 * wi * float(expectation(objective, of, model, 0.5 * (ui + 1))) for ui, wi in zip(u, w)
  )
  entropy = -np.sum(JOINT * np.log(JOINT))
  np.testing.assert_allclose(float(oracle(of).entropy()), entropy, rtol=1e-12)
  assert abs(bound(oracle(of)) - entropy) < 1e-5
  off = family(of)({"model": elsewhere(jnp.float64)})["model"]
  assert bound(off) > entropy + 0.05
  del value


def test_the_minimiser_in_a_tabular_family_is_the_oracle(x64):
  of = process()
  objective = losses.masked_cross_entropy(of)
  value = lambda own: expectation(objective, of, family(of)({"model": own})["model"], 0.3)
  gradient = jax.jit(jax.grad(value))
  np.testing.assert_allclose(gradient(jnp.zeros((K + 1, K + 1, D, K))), 0.0, atol=1e-12)
  away = np.asarray(gradient(elsewhere(jnp.float64)))
  assert np.abs(away).max() > 0.01
  # States of known coordinates, and their own logits, take no part.
  assert not np.any(away[:K, :K]) and not np.any(away[:K, K, 0]) and not np.any(away[K, :K, 1])


@pytest.mark.parametrize("transform", ["identity", "scale", "condition_dropout"])
def test_the_gradient_at_the_oracle_is_zero_in_expectation(transform):
  """Sampled masks and times: each component within 4.5 standard errors of 4,096 draws (1e-4 for the 96 of a
  case)."""
  of = process()
  loss = losses.chain(
    losses.masked_cross_entropy(of),
    losses.TRANSFORMS[transform](),
    losses.at_times(losses.uniform_times(0.2, None), roles=family(of)),
  )

  @jax.jit
  def gradients(own):
    values = lambda own: loss.per_example(
      {"model": own, "loss": {}}, loss.init(jax.random.key(0))[1], 0, jax.random.key(4), batch(4096)
    )[0]
    return jax.jacfwd(values)(own).reshape(4096, -1)

  at_truth, off = (
    np.asarray(gradients(own), np.float64) for own in (jnp.zeros((K + 1, K + 1, D, K)), elsewhere())
  )
  assert np.all(np.abs(at_truth.mean(0)) <= 4.5 * at_truth.std(0) / 64.0 + 1e-7)
  assert np.any(np.abs(off.mean(0)) > 10 * off.std(0) / 64.0)


def test_rows_do_not_meet_and_follow_their_keys():
  of = process()
  objective = losses.masked_cross_entropy(of)
  model = family(of)({"model": elsewhere()})
  draw = objective.draw(jax.random.key(3), batch(SIZE), times(), {})
  whole = objective(model, draw)
  assert not np.any(whole.boundary) and np.all(np.isfinite(whole.interior)) and np.any(whole.interior > 0)
  order = np.random.default_rng(0).permutation(SIZE)
  picked = jax.tree.map(lambda leaf: leaf[order] if leaf.ndim else leaf, draw)
  np.testing.assert_allclose(objective(model, picked).interior, whole.interior[order], rtol=1e-6)
  part = objective.draw(
    jax.random.key(3),
    {**jax.tree.map(lambda a: a[order], batch(SIZE)), "index": jnp.asarray(order, jnp.int32)},
    times()[order],
    {},
  )
  chex.assert_trees_all_equal(part.noise, draw.noise[order])


def test_single_precision_agrees_with_double(x64):
  of = process()
  objective = losses.masked_cross_entropy(of)
  draw = objective.draw(jax.random.key(3), batch(SIZE), times().astype(jnp.float32), {})
  low, high = (
    objective(family(of)({"model": elsewhere(dtype)}), draw.replace(t=draw.t.astype(dtype))).interior
    for dtype in (jnp.float32, jnp.float64)
  )
  assert (low.dtype, high.dtype) == (np.float32, np.float64)
  np.testing.assert_allclose(low, high, rtol=3e-5, atol=3e-5)


def test_jit_and_eight_devices_give_one_value():
  of = process()
  loss = losses.chain(
    losses.masked_cross_entropy(of), losses.at_times(losses.low_discrepancy(), roles=family(of))
  )
  params, state = {"model": elsewhere(), "loss": {}}, loss.init(jax.random.key(0))[1]
  args = (params, state, jnp.int32(7), jax.random.key(5))
  data = batch(SIZE)
  spread = jax.device_put(
    data, NamedSharding(Mesh(np.array(jax.devices()), ("data",)), PartitionSpec("data"))
  )
  compiled = jax.jit(jax.value_and_grad(loss, has_aux=True))
  (one, _), gradient = compiled(*args, data)
  (many, _), many_gradient = compiled(*args, spread)
  plain, _ = loss(*args, data)
  np.testing.assert_allclose([one, many], plain, rtol=2e-5)
  chex.assert_trees_all_close(gradient, many_gradient, rtol=2e-5, atol=2e-5)


def test_at_a_time_without_noise_the_loss_is_zero():
  objective = losses.masked_cross_entropy(process())
  draw = losses.Draw(t=jnp.zeros(2), x0=jnp.zeros((2, D), jnp.int32), noise=jnp.zeros((2, D)))
  assert objective(family(process())({}), draw).interior.tolist() == [0.0, 0.0]


def test_misfits_raise_a_sentence():
  objective = losses.masked_cross_entropy(process())
  for call, words in (
    (lambda: losses.masked_cross_entropy(processes.edm()), "ends in masks"),
    (lambda: losses.masked_cross_entropy(processes.uniform_resample(3)), "ends in masks"),
    (lambda: objective.draw(jax.random.key(0), {"y": 0}, None, {}), "a dict with 'x'"),
    (lambda: objective.draw(jax.random.key(0), {"x": jnp.zeros((4, D))}, None, {}), "whole numbers of shape"),
    (
      lambda: objective.draw(jax.random.key(0), {"x": jnp.zeros((4, 3), int)}, None, {}),
      "whole numbers of shape",
    ),
    (
      lambda: losses.chain(
        objective, losses.at_times(roles=losses.roles(model=denoisers.from_functions(score=jnp.sin)))
      ),
      "needs 'logits' of the role 'model'",
    ),
  ):
    with pytest.raises(ValueError, match=words):
      call()


def network(of, seed=5):
  """Raw outputs over the K values, any numbers, whatever is masked."""
  raw = jnp.asarray(np.random.default_rng(seed).normal(size=(K + 1, K + 1, D, K)), jnp.float32)
  return denoisers.from_function(lambda own, x, t, cond: own[x[:, 0], x[:, 1]], of, denoisers.logits(), raw)


def test_a_mask_has_no_probability_and_what_is_seen_is_carried_over():
  """Over the K values alone the law sums to one; a seen coordinate is certain, and teaches nothing."""
  of = process()
  model = network(of)
  x_t = jnp.asarray(np.array(list(itertools.product(range(K + 1), repeat=D)), np.int32))
  p = np.asarray(model(x_t, jnp.full(len(x_t), 0.5), views=("probabilities",)).probabilities)
  np.testing.assert_allclose(p.sum(-1), 1.0, rtol=1e-6)
  seen = np.asarray(x_t) != of.mask
  np.testing.assert_array_equal(p[seen], np.eye(K)[np.asarray(x_t)[seen]])
  objective = losses.masked_cross_entropy(of)
  draw = objective.draw(jax.random.key(3), batch(SIZE), times(), {})
  x = np.asarray(objective.place({}, draw).x_t)
  slope = jax.grad(lambda own: jnp.sum(objective({"model": model.with_params(own)}, draw).interior))
  slope = np.asarray(slope(model.params))
  touched = np.zeros_like(slope, bool)
  for row in x:
    touched[row[0], row[1], row == of.mask] = True
  assert np.array_equal(slope != 0, touched) and touched.any() and not touched.all()


def test_stratified_times_keep_the_mean_and_take_out_variance():
  """256 batches of 64: means agree within 4.5 standard errors (7e-6), and the variance is about a half."""
  of = process()
  data = batch(64)

  def values(sampler):
    loss = losses.chain(losses.masked_cross_entropy(of), losses.at_times(sampler, roles=family(of)))
    params, state = {"model": elsewhere(), "loss": {}}, loss.init(jax.random.key(0))[1]
    one = lambda key: loss(params, state, 0, key, data)[0]
    return np.asarray(jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(1), 256)), np.float64)

  plain, even = values(losses.uniform_times()), values(losses.low_discrepancy())
  error = np.sqrt((plain.var() + even.var()) / 256)
  assert abs(plain.mean() - even.mean()) < 4.5 * error
  assert even.var() < 0.75 * plain.var()


def test_values_that_the_process_has_not_are_named():
  objective = losses.masked_cross_entropy(process())
  for value, words in ((K, "which is the mask"), (K + 1, "hold the value 4"), (-1, "hold the value -1")):
    with pytest.raises(ValueError, match=words):
      objective.draw(jax.random.key(0), {"x": jnp.full((4, D), value)}, times(4), {})
