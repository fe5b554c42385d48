"""The laws of the loss algebra for objectives of whole numbers.

Data and model are a table; the laws have the same names as in test_laws.py.
"""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from diffusion import denoisers, losses, processes
from losses import categorical_family as family

SIZE = 16
PAIRS = [
  (objective, process)
  for objective in losses.DISCRETE_OBJECTIVES
  for process in ("none", *processes.DISCRETE)
  if not (objective.startswith("denoising") and process == "none")
]
# Each objective once, and both kernels; the rest repeats them.
QUICK = (
  ("concrete_score_matching", "none"),
  ("concrete_score_matching_of_one_neighbour", "uniform_resample"),
  ("denoising_concrete_score_matching", "discretised_gaussian"),
)
ONCE = pytest.mark.parametrize(
  "name,process", [pytest.param(*pair, marks=() if pair == QUICK[1] else pytest.mark.slow) for pair in PAIRS]
)
ROTATION = pytest.mark.parametrize(
  "name,process", [pytest.param(*pair, marks=() if pair in QUICK else pytest.mark.slow) for pair in PAIRS]
)


@functools.cache
def make(name, process):
  of = family.process(process)
  return losses.DISCRETE_OBJECTIVES[name](of, family.neighbourhood()), of


@functools.cache
def programs(name, process):
  """(key, batch, t) -> placed draw and (parameters, placed) -> (interior [B], gradient of its mean), compiled
  once for all tests."""
  objective, of = make(name, process)

  def value(own, placed):
    terms = objective.evaluate(family.bound(of, own), placed, {}, {}, losses.START)
    return jnp.mean(terms.interior), terms

  evaluate = jax.jit(jax.value_and_grad(value, has_aux=True))

  def both(own, placed):
    (_, terms), gradient = evaluate(own, placed)
    assert not np.any(terms.boundary)
    return np.asarray(terms.interior), gradient

  return jax.jit(lambda key, batch, t: objective.place({}, objective.draw(key, batch, t, {}))), both


def times(n=SIZE, dtype=jnp.float32):
  return jnp.linspace(0.1, 0.9, n, dtype=dtype)


def pick(draw, rows):
  return jax.tree.map(lambda leaf: leaf[rows] if leaf.ndim else leaf, draw)


# 1. Linearity.


@pytest.mark.slow
@pytest.mark.parametrize("name,process", PAIRS)
def test_linear_combination_is_linear_in_value_and_gradient(name, process):
  first, of = make(name, process)
  second = losses.chain(first, losses.weight_by(lambda process, t: 1.0 + t))
  total = losses.add(losses.chain(first, losses.scale(2.0)), losses.chain(second, losses.scale(-0.5)))
  placed = programs(name, process)[0](jax.random.key(3), family.batch(SIZE), times())

  @jax.jit
  def gradients(own):
    def value(own, weight):  # every part draws from the same key: the parts of the sum share this point
      roles = family.bound(of, own)
      if weight is None:
        return jnp.mean(total.evaluate(roles, (placed, placed), ({}, {}), ({}, {}), losses.START).interior)
      return jnp.mean(weight * first.evaluate(roles, placed, {}, {}, losses.START).interior)

    return [jax.value_and_grad(value)(own, weight) for weight in (None, 2.0 - 0.5 * (1.0 + times()))]

  chex.assert_trees_all_close(*gradients(family.params(2)), rtol=2e-5, atol=1e-5)


# 2. Rows are independent at a fixed draw.


@ONCE
def test_rows_do_not_meet(name, process):
  draw, both = programs(name, process)
  draw, own = draw(jax.random.key(3), family.batch(SIZE), times()), family.params(2)
  whole = both(own, draw)[0]
  order = np.random.default_rng(0).permutation(SIZE)
  np.testing.assert_allclose(both(own, pick(draw, order))[0], whole[order], rtol=1e-6)
  replaced = np.where(np.arange(SIZE) < 8, np.arange(SIZE), 5)  # every row after the eighth is now the fifth
  np.testing.assert_allclose(both(own, pick(draw, replaced))[0], whole[replaced], rtol=1e-6)


@ONCE
def test_the_draw_of_a_row_depends_on_key_and_index_alone(name, process):
  draw, _ = programs(name, process)
  t, data, key, rows = (
    times(),
    family.batch(SIZE),
    jax.random.key(2),
    np.random.default_rng(3).permutation(SIZE),
  )
  whole = draw(key, data, t)
  part = draw(key, {**jax.tree.map(lambda a: a[rows], data), "index": jnp.asarray(rows, jnp.int32)}, t[rows])
  for leaf in ("x_t", "cond", "keys", "targets"):
    chex.assert_trees_all_equal(getattr(part, leaf), jax.tree.map(lambda a: a[rows], getattr(whole, leaf)))


