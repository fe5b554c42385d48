"""What ADM's and EDM2's networks promise as networks of this library: precision, conditions, magnitudes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.config.errors import UserError
from diffusion.weights.architectures import edm2
from diffusion.weights.architectures.adm import ADM
from diffusion.weights.architectures.magnitude_preserving import MPUNet, mp_concatenate, mp_sum, mp_swish

SMALL = dict(width=8, channel_multipliers=(1, 2), num_res_blocks=1, attention_levels=(False, True))
NETWORKS = {
  "adm": functools.partial(ADM, **SMALL, head_channels=8, num_classes=3, vector_size=2),
  "edm2": functools.partial(
    MPUNet, **SMALL, head_channels=8, noise_channels=8, embedding_channels=16, num_classes=3
  ),
}
EVERY = pytest.mark.parametrize("name", NETWORKS)


def inputs(name):
  rng = np.random.default_rng(3)
  x = jnp.asarray(rng.normal(size=(2, 4, 6, 3)), jnp.float32)
  cond = {"label": jnp.array([2, -1])}
  if name == "adm":
    cond["vector"] = jnp.asarray(rng.normal(size=(2, 2)), jnp.float32)
  return x, jnp.array([-0.5, 0.7], jnp.float32), cond


@functools.cache
def variables(name):
  """Parameters away from their initial zeros."""
  shapes = jax.eval_shape(NETWORKS[name]().init, jax.random.key(0), *inputs(name))
  rng = np.random.default_rng(1)
  draw = lambda leaf: rng.normal(size=leaf.shape) / np.sqrt(np.prod(leaf.shape[:-1]) + 1)
  return jax.tree.map(lambda leaf: jnp.asarray(draw(leaf), leaf.dtype), shapes)


@functools.cache
def forward(name, **changes):
  return jax.jit(NETWORKS[name](**changes).apply)


def distance(found, wanted):
  return float(np.linalg.norm(np.asarray(found) - wanted) / np.linalg.norm(wanted))


@EVERY
def test_parameters_do_not_depend_on_what_a_call_brings(name):
  x, t, _ = inputs(name)
  shapes = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), variables(name))
  other = NETWORKS[name](remat=True, dropout=0.1, dtype="bfloat16")
  found = jax.eval_shape(other.init, jax.random.key(0), x, t)
  assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), found) == shapes
  assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables(name)))


@EVERY
def test_rows_are_independent_and_the_condition_counts(name):
  x, t, cond = inputs(name)
  null = jax.tree.map(lambda leaf: jnp.full_like(leaf, -1 if leaf.dtype == jnp.int32 else 0), cond)
  call = lambda cond, order: forward(name)(
    variables(name), *jax.tree.map(lambda leaf: leaf[np.array(order)], (x, t, cond))
  )
  y, without = call(cond, [0, 1]), call(null, [0, 1])
  assert distance(call(cond, [1, 0])[::-1], y) < 1e-6
  assert distance(without, y) > 1e-3


@pytest.mark.slow
@EVERY
def test_no_condition_is_the_null_condition(name):
  x, t, cond = inputs(name)
  null = jax.tree.map(lambda leaf: jnp.full_like(leaf, -1 if leaf.dtype == jnp.int32 else 0), cond)
  without = forward(name)(variables(name), x, t)
  assert distance(forward(name)(variables(name), x, t, null), without) < 1e-6


@pytest.mark.slow
@EVERY
def test_bfloat16_computes_near_float32(name):
  given = (variables(name), *inputs(name))
  y = forward(name, dtype="bfloat16")(*given)
  assert y.dtype == jnp.float32 and 1e-4 < distance(y, forward(name)(*given)) < 0.04


@EVERY
def test_bfloat16_keeps_exponentials_and_roots_in_float32(name):
  net = NETWORKS[name](dtype="bfloat16")
  program = str(jax.make_jaxpr(net.apply)(variables(name), *inputs(name)))
  lines = [
    line
    for line in program.splitlines()
    if any(f"= {op}" in line for op in ("exp ", "cos ", "rsqrt ", "sqrt "))
  ]
  assert lines and not any("bf16[" in line.split("=")[0] for line in lines)


@EVERY
def test_float64_is_float64_to_the_end(name, x64):
  net = NETWORKS[name](dtype="float64", param_dtype="float64")
  cast = lambda a: a.astype(jnp.float64) if jnp.issubdtype(a.dtype, jnp.floating) else a
  program = jax.make_jaxpr(net.apply)(*jax.tree.map(cast, (variables(name), *inputs(name))))
  assert program.out_avals[0].dtype == jnp.float64 and "f32[" not in str(program)


@EVERY
def test_dropout_is_of_training_alone(name):
  given = (variables(name), *inputs(name))
  plain, dropped = (str(jax.make_jaxpr(NETWORKS[name](dropout=rate).apply)(*given)) for rate in (0.0, 0.5))
  assert plain == dropped and "random" not in plain
  train = lambda key: NETWORKS[name](dropout=0.5).apply(*given, train=True, rngs={"dropout": key})
  assert "random" in str(jax.make_jaxpr(train)(jax.random.key(0)))


@EVERY
def test_wrong_inputs_are_refused(name):
  x, t, cond = inputs(name)
  call = lambda *args, **changes: jax.eval_shape(NETWORKS[name](**changes).apply, variables(name), *args)
  with pytest.raises(ValueError, match="one time per example"):
    call(x, t[0])
  with pytest.raises(ValueError, match="every side must be divisible by 2"):
    call(x[:, :3], t)
  with pytest.raises(ValueError, match="'lable'"):
    call(x, t, {"lable": cond["label"]})
  with pytest.raises(ValueError, match="'label' must be integers of shape"):
    call(x, t, {"label": x[:, 0, 0, 0]})
  with pytest.raises(ValueError, match="label|class"):
    call(x, t, {"label": cond["label"]}, num_classes=0)


def test_magnitudes_are_kept():
  """Sums and joins of independent unit parts have unit magnitude; so has swish of unit noise, to 0.1%."""
  key = jax.random.split(jax.random.key(0), 2)
  a, b = jax.random.normal(key[0], (200000, 1)), jax.random.normal(key[1], (200000, 3))
  rms = lambda x: float(jnp.sqrt(jnp.mean(jnp.square(x))))
  for balance in (0.3, 0.5):
    weights = np.array([1 - balance, balance]) / np.hypot(1 - balance, balance)
    np.testing.assert_allclose(
      mp_sum(a, b[:, :1], balance), a * weights[0] + b[:, :1] * weights[1], atol=1e-5
    )
    both = mp_concatenate(a, b, balance)
    parts = rms(both[:, :1]) ** 2 * 1, rms(both[:, 1:]) ** 2 * 3
    # the parts weigh as in the sum, and four channels have four units of power (4 sigma of each is under 2%)
    np.testing.assert_allclose(parts, 4 * weights**2, rtol=0.02)
  nodes, weight = np.polynomial.hermite_e.hermegauss(60)
  mean = np.sum(weight / np.sqrt(2 * np.pi) * np.asarray(mp_swish(jnp.asarray(nodes, jnp.float32))) ** 2)
  np.testing.assert_allclose(np.sqrt(mean), 0.59649 / 0.596, rtol=1e-4)


def test_magnitudes_of_weights_do_not_matter():
  """They are normalised at use: once they are far above the 1e-4 in the norm, a factor changes nothing."""
  x, t, cond = inputs("edm2")
  times = lambda factor: jax.tree_util.tree_map_with_path(
    lambda path, leaf: factor * leaf if path[-1].key == "kernel" else leaf, variables("edm2")
  )
  found = [forward("edm2")(times(factor), x, t, cond) for factor in (1e3, 1e5)]
  assert distance(*found) < 3e-5


def test_latents_of_edm2_are_standardised():
  """The raw mean and deviation that its authors measured go to 0 and 0.5 (training/encoders.py there)."""
  mean, std = np.array([5.81, 3.25, 0.12, -2.15], np.float32), np.array([4.17, 4.62, 3.71, 3.28], np.float32)
  codec = edm2.latents(
    {"scale": (0.5 / std).reshape(1, 4, 1, 1), "bias": (-mean * 0.5 / std).reshape(1, 4, 1, 1)}
  )
  raw = jnp.asarray(np.stack([mean, mean + std])[:, None, None])
  latent = codec.encode({}, raw)
  np.testing.assert_allclose(latent[:, 0, 0], [[0.0] * 4, [0.5] * 4], atol=1e-6)
  np.testing.assert_allclose(codec.decode({}, latent), raw, rtol=1e-6)
  with pytest.raises(UserError, match="has none: models of pixels"):
    edm2.latents({})
