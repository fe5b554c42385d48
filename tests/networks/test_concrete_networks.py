"""Networks of concrete scores: bounds, features and the start from equal probabilities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion import networks
from diffusion.networks.concrete_score import ratio_less_one


def test_ratios_keep_to_their_bounds_and_are_posterior_means_of_bits(x64):
  """(1 - pi) m/s + pi s/m where pi / (1 - pi) = e^u m/s: the odds of another clean bit times those of its
  turning into this one."""
  u, t = jnp.linspace(-60.0, 60.0, 41)[None], jnp.array([0.02, 0.5, 1.0])
  found = np.asarray(jax.jit(lambda u, t: ratio_less_one(u, t, 2))(jnp.broadcast_to(u, (3, 41)), t))
  for b, row in zip(np.asarray(t), found):
    rho = (b / 2) / (1 - b / 2)
    pi = 1.0 / (1.0 + np.exp(-np.asarray(u[0]) - np.log(rho)))
    np.testing.assert_allclose(row, (1 - pi) * rho + pi / rho - 1, rtol=1e-9, atol=1e-12)
  slope = jax.jit(jax.vmap(jax.grad(lambda u: ratio_less_one(u[None, None], jnp.array([0.3]), 5)[0, 0])))
  rho = 0.06 / 0.76
  np.testing.assert_allclose(
    slope(jnp.array([0.0, -1e-9, 1e-9])), (1 - rho) / (1 + rho), rtol=1e-6
  )  # the same on both sides
  assert np.isfinite(slope(jnp.array([-900.0, 0.5, 900.0]))).all()


def network(**options):
  return networks.ConcreteMLP(num_values=5, num_neighbours=3, width=16, depth=1, num_classes=4, **options)


INPUTS = jnp.array([[0, 4], [3, 2], [4, 0]], jnp.int32), jnp.array([0.1, 0.5, 0.9])


def randomised(net):
  params = jax.eval_shape(net.init, jax.random.key(0), *INPUTS)
  rng = np.random.default_rng(0)
  return jax.tree.map(
    lambda leaf: jnp.asarray(rng.normal(size=leaf.shape) / np.sqrt(max(leaf.shape[0], 4)), leaf.dtype), params
  )


def test_the_mlp_depends_on_everything_and_rows_do_not_meet():
  net = network()
  params = randomised(net)
  apply = jax.jit(lambda x, t, label: net.apply(params, x, t, {"label": label}, method="concrete_score"))
  x, t, label = *INPUTS, jnp.array([0, 1, -1], jnp.int32)
  y = np.asarray(apply(x, t, label))
  assert y.shape == (3, 3) and y.min() > -1.0
  for other in (
    apply((x + 1) % 5, t, label),
    apply(x, t + 0.1, label),
    apply(x, t, (label + 1) % 4),
    apply(x[:, ::-1], t, label),
  ):
    assert (np.abs(other - y).max(axis=1)[:2] > 1e-5).all()
  np.testing.assert_allclose(apply(x[::-1], t[::-1], label[::-1]), y[::-1], rtol=1e-5)


def test_waves_close_around_a_circle_and_are_even_at_the_ends_of_a_line():
  """One step more than the last value is the first one again; beyond an end a line's waves mirror."""
  size = 5
  circle = np.asarray(network(frequencies=2)._waves(jnp.float32))
  rotation = 2 * np.pi * np.array([1, 2]) / size
  np.testing.assert_allclose(
    circle[0, :2], circle[-1, :2] * np.cos(rotation) + circle[-1, 2:] * np.sin(rotation), atol=1e-6
  )
  line = np.asarray(network(frequencies=4, wrap=False)._waves(jnp.float32))
  gram = line.T @ line  # half waves at the middles of cells are orthogonal
  np.testing.assert_allclose(gram, np.diag(np.diag(gram)), atol=1e-5)


@pytest.mark.slow
def test_a_new_network_finds_all_states_equally_likely():
  flips = networks.ConcreteFlips(networks.MLP(width=8, depth=1))
  x, t = jnp.zeros((2, 3, 2, 1), jnp.int32), jnp.full(2, 0.3)
  for net, inputs in ((flips, (x, t)), (network(), INPUTS)):
    assert not np.asarray(jax.jit(net.init_with_output)(jax.random.key(0), *inputs)[0]).any()


def test_a_batch_is_needed():
  with pytest.raises(ValueError, match="batch first"):
    jax.eval_shape(network().init, jax.random.key(0), jnp.zeros(3, jnp.int32), jnp.zeros(3))


@pytest.mark.slow
def test_half_precision_is_near_and_double_is_double_to_the_end(x64):
  x, t = INPUTS[0], INPUTS[1].astype(jnp.float32)
  params = randomised(network())
  y, half = (
    np.asarray(jax.jit(network(dtype=dtype).apply)(params, x, t)) for dtype in ("float32", "bfloat16")
  )
  assert y.dtype == half.dtype == np.float32
  assert 1e-5 < np.sqrt(np.mean((half - y) ** 2) / np.mean(y**2)) < 0.04
  net = network(dtype="float64", param_dtype="float64")
  wide = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), params)
  program = jax.make_jaxpr(net.apply)(wide, x, t.astype(jnp.float64))
  assert program.out_avals[0].dtype == jnp.float64 and "f32[" not in str(program)
