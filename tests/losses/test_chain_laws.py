"""The laws of the loss algebra for objectives of whole numbers whose model answers logits.

The model is a table; laws have the names that they have in test_laws.py, and values are held in
test_chain_bounds.py.
"""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from diffusion import losses, processes
from losses import enumerated

SIZE, K, D = 16, 3, 2
JOINT = enumerated.joint(D, K, seed=2)
MASKS, CHAINS = losses.MASKED_OBJECTIVES, losses.CHAIN_OBJECTIVES
BUILD = processes.MASKED | processes.DISCRETE | processes.CHAINS
JUMPS = [name for name, build in processes.CHAINS.items() if build(K, (D,)).jumps]
# Every objective on masks and on uniform noise, and every other chain once in continuous time and with steps.
PAIRS = [
  *((name, "masked") for name in MASKS),
  *((name, of) for name in CHAINS for of in ("masked", "uniform_resample")),
  *(("continuous_time_bound", of) for of in JUMPS),
  *(("d3pm_bound", of) for of in processes.CHAINS),
]


def some(pairs):
  """The pairs of a test: these by default, the others when slow."""
  marks = lambda pair: () if pair in pairs else pytest.mark.slow
  return pytest.mark.parametrize("name,process", [pytest.param(*pair, marks=marks(pair)) for pair in PAIRS])


FEW = [
  ("generalised_masked_cross_entropy", "masked"),
  ("score_entropy", "uniform_resample"),
  ("d3pm_bound_auxiliary", "masked"),
]


@functools.cache
def make(name, process):
  of = BUILD[process](K, (D,))
  return (MASKS | CHAINS)[name](of), of


def params(dtype=jnp.float32, states=K + 1):
  return jnp.asarray(np.random.default_rng(3).normal(size=(states**D, D, K)), dtype)


@functools.cache
def roles(process):
  of = BUILD[process](K, (D,))
  model = enumerated.tabular(of, params(states=of.num_states), of.num_states)
  return losses.roles(model=model, schedule=losses.value_exponents([0.7, 1.0, 1.6], K))


def bound(process, own):
  return roles(process)({"model": own})


@functools.cache
def programs(name, process):
  """(key, batch, t) -> placed draw and (parameters, placed) -> (interior [B], gradient of its mean)."""
  objective, _ = make(name, process)
  roles(process)  # made outside of the programs that share it

  def value(own, placed):
    terms = objective.evaluate(bound(process, own), placed, {}, {}, losses.START)
    return jnp.mean(terms.interior), terms

  def draw(key, batch, t):
    return objective.place(roles(process)({}), objective.draw(key, batch, t, {}))

  return jax.jit(draw), jax.jit(jax.value_and_grad(value, has_aux=True))


def batch(n, seed=0):
  generator = np.random.default_rng(seed)
  x = enumerated.states(K, D)[generator.choice(K**D, n, p=JOINT.reshape(-1))]
  return {"x": jnp.asarray(x), "cond": {"label": jnp.asarray(generator.integers(0, 5, n), jnp.int32)}}


def times(n=SIZE, dtype=jnp.float32):
  return jnp.linspace(0.1, 0.9, n, dtype=dtype)


def own_params(process, dtype=jnp.float32):
  return params(dtype, BUILD[process](K, (D,)).num_states)


def pick(draw, rows):
  return jax.tree.map(lambda leaf: leaf[rows] if leaf.ndim else leaf, draw)


# 1. Linearity.


@some([])
def test_linear_combination_is_linear_in_value_and_gradient(name, process):
  first, _ = make(name, process)
  second = losses.chain(first, losses.weight_by(lambda process, t: 1.0 + t))
  total = losses.add(losses.chain(first, losses.scale(2.0)), losses.chain(second, losses.scale(-0.5)))
  draw, _ = programs(name, process)
  placed = draw(jax.random.key(3), batch(SIZE), times())

  @jax.jit
  def both(own):
    def value(own, summed):
      at = bound(process, own)
      if summed:
        return jnp.mean(total.evaluate(at, (placed, placed), ({}, {}), ({}, {}), losses.START).interior)
      interior = first.evaluate(at, placed, {}, {}, losses.START).interior
      return jnp.mean((2.0 - 0.5 * (1.0 + placed.t)) * interior)

    return [jax.value_and_grad(value)(own, summed) for summed in (True, False)]

  chex.assert_trees_all_close(*both(own_params(process)), rtol=2e-5, atol=1e-5)


# 2. Rows are independent at a fixed draw.


