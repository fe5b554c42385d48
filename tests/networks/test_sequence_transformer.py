"""The transformer for sequences: rotary positions, the causal order, tied vectors, time and placement."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion import networks
from diffusion.networks.attention import attend, dot_product
from diffusion.networks.layers import placing
from diffusion.networks.rotary import rotary_angles, rotate
from diffusion.networks.sequence_transformer import Neighbours

SIZES = dict(num_values=5, width=16, depth=2, num_heads=2)
T = jnp.array([0.2, 0.7])
quick = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def tokens(length, seed=0, values=6):
  return jnp.asarray(np.random.default_rng(seed).integers(0, values, (2, length)), jnp.int32)


def moved(shapes, seed=1):
  """Parameters away from their initial zeros."""
  rng = np.random.default_rng(seed)
  return jax.tree.map(lambda leaf: jnp.asarray(0.5 * rng.normal(size=leaf.shape), leaf.dtype), shapes)


@functools.cache
def made(**changes):
  net = networks.SequenceTransformer(**{**SIZES, **changes})
  return net, moved(jax.eval_shape(net.init, jax.random.key(0), tokens(4), T))


def test_rotary_products_depend_on_distances_alone():
  rng = np.random.default_rng(0)
  query, key = (jnp.asarray(rng.normal(size=(1, 7, 2, 8)), jnp.float32) for _ in range(2))

  def products(shift):
    angles = rotary_angles(jnp.arange(7.0) + shift, 8)
    return jnp.einsum("bqhd,bkhd->bhqk", rotate(query, angles), rotate(key, angles))

  np.testing.assert_allclose(products(29.0), products(0.0), atol=2e-5)
  # and on nothing less: the products without positions are others.
  assert np.abs(products(0.0) - jnp.einsum("bqhd,bkhd->bhqk", query, key)).max() > 0.5


def test_rotary_angles_by_hand():
  """Pair i of d = 4 turns by place * base^(-2 i / d) = place, place / 10; twice the scale halves it."""
  np.testing.assert_allclose(rotary_angles(jnp.array([3.0]), 4, base=100.0), [[3.0, 0.3]], rtol=1e-6)
  np.testing.assert_allclose(rotary_angles(jnp.array([3.0]), 4, 100.0, 2.0), [[1.5, 0.15]], rtol=1e-6)
  turned = rotate(jnp.array([[[[1.0, 0.0, 0.0, 2.0]]]]), jnp.array([[3.0, 0.3]]))[0, 0, 0]
  expected = [np.cos(3), -2 * np.sin(0.3), np.sin(3), 2 * np.cos(0.3)]
  np.testing.assert_allclose(turned, expected, rtol=1e-6)


def test_a_longer_context_is_a_change_of_numbers():
  """The same parameters fit another base, another scale and another length, and the numbers matter."""
  net, params = made()
  base = quick(net.apply)(params, tokens(6), T)
  slower = networks.SequenceTransformer(**SIZES, rope_base=100.0)
  scaled = networks.SequenceTransformer(**SIZES, rope_scale=2.0)
  for other in (slower, scaled):
    assert jax.tree.structure(jax.eval_shape(other.init, jax.random.key(0), tokens(4), T)) == (
      jax.tree.structure(params)
    )
    assert np.abs(quick(other.apply)(params, tokens(6), T) - base).max() > 1e-3
  longer = quick(net.apply)(params, tokens(9), T)
  assert longer.shape == (2, 9, 5)


@pytest.mark.parametrize("time, neighbours", [(True, 0), (False, 2)])
def test_causal_logits_have_no_information_from_the_right(time, neighbours):
  net, params = made(causal=True, time=time, neighbours=neighbours)
  x, apply = tokens(6, values=5), quick(net.apply)
  logits = np.asarray(apply(params, x, T))
  for place in range(6):
    changed = np.asarray(apply(params, x.at[:, place:].set((x[:, place:] + 1 + place % 4) % 5), T))
    np.testing.assert_array_equal(changed[:, : place + 1], logits[:, : place + 1])
    if place < 5:
      assert (np.abs(changed[:, place + 1] - logits[:, place + 1]).max(axis=-1) > 1e-4).all()
  np.testing.assert_array_equal(net.apply(params, x, T, method="next_logits"), net.apply(params, x, T))
  assert net.views == ("next_logits",) and made()[0].views == ()


def test_causal_attention_has_a_triangular_jacobian():
  rng = np.random.default_rng(2)
  query, key, value = (jnp.asarray(rng.normal(size=(1, 4, 1, 2)), jnp.float32) for _ in range(3))
  of = lambda h: dot_product(h, key + h, value + h, True)
  jacobian = np.asarray(quick(jax.jacobian(of))(query))[
    0, :, 0, :, 0, :, 0, :
  ]  # out place, out, in place, in
  size = np.abs(jacobian).max(axis=(1, 3))
  assert not size[np.triu_indices(4, 1)].any() and (size[np.tril_indices(4)] > 1e-6).all()
  np.testing.assert_allclose(
    dot_product(query, key, value, True), attend(query, key, value, True), rtol=2e-6, atol=1e-6
  )


def test_tied_vectors_are_one_array_and_both_ends_train_it():
  net, params = made()
  own = params["params"]
  assert "last" not in own and own["values"].shape == (6, 16)
  untied = made(tied=False)[1]["params"]
  count = lambda tree: sum(leaf.size for leaf in jax.tree.leaves(tree))
  assert count(untied) - count(own) == 16 * 5  # the last layer's matrix; both have its bias
  x = jnp.array([[0, 1, 5], [1, 0, 5]])  # values 2, 3 and 4 enter nowhere
  loss = lambda params: -jax.nn.log_softmax(net.apply(params, x, T))[:, 2, 3].mean()
  gradient = np.abs(quick(jax.grad(loss))(params)["params"]["values"]).max(axis=1)
  assert (gradient > 1e-6).all()  # value 2 by the output, the mask 5 by the input


def test_without_time_and_conditions_nothing_but_tokens_matters():
  net, params = made(time=False)
  logits = quick(net.apply)(params, tokens(5), T)
  np.testing.assert_array_equal(quick(net.apply)(params, tokens(5), T + 0.4), logits)
  names = {jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)}
  assert not any("modulation" in name or "noise" in name for name in names)
  told, own = made(time=False, num_classes=3)
  label = lambda number: {"label": jnp.full(2, number, jnp.int32)}
  first, other = (quick(told.apply)(own, tokens(5), T, label(number)) for number in (0, 2))
  assert np.abs(first - other).max() > 1e-3
  np.testing.assert_array_equal(quick(told.apply)(own, tokens(5), T + 0.4, label(0)), first)


def test_neighbours_enter_feature_by_feature_from_zero():
  net, plain = made(neighbours=2, time=False)[0], made(time=False)[0]
  start = quick(net.init)(jax.random.key(0), tokens(5), T)
  without = {
    "params": {name: dict(part) if "block" in name else part for name, part in start["params"].items()}
  }
  for block in ("block_0", "block_1"):
    for name in ("attention_neighbours", "mlp_neighbours"):
      assert not np.asarray(without["params"][block].pop(name)["weights"]).any()
  np.testing.assert_array_equal(
    quick(net.apply)(start, tokens(5), T), quick(plain.apply)(without, tokens(5), T)
  )
  weights = jnp.array([[1.0, 0.0], [0.0, 0.1]])  # of the place before, and of the one after
  h = jnp.array([[[1.0, 10.0], [2.0, 20.0], [3.0, 30.0]]])
  both, before = (Neighbours(1, causal, jnp.float32, jnp.float32) for causal in (False, True))
  found = both.apply({"params": {"weights": weights}}, h)
  np.testing.assert_allclose(found[0], [[1.0, 12.0], [3.0, 23.0], [5.0, 30.0]], rtol=1e-6)
  found = before.apply({"params": {"weights": weights[:1]}}, h)
  np.testing.assert_allclose(found[0], [[1.0, 10.0], [3.0, 20.0], [5.0, 30.0]], rtol=1e-6)


def test_activations_are_handed_to_the_rule_in_force():
  net, params = made()
  seen = []
  with placing(lambda h: seen.append(h.shape) or h):
    jax.eval_shape(net.apply, params, tokens(4), T)
  assert seen == [(2, 4, 16)] * 5  # the tokens, and after attention and MLP of two blocks


def test_what_does_not_fit_is_refused():
  with pytest.raises(ValueError, match="must divide width=18"):
    jax.eval_shape(made(width=18)[0].init, jax.random.key(0), tokens(4), T)
  net = made()[0]
  with pytest.raises(ValueError, match="whole numbers"):
    jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((2, 4)), T)
  with pytest.raises(ValueError, match="causal=True alone"):
    jax.eval_shape(functools.partial(net.apply, method="next_logits"), made()[1], tokens(4), T)
  with pytest.raises(ValueError, match="begins a sequence"):
    jax.eval_shape(
      networks.SequenceTransformer(**SIZES, num_inputs=5, causal=True).init, jax.random.key(0), tokens(4), T
    )
