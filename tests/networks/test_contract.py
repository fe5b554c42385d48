"""What every network promises, for all of them at once."""

import functools

import jax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.networks import NETWORKS

BATCH = 4
ALL = pytest.mark.parametrize("name", sorted(NETWORKS))


@functools.cache
def inputs(name):
  shape = NETWORKS[name].shape
  with jax.numpy_rank_promotion("allow"):
    keys = jax.random.split(jax.random.key(7), 4)
  cond = {"label": jnp.array([3, -1, 0, 9]), "vector": jax.random.normal(keys[1], (BATCH, 3))}
  return jax.random.normal(keys[0], (BATCH, *shape)), jnp.array([-1.5, 0.0, 0.7, 40.0]), cond


@functools.cache
def variables(name):
  """Parameters away from their initial zeros, so that every path carries signal."""
  def draw(x, t):
    leaves, tree = jax.tree.flatten(NETWORKS[name].build().init(jax.random.key(0), x, t))
    keys = jax.random.split(jax.random.key(1), len(leaves))
    return tree.unflatten([leaf + 0.15 * jax.random.normal(key, leaf.shape) for leaf, key in zip(leaves, keys)])
  return jax.jit(draw)(*inputs(name)[:2])


@functools.cache
def forward(name):
  return jax.jit(NETWORKS[name].build().apply)


@functools.cache
def expected(name):
  return np.asarray(forward(name)(variables(name), *inputs(name)))


def close(actual, desired, rtol=1e-5):
  """Relative to the largest value: float32 sums reordered by the compiler are all that may differ."""
  np.testing.assert_allclose(actual, desired, rtol=0, atol=rtol * np.abs(desired).max())


@ALL
def test_output_is_like_the_input_and_depends_on_everything(name):
  x, t, cond = inputs(name)
  y = expected(name)
  assert y.shape == x.shape and y.dtype == np.float32 and np.isfinite(y).all()
  rows = tuple(range(1, x.ndim))
  moved = [
      forward(name)(variables(name), 1.1 * x, t, cond),
      forward(name)(variables(name), x, t + 0.1, cond),
      forward(name)(variables(name), x, t, {**cond, "label": (cond["label"] + 2) % 10}),
      forward(name)(variables(name), x, t, {**cond, "vector": cond["vector"] + 1.0}),
  ]
  for other in moved:
    assert (np.abs(other - y).max(axis=rows) > 1e-4).all()


@ALL
def test_rows_are_independent(name):
  x, t, cond = inputs(name)
  order = jnp.array([2, 0, 3, 1])
  permuted = forward(name)(variables(name), x[order], t[order], jax.tree.map(lambda c: c[order], cond))
  close(permuted, expected(name)[order])


@ALL
def test_vmap_over_single_rows_agrees(name):
  def one(x, t, cond):
    add = lambda a: a[None]
    return NETWORKS[name].build().apply(variables(name), add(x), add(t), jax.tree.map(add, cond))[0]
  close(jax.jit(jax.vmap(one))(*inputs(name)), expected(name))


@ALL
def test_sharded_batch_agrees(name):
  mesh = jax.make_mesh((4,), ("data",), devices=jax.devices()[:4])
  sharded = jax.device_put(inputs(name), NamedSharding(mesh, PartitionSpec("data")))
  y = forward(name)(jax.device_put(variables(name), NamedSharding(mesh, PartitionSpec())), *sharded)
  assert len(y.sharding.device_set) == 4
  close(y, expected(name))


@ALL
def test_no_label_is_minus_one_and_no_vector_is_zero(name):
  x, t, _ = inputs(name)
  null = {"label": jnp.full((BATCH,), -1), "vector": jnp.zeros((BATCH, 3))}
  bare = forward(name)(variables(name), x, t)
  close(forward(name)(variables(name), x, t, null), bare)
  assert np.abs(bare - expected(name))[0].max() > 1e-4


@ALL
def test_parameters_do_not_depend_on_the_conditions_of_the_first_call(name):
  x, t, cond = inputs(name)
  init = functools.partial(jax.eval_shape, NETWORKS[name].build().init, jax.random.key(0))
  assert init(x, t) == init(x, t, cond)


@ALL
def test_bfloat16_computes_near_float32_from_float32_parameters(name):
  x, t, cond = inputs(name)
  half = NETWORKS[name].build(dtype="bfloat16")
  shapes = jax.eval_shape(half.init, jax.random.key(0), x, t)
  assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(shapes))
  y = jax.jit(half.apply)(variables(name), x, t, cond)
  assert y.dtype == jnp.float32
  # 8 bits of mantissa, a few dozen layers: a few per cent, in mean square
  error = np.sqrt(np.mean((y - expected(name)) ** 2) / np.mean(expected(name) ** 2))
  assert 1e-4 < error < 0.04


@ALL
def test_float64_is_computed_in_float64(name, x64):
  with jax.numpy_dtype_promotion("strict"):
    wide = jax.tree.map(lambda a: a.astype(jnp.float64) if jnp.issubdtype(a.dtype, jnp.floating) else a,
                        (variables(name), inputs(name)))
    y = jax.jit(NETWORKS[name].build(dtype="float64", param_dtype="float64").apply)(wide[0], *wide[1])
  assert y.dtype == jnp.float64
  close(y, expected(name), rtol=2e-4)


@ALL
def test_remat_changes_neither_value_nor_gradient(name):
  def loss(build, params):
    y = build.apply(params, *inputs(name), train=True, rngs={"dropout": jax.random.key(3)})
    return jnp.sum(jnp.square(y))
  plain, again = (jax.jit(jax.value_and_grad(functools.partial(loss, NETWORKS[name].build(dropout=0.3, remat=remat))))(
      variables(name)) for remat in (False, True))
  assert np.isclose(plain[0], again[0], rtol=1e-5)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4 * max(np.abs(a).max(), 1e-3), rtol=0),
               plain[1], again[1])


@ALL
def test_dropout_acts_in_training_only_and_follows_its_key(name):
  apply = jax.jit(NETWORKS[name].build(dropout=0.5).apply, static_argnames="train")
  draw = lambda seed: np.asarray(
      apply(variables(name), *inputs(name), train=True, rngs={"dropout": jax.random.key(seed)}))
  close(apply(variables(name), *inputs(name)), expected(name))
  assert np.array_equal(draw(0), draw(0))
  assert np.abs(draw(0) - draw(1)).max() > 1e-3


@ALL
def test_wrong_conditions_and_times_are_refused(name):
  x, t, cond = inputs(name)
  net = NETWORKS[name].build()
  call = lambda *args, net=net: jax.eval_shape(net.init, jax.random.key(0), *args)
  with pytest.raises(ValueError, match="one time per example"):
    call(x, t[0])
  with pytest.raises(ValueError, match="got also \\['lable'\\]"):
    call(x, t, {"lable": cond["label"]})
  with pytest.raises(ValueError, match="integers of shape"):
    call(x, t, {"label": cond["vector"]})
  with pytest.raises(ValueError, match="'vector' must have shape"):
    call(x, t, {"vector": cond["vector"][:, :2]})
  with pytest.raises(ValueError, match="without classes"):
    call(x, t, cond, net=NETWORKS[name].build(num_classes=0))
  with pytest.raises(ValueError, match="without one"):
    call(x, t, {"vector": cond["vector"]}, net=NETWORKS[name].build(vector_size=0))