@some(FEW)
def test_rows_do_not_meet_and_follow_their_keys(name, process):
  draw, evaluate = programs(name, process)
  own, order = own_params(process), np.random.default_rng(0).permutation(SIZE)
  placed = draw(jax.random.key(3), batch(SIZE), times())
  interior = lambda placed: np.asarray(evaluate(own, placed)[0][1].interior)
  whole = interior(placed)
  assert np.all(np.isfinite(whole)) and np.any(whole > 0)
  np.testing.assert_allclose(interior(pick(placed, order)), whole[order], rtol=1e-6, atol=1e-6)
  replaced = np.where(np.arange(SIZE) < 8, np.arange(SIZE), 5)
  np.testing.assert_allclose(interior(pick(placed, replaced)), whole[replaced], rtol=1e-6, atol=1e-6)
  part = {**jax.tree.map(lambda a: a[order], batch(SIZE)), "index": jnp.asarray(order, jnp.int32)}
  again = draw(jax.random.key(3), part, times()[order])
  for leaf in ("x_t", "t", "cond", "keys", "targets"):
    chex.assert_trees_all_equal(getattr(again, leaf), jax.tree.map(lambda a: a[order], getattr(placed, leaf)))


# 4. The true posterior is where the loss is least.


ENUMERATED = [pair for pair in PAIRS if pair[0] in CHAINS and pair[1] in ("masked", "uniform_resample")]
FIRST = ("discrete_flow_matching", "score_entropy_of_one_weight")


@pytest.mark.parametrize(
  "name,process",
  [pytest.param(*pair, marks=() if pair[0] in FIRST else pytest.mark.slow) for pair in ENUMERATED],
)
def test_the_gradient_at_the_posterior_is_zero_in_expectation(name, process, x64):
  """Exact, at one time (or step): over all clean and noised states."""
  objective, of = make(name, process)
  x0, x_t, q = enumerated.pairs(JOINT, enumerated.kernel(of, 0.4))
  placed = enumerated.placed(0.4, x0, x_t, s=jnp.full(len(x0), 0.2))
  run = enumerated.expected(objective, of, of.num_states)
  truth = jnp.asarray(enumerated.log_posterior(of, JOINT, 0.4))
  value, slope = run(truth, placed, jnp.asarray(q))
  np.testing.assert_allclose(slope, 0.0, atol=1e-13)
  off, slope = run(truth + own_params(process, jnp.float64), placed, jnp.asarray(q))
  assert off > value + 1e-3 and np.abs(slope).max() > 1e-3


# 5. The same value however it is computed.


@some([])
def test_single_precision_agrees_with_double(name, process, x64):
  draw, evaluate = programs(name, process)
  placed = draw(jax.random.key(3), batch(SIZE), times())
  widen = lambda leaf: leaf.astype(jnp.float64) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf
  low, high = (
    evaluate(own_params(process, dtype), change)[0][1].interior
    for dtype, change in ((jnp.float32, placed), (jnp.float64, jax.tree.map(widen, placed)))
  )
  assert (low.dtype, high.dtype) == (np.float32, np.float64)
  np.testing.assert_allclose(low, high, rtol=3e-5, atol=3e-5)


@some([])
def test_jit_grad_and_eight_devices_give_one_value(name, process):
  objective, _ = make(name, process)
  loss = losses.chain(
    objective,
    losses.condition_dropout(0.3),
    losses.at_times(losses.low_discrepancy(), roles=roles(process)),
  )
  state = loss.init(jax.random.key(0))[1]
  schedule = losses.value_exponents([0.7, 1.0, 1.6], K).params
  own = {"model": own_params(process), "schedule": schedule, "loss": {}}
  data, key, step = batch(SIZE), jax.random.key(5), jnp.int32(7)
  mesh = Mesh(np.array(jax.devices()), ("data",))
  spread = jax.device_put(data, NamedSharding(mesh, PartitionSpec("data")))
  compiled = jax.jit(jax.value_and_grad(loss, has_aux=True))
  (one, _), slope = compiled(own, state, step, key, data)
  (many, _), many_slope = compiled(own, state, step, key, spread)
  plain, _ = loss(own, state, step, key, data)
  np.testing.assert_allclose([one, many], plain, rtol=2e-5)
  chex.assert_trees_all_close(slope, many_slope, rtol=2e-5, atol=2e-5)


# 6. What does not fit raises when it is built.


def test_bad_batches_and_roles_raise_a_sentence():
  objective, _ = make("d3pm_bound", "uniform_resample")
  for bad, words in (
    ({"y": jnp.zeros((4, D), int)}, "a dict with 'x'"),
    ({"x": jnp.zeros((4, D))}, "whole numbers of shape"),
    ({"x": jnp.zeros((4, 3), int)}, "whole numbers of shape"),
    ({"x": jnp.full((4, D), K)}, "as many values as the vocabulary has"),
  ):
    with pytest.raises(ValueError, match=words):
      objective.draw(jax.random.key(0), bad, times(4), {})
  masked, _ = make("generalised_masked_cross_entropy", "masked")
  with pytest.raises(ValueError, match="needs 'exponents' of the role 'schedule'"):
    losses.chain(masked, losses.at_times(roles=losses.roles(model=roles("masked").denoisers["model"])))