# 4. The true concrete score is where the loss is least.


@ROTATION
def test_the_minimiser_in_a_tabular_family_is_the_oracle(name, process, x64):
  """Exact: the expectation is a sum over clean states, noised states and choices; the loss is quadratic in
  the table."""
  objective, of = make(name, process)
  exists = np.asarray(family.neighbourhood().values(jnp.asarray(family.STATES))[1]).reshape(-1)
  assert 0 < exists.sum() < exists.size
  zero = family.params(dtype=jnp.float64)["table"]

  @jax.jit
  def gradient(table):
    placed, weights = family.expectation(objective, of, 0.3)
    expected = lambda table: jnp.sum(
      weights * objective.evaluate(family.bound(of, {"table": table}), placed, {}, {}, losses.START).interior
    )
    return jax.value_and_grad(expected)(table)

  value, at_truth = gradient(zero)
  np.testing.assert_allclose(at_truth, 0.0, atol=1e-12)
  # The Hessian is diagonal, 2 p_t(x) for the neighbours that exist: a unit step in all of them at once gives
  # all of it.
  p, truth = jax.jit(
    lambda t: (
      family.table(of, t, jnp.float64)[0].reshape(-1),
      family.concrete(of)({"table": zero}, jnp.asarray(family.STATES), t),
    )
  )(jnp.full(6, 0.3))
  p, truth = np.asarray(p), np.asarray(truth)
  slope = np.asarray(gradient(zero + 1.0)[1]).reshape(6, 3)
  np.testing.assert_allclose(slope, 2.0 * p[:, None] * exists.reshape(6, 3), atol=1e-12)
  if "denoising" not in name:  # at the truth, minus its mean square
    np.testing.assert_allclose(value, -np.sum(p[:, None] * exists.reshape(6, 3) * truth**2), rtol=1e-12)


@pytest.mark.parametrize("transform", ["weight_by_balanced", "identity", "scale", "condition_dropout"])
@pytest.mark.slow
def test_the_gradient_at_the_oracle_is_zero_in_expectation(transform):
  """Under transforms and sampled noise and times: each component within 4.5 standard errors (1e-4 for the 15
  of a case)."""
  objective, of = make("denoising_concrete_score_matching", "uniform_resample")
  step = (
    losses.weight_by(losses.balanced())
    if transform == "weight_by_balanced"
    else losses.TRANSFORMS[transform]()
  )
  loss = losses.chain(
    objective, step, losses.at_times(losses.uniform_times(0.2, None), roles=family.roles(of))
  )

  @jax.jit
  def gradients(own):
    values = lambda own: loss.per_example(
      {"model": own, "loss": {}}, loss.init(jax.random.key(0))[1], 0, jax.random.key(4), family.batch(4096)
    )[0]
    return jax.jacfwd(values)(own)["table"].reshape(4096, -1)

  at_truth, off = (np.asarray(gradients(family.params(seed)), np.float64) for seed in (None, 2))
  assert np.all(np.abs(at_truth.mean(0)) <= 4.5 * at_truth.std(0) / 64.0)
  assert np.any(np.abs(off.mean(0)) > 10 * off.std(0) / 64.0)


# 5. The same value however it is computed.


@pytest.mark.slow
@pytest.mark.parametrize("name,process", PAIRS)
def test_single_precision_agrees_with_double(name, process, x64):
  draw, both = programs(name, process)
  draw = draw(jax.random.key(3), family.batch(SIZE), times())
  widen = lambda leaf: leaf.astype(jnp.float64) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf
  low, high = (
    both(family.params(2), draw)[0],
    both(family.params(2, jnp.float64), jax.tree.map(widen, draw))[0],
  )
  assert (low.dtype, high.dtype) == (np.float32, np.float64)
  np.testing.assert_allclose(low, high, rtol=3e-5, atol=3e-5)


