"""What every codec promises, for all of them at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from diffusion import codecs

EVERY = pytest.mark.parametrize("name", codecs.CODECS)
INVERTIBLE = [name for name in codecs.CODECS if codecs.CODECS[name]().log_det is not None]


def data(n=6):
  return jnp.asarray(np.random.default_rng(3).normal(1.0, 2.0, (n, *codecs.SHAPE)), jnp.float32)


def made(name):
  """(codec, parameters away from zero and measured on data)."""
  codec, rng = codecs.CODECS[name](), np.random.default_rng(5)
  params = jax.tree.map(
    lambda leaf: leaf + jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype), codec.init()
  )
  return codec, codec.measure(params, data())


@EVERY
def test_shapes_and_types(name):
  codec, params = made(name)
  x = data()
  z = codec.encode(params, x)
  assert z.shape == (6, *codec.shape_of(codecs.SHAPE)) and z.dtype == jnp.float32
  back = codec.decode(params, z)
  assert back.shape == x.shape and back.dtype == jnp.float32 and bool(jnp.isfinite(back).all())
  assert codec.show(back).shape == x.shape
  # What is measured has the form of what there was before.
  assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, codec.init())


@pytest.mark.parametrize("name", INVERTIBLE)
def test_decoding_is_the_inverse(name):
  codec, params = made(name)
  np.testing.assert_allclose(codec.decode(params, codec.encode(params, data())), data(), rtol=0, atol=2e-6)
  z = codec.encode(params, data())
  np.testing.assert_allclose(codec.encode(params, codec.decode(params, z)), z, rtol=0, atol=5e-6)


@pytest.mark.parametrize("name", INVERTIBLE)
def test_log_det_is_that_of_the_jacobian(name):
  codec, params = made(name)

  def of_one(x):
    flat, shaped = ravel_pytree(x)
    matrix = jax.jacfwd(lambda flat: codec.encode(params, shaped(flat)[None])[0].ravel())(flat)
    return jnp.linalg.slogdet(matrix)[1]

  found = codec.log_det(params, data())
  assert found.shape == (6,)
  np.testing.assert_allclose(found, jnp.stack([of_one(x) for x in data()]), rtol=1e-5, atol=1e-6)


def test_only_what_forgets_has_no_log_det():
  assert set(codecs.CODECS) - set(INVERTIBLE) == {"autoencoder", "chain_of_latents"}


@EVERY
def test_rows_do_not_meet_under_jit_and_vmap(name):
  codec, params = made(name)
  x, order = data(), np.array([4, 0, 3])
  keys = jax.random.split(jax.random.key(0), 6)
  both = lambda codec, params, x, keys: (
    codec.encode(params, x, keys),
    codec.decode(params, codec.encode(params, x, keys)),
  )
  want = both(codec, params, x, keys)
  close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
  jax.tree.map(close, jax.jit(both)(codec, params, x, keys), want)
  part = both(codec, params, x[order], keys[order])
  jax.tree.map(lambda a, b: close(a, b[order]), part, want)
  paired = jax.vmap(lambda x, keys: both(codec, params, x, keys))(
    x.reshape(3, 2, *x.shape[1:]), keys.reshape(3, 2)
  )
  jax.tree.map(lambda a, b: close(a.reshape(b.shape), b), paired, want)


@EVERY
def test_it_is_a_pytree_and_float64_stays(name, x64):
  codec, params = made(name)
  leaves, structure = jax.tree.flatten(codec)
  again = jax.tree.unflatten(structure, leaves)
  x = data()
  np.testing.assert_array_equal(again.encode(params, x), codec.encode(params, x))
  if name in INVERTIBLE:
    wide = x.astype(jnp.float64)
    assert codec.encode(params, wide).dtype == codec.log_det(params, wide).dtype == jnp.float64


def test_measured_data_are_standard_whatever_comes_before():
  codec, params = made("chain_of_latents")
  z = codec.encode(params, data())
  np.testing.assert_allclose([jnp.mean(z), jnp.std(z)], [0.0, 1.0], atol=1e-5)


def test_each_part_gets_keys_of_its_own():
  """Noise of one codec is independent of another's, and a function of the example's key alone."""

  class Noisy(codecs.Identity):
    def encode(self, params, x, key=None):
      return x if key is None else x + jax.vmap(lambda k: jax.random.normal(k, x.shape[1:]))(key)

  codec, zero = codecs.chain(Noisy(), Noisy()), jnp.zeros((4, 500))
  keys = jax.random.split(jax.random.key(1), 4)
  z = codec.encode(codec.init(), zero, keys)
  np.testing.assert_array_equal(codec.encode(codec.init(), zero[2:3], keys[2:3])[0], z[2])
  np.testing.assert_array_equal(codec.encode(codec.init(), zero), zero)
  # The variance of a sum of two independent ones, of 2,000 numbers: 2, error 0.063; twice the same noise has
  # 4.
  assert abs(float(jnp.var(z)) - 2.0) < 4.5 * 2.0 * np.sqrt(2 / 2000)


def test_what_does_not_fit_is_refused():
  with pytest.raises(
    ValueError, match=r"trained on examples of shape \[2, 2, 1\], and these have \[3, 2, 1\]"
  ):
    codecs.CODECS["autoencoder"]().shape_of((3, 2, 1))
  with pytest.raises(ValueError, match="std of shape"):
    codecs.scale(0.0, (1.0, 2.0, 3.0)).shape_of((4, 4, 2))
  with pytest.raises(ValueError, match="above 0"):
    codecs.scale(0.0, (1.0, 0.0))
  with pytest.raises(ValueError, match="needs 'saved'"):
    codecs.autoencoder("runs/none")
  with pytest.raises(ValueError, match="have the deviation 0"):
    codecs.standardize().measure({}, jnp.ones((3, 2)))
