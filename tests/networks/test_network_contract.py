"""What every network promises, for all of them at once.

Compiling is what these tests spend their time on: they share few programs, compiled without optimisation.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from diffusion.networks import NETWORKS

BATCH = 4
# The other U-Nets differ from these two in options, which test_unet.py covers; in full they are slow.
QUICK = (
  "mlp",
  "mlp_image",
  "ncsnpp",
  "unet_1d",
  "dit",
  "dit_1d",
  "token_mlp",
  "sequence_transformer",
  "auto_encoder",
)
ALL = pytest.mark.parametrize(
  "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in NETWORKS]
)
GRADIENTS = (
  pytest.mark.parametrize(  # test_unet.py does the same for single blocks of a U-Net, which compile fast
    "name",
    [
      pytest.param(
        name,
        marks=() if name in ("mlp", "mlp_image", "dit", "token_mlp", "auto_encoder") else pytest.mark.slow,
      )
      for name in NETWORKS
    ],
  )
)
EVERY = pytest.mark.parametrize("name", NETWORKS)
TOLD = pytest.mark.parametrize("name", [name for name in NETWORKS if NETWORKS[name].told])
ALL_TOLD = pytest.mark.parametrize("name", [one for one in ALL.args[1] if NETWORKS[one.values[0]].told])

jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@functools.cache
def inputs(name):
  rng = np.random.default_rng(7)
  draw = lambda *shape: jnp.asarray(rng.normal(size=(BATCH, *shape)), jnp.float32)
  cond = {
    "label": jnp.array([3, 2, 0, 9], jnp.int32),
    "vector": draw(3),
    "guidance": jnp.array([0.3, 4.0, 1.0, 2.0], jnp.float32),
  }
  example = NETWORKS[name]
  whole = lambda: jnp.asarray(rng.integers(0, example.num_values + 1, (BATCH, *example.shape)), jnp.int32)
  x = whole() if example.num_values else draw(*example.shape)
  return x, jnp.array([-1.5, 0.0, 0.7, 40.0], jnp.float32), cond


def moved_input(name):
  """Another x, near the first one where there is such a thing."""
  x, values = inputs(name)[0], NETWORKS[name].num_values
  return (x + 1) % (values + 1) if values else 1.1 * x


def output_shape(name):
  x, values = inputs(name)[0], NETWORKS[name].num_values
  return (*x.shape, values) if values else x.shape


@functools.cache
def shapes(name):
  return jax.eval_shape(NETWORKS[name].build().init, jax.random.key(0), *inputs(name)[:2])


@functools.cache
def variables(name):
  """Parameters away from their initial zeros, so that every path carries signal."""
  rng = np.random.default_rng(1)

  def draw(path, leaf):
    centre = 1.0 if path[-1].key == "scale" else 0.0
    return jnp.asarray(
      centre + rng.normal(size=leaf.shape) / np.sqrt(np.prod(leaf.shape[:-1]) + 4), leaf.dtype
    )

  return jax.tree_util.tree_map_with_path(draw, shapes(name))


@functools.cache
def forward(name):
  return jit(NETWORKS[name].build().apply)


@functools.cache
def expected(name):
  return np.asarray(forward(name)(variables(name), *inputs(name)))


def close(actual, desired, rtol=2e-5):
  """Relative to the largest value: float32 sums reordered by the compiler are all that may differ."""
  np.testing.assert_allclose(actual, desired, rtol=0, atol=rtol * np.abs(desired).max())


@ALL
def test_output_has_its_shape_and_depends_on_everything_it_is_told(name):
  x, t, cond = inputs(name)
  y = expected(name)
  assert y.shape == output_shape(name) and y.dtype == np.float32 and np.isfinite(y).all()
  moved = [
    forward(name)(variables(name), moved_input(name), t, cond),
    forward(name)(variables(name), x, t + 0.1, cond),
    forward(name)(variables(name), x, t, {**cond, "label": (cond["label"] + 2) % 10}),
    forward(name)(variables(name), x, t, {**cond, "vector": cond["vector"] + 1.0}),
    forward(name)(variables(name), x, t, {**cond, "guidance": cond["guidance"] + 0.5}),
  ]
  for other in moved[1:] if not NETWORKS[name].told else ():
    np.testing.assert_array_equal(other, y)
  for other in moved if NETWORKS[name].told else moved[:1]:
    assert (np.abs(np.asarray(other) - y).max(axis=tuple(range(1, y.ndim))) > 1e-4 * np.abs(y).max()).all()


@ALL
def test_rows_are_independent(name):
  order = jnp.array([2, 0, 3, 1])
  permuted = forward(name)(variables(name), *jax.tree.map(lambda a: a[order], inputs(name)))
  close(permuted, expected(name)[order])


@ALL_TOLD
def test_no_condition_is_the_null_condition_and_one_row_is_a_batch(name):
  x, t, _cond = inputs(name)
  null = {
    "label": jnp.full((BATCH,), -1, jnp.int32),
    "vector": jnp.zeros((BATCH, 3)),
    "guidance": jnp.zeros(BATCH),
  }
  want = forward(name)(variables(name), x, t, null)
  one = lambda x, t: NETWORKS[name].build().apply(variables(name), x[None], t[None])[0]
  close(jit(jax.vmap(one))(x, t), want)
  assert (
    np.abs(np.asarray(want) - expected(name)).reshape(BATCH, -1).max(axis=1) > 1e-4 * np.abs(want).max()
  ).all()


@EVERY
def test_parameters_are_float32_and_do_not_depend_on_the_options_of_a_call(name):
  x, t, cond = inputs(name)
  for net in (NETWORKS[name].build(), NETWORKS[name].build(remat=True, dropout=0.1, dtype="bfloat16")):
    assert jax.eval_shape(net.init, jax.random.key(0), x, t, cond) == shapes(name)
  assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(shapes(name)))


@ALL
def test_bfloat16_computes_near_float32(name):
  y = jit(NETWORKS[name].build(dtype="bfloat16").apply)(variables(name), *inputs(name))
  assert y.dtype == jnp.float32
  # 8 bits of mantissa and a few dozen layers: of the order of a per cent in mean square
  error = np.sqrt(np.mean((np.asarray(y) - expected(name)) ** 2) / np.mean(expected(name) ** 2))
  assert 1e-4 < error < 0.04


@EVERY
def test_bfloat16_keeps_softmax_and_exponentials_in_float32(name):
  net = NETWORKS[name].build(dtype="bfloat16")
  program = str(jax.make_jaxpr(net.apply)(variables(name), *inputs(name)))
  lines = [
    line
    for line in program.splitlines()
    if any(f"= {op}" in line for op in ("exp ", "sin ", "cos ", "rsqrt "))
  ]
  assert lines and not any("bf16[" in line.split("=")[0] for line in lines)


@ALL
def test_float64_is_float64_to_the_end(name, x64):
  net = NETWORKS[name].build(dtype="float64", param_dtype="float64")
  cast = lambda a: np.asarray(a, np.float64) if jnp.issubdtype(a.dtype, jnp.floating) else a
  program = jax.make_jaxpr(net.apply)(*jax.tree.map(cast, (variables(name), *inputs(name))))
  assert program.out_avals[0].dtype == jnp.float64 and "f32[" not in str(program)


@ALL
def test_sharded_batch_agrees(name):
  mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:4])
  rows = jax.device_put(inputs(name), NamedSharding(mesh, PartitionSpec("data")))
  y = forward(name)(jax.device_put(variables(name), NamedSharding(mesh, PartitionSpec())), *rows)
  assert len(y.sharding.device_set) == 4
  close(y, expected(name))


@GRADIENTS
def test_remat_changes_neither_value_nor_gradient(name):
  def loss(net, params, key):
    return jnp.mean(jnp.square(net.apply(params, *inputs(name), train=True, rngs={"dropout": key})))

  plain, again = (
    jit(jax.value_and_grad(functools.partial(loss, NETWORKS[name].build(dropout=0.3, remat=remat))))
    for remat in (False, True)
  )
  value, gradient = plain(variables(name), jax.random.key(3))
  assert not np.isclose(
    value, plain(variables(name), jax.random.key(4))[0], rtol=1e-4
  )  # dropout follows its key
  close_value, close_gradient = again(variables(name), jax.random.key(3))
  np.testing.assert_allclose(close_value, value, rtol=1e-5)
  largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(gradient))
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * largest), close_gradient, gradient
  )


@ALL
def test_without_training_dropout_is_not_in_the_program(name):
  plain, dropped = (
    str(jax.make_jaxpr(NETWORKS[name].build(dropout=rate).apply)(variables(name), *inputs(name)))
    for rate in (0.0, 0.5)
  )
  assert plain == dropped and "random" not in plain


@TOLD
def test_wrong_conditions_and_times_are_refused(name):
  x, t, cond = inputs(name)
  call = lambda *args, net=NETWORKS[name].build(): jax.eval_shape(net.apply, variables(name), *args)
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


@TOLD
def test_a_network_with_guidance_is_at_first_the_one_without(name):
  """An old checkpoint goes on unchanged: the parameters added start at zero, and count for nothing at w = 0
  ever after."""
  x, t, cond = inputs(name)
  old = jax.eval_shape(NETWORKS[name].build(guidance_size=0).init, jax.random.key(0), x, t)
  paths = lambda tree: {jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)}
  added = paths(shapes(name)) - paths(old)
  added = {path.replace("['network']", "") for path in added}  # a network within another
  assert added == {"['params']['noise']['condition']['guidance']['kernel']"}
  if name == "mlp":
    start = jit(NETWORKS[name].build().init)(jax.random.key(0), x, t)["params"]["noise"]["condition"]
    assert not np.asarray(start["guidance"]["kernel"]).any()
    close(
      forward(name)(variables(name), x, t, {**cond, "guidance": jnp.zeros(BATCH)}),
      forward(name)(variables(name), x, t, {key: cond[key] for key in ("label", "vector")}),
    )