@ONCE
def test_jit_grad_and_eight_devices_give_one_value(name, process):
  objective, of = make(name, process)
  transform = losses.condition_dropout(0.3) if process == "none" else losses.weight_by(losses.balanced())
  loss = losses.chain(
    objective, transform, losses.at_times(losses.uniform_times(0.1, 0.9), roles=family.roles(of))
  )
  params, state = {"model": family.params(2), "loss": {}}, loss.init(jax.random.key(0))[1]
  data, key, step = family.batch(SIZE), jax.random.key(5), jnp.int32(7)
  spread = jax.device_put(
    data, NamedSharding(Mesh(np.array(jax.devices()), ("data",)), PartitionSpec("data"))
  )
  compiled = jax.jit(jax.value_and_grad(loss, has_aux=True))
  (one, (_, one_metrics)), one_gradient = compiled(params, state, step, key, data)
  (many, _), many_gradient = compiled(params, state, step, key, spread)
  # Without any compilation where it is slow, as a forward pass alone otherwise.
  plain, (_, metrics) = (jax.jit(loss) if (name, process) == QUICK[1] else loss)(
    params, state, step, key, data
  )
  np.testing.assert_allclose([one, many, metrics["loss"]], plain, rtol=2e-5)
  chex.assert_trees_all_close(one_metrics, metrics, rtol=2e-5, atol=1e-6)
  chex.assert_trees_all_close(one_gradient, many_gradient, rtol=2e-5, atol=2e-5)


# 6. What does not fit raises when it is built.


def denoising():
  return make("denoising_concrete_score_matching", "uniform_resample")[0]


@pytest.mark.parametrize(
  "build,words",
  [
    (lambda: losses.chain(denoising(), losses.weight_by(losses.min_snr())), "this weight do not fit"),
    (
      lambda: losses.chain(denoising(), losses.weight_by(losses.likelihood())),
      "on the process of denoising_concrete_score_matching (uniform_resample)",
    ),
    (
      lambda: losses.chain(denoising(), losses.second_order()),
      "second_order does not fit denoising_concrete_score_matching",
    ),
    (lambda: losses.chain(denoising(), losses.uncertainty()), "its process (UniformResample) has none"),
    (
      lambda: losses.chain(
        losses.denoising_score_matching(processes.edm()), losses.weight_by(losses.balanced())
      ),
      "do not fit",
    ),
    (lambda: losses.denoising_score_matching(family.process("uniform_resample")), "needs a Gaussian process"),
    (lambda: losses.score_matching(family.process("uniform_resample")), "Gaussian process"),
    (
      lambda: losses.denoising_concrete_score_matching(None, family.neighbourhood()),
      "concrete_score_matching(None, neighbourhood)",
    ),
    (
      lambda: losses.denoising_concrete_score_matching(processes.edm(), family.neighbourhood()),
      "discrete process such as processes.uniform_resample",
    ),
    (lambda: losses.concrete_score_matching(None, 16), "neighbourhoods.cycle(16), got int"),
    (
      lambda: losses.concrete_score_matching(processes.uniform_resample(16), family.neighbourhood()),
      "give both the same",
    ),
    (
      lambda: losses.concrete_score_matching(None, family.neighbourhood(), num_reverse=4),
      "num_reverse=1 to 3",
    ),
    (
      lambda: losses.chain(
        denoising(), losses.at_times(roles=losses.roles(model=denoisers.from_functions(score=jnp.sin)))
      ),
      "needs 'concrete_score' of the role 'model'",
    ),
    (
      lambda: losses.chain(
        make("concrete_score_matching", "none")[0], losses.at_times(roles=family.roles(None))
      ),
      "no process with t_min and t_max",
    ),
  ],
)
def test_misfits_raise_a_sentence_at_build_time(build, words):
  with pytest.raises(ValueError) as caught:
    build()
  assert words in str(caught.value)


def test_bad_batches_raise_a_sentence():
  objective = denoising()
  for bad, words in (
    ({"x": jnp.zeros((4, 2))}, "whole numbers of shape"),
    ({"x": jnp.zeros((4, 3), int)}, "whole numbers of shape"),
    ({"y": jnp.zeros((4, 2), int)}, "a dict with 'x'"),
  ):
    with pytest.raises(ValueError, match=words):
      objective.draw(jax.random.key(0), bad, None, {})
  wrong = losses.roles(
    model=denoisers.from_functions(concrete_score=lambda own, x, t, cond=None: jnp.zeros((x.shape[0], 2)))
  )({"model": {}}, {})
  with pytest.raises(ValueError, match="has 3 neighbours"):
    jax.eval_shape(lambda: objective(wrong, objective.draw(jax.random.key(0), family.batch(4), times(4), {})))
