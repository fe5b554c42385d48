"""Embeddings of time and condition against their formulas in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.networks import embeddings


def test_positional_matches_the_formula():
  t = np.array([0.0, 0.5, 999.0, -3.0], np.float32)
  frequencies = 10000.0 ** (-np.arange(4, dtype=np.float64) / 3)
  angle = t[:, None].astype(np.float64) * frequencies
  want = np.concatenate([np.sin(angle), np.cos(angle)], axis=1)
  np.testing.assert_allclose(embeddings.positional(jnp.asarray(t), 8), want, atol=3e-4)
  odd = embeddings.positional(jnp.asarray(t), 9)
  np.testing.assert_allclose(odd[:, :8], want, atol=3e-4)
  assert not np.asarray(odd[:, 8]).any()
  with pytest.raises(ValueError, match="at least 4"):
    embeddings.positional(jnp.asarray(t), 3)


def test_fourier_matches_the_formula_and_is_not_trained():
  module = embeddings.Fourier(64, scale=16.0)
  t = jnp.array([0.0, -1.2, 3.9])
  params = module.init(jax.random.key(0), t)
  w = np.asarray(params["params"]["frequencies"], np.float64)
  angle = 2 * np.pi * np.asarray(t, np.float64)[:, None] * w
  np.testing.assert_allclose(
    module.apply(params, t), np.concatenate([np.sin(angle), np.cos(angle)], 1), atol=1e-3
  )
  # 64 draws of N(0, 16^2): the sample deviation is within 4 standard errors, 16 / sqrt(128) each
  assert abs(w.std() - 16.0) < 4 * 16 / np.sqrt(128)
  gradient = jax.grad(lambda p: jnp.sum(module.apply(p, t)))(params)
  assert not np.asarray(gradient["params"]["frequencies"]).any()


def test_conditions_add_up_and_label_rows_are_looked_up():
  module = embeddings.Condition(6, num_classes=4, vector_size=2, guidance_size=8)
  label, vector = jnp.array([2, -1, 0]), jnp.array([[1.0, -2.0], [0.0, 0.0], [0.5, 3.0]])
  params = module.init(jax.random.key(0), None, 3)
  table = np.vstack(
    [np.asarray(params["params"]["label"]["kernel"]), np.zeros((1, 6), np.float32)]
  )  # row -1 is zero
  want = table[np.asarray(label)] + np.asarray(vector) @ np.asarray(params["params"]["vector"]["kernel"])
  np.testing.assert_allclose(
    module.apply(params, {"label": label, "vector": vector}, 3), want, rtol=1e-5, atol=1e-6
  )
  # A weight of guidance adds nothing at first, and nothing at w = 0 whatever was learned.
  weight = jnp.array([0.0, 0.5, 4.0])
  both = {"label": label, "vector": vector, "guidance": weight}
  np.testing.assert_allclose(module.apply(params, both, 3), want, rtol=1e-5, atol=1e-6)
  kernel = np.random.default_rng(0).normal(size=(8, 6))
  params["params"]["guidance"]["kernel"] = jnp.asarray(kernel, jnp.float32)
  angle = np.asarray(weight, np.float64)[:, None] * np.geomspace(2.0, 1 / 16, 4)
  want = want + np.concatenate([np.sin(angle), 1 - np.cos(angle)], axis=1) @ kernel
  np.testing.assert_allclose(module.apply(params, both, 3), want, rtol=1e-5, atol=1e-5)
  with pytest.raises(ValueError, match="even number"):
    embeddings.guidance_features(weight, 5)


def test_unknown_embedding_is_refused():
  with pytest.raises(ValueError, match="'positional' or 'fourier', got 'sine'"):
    embeddings.NoiseEmbedding(8, 8, "sine").init(jax.random.key(0), jnp.zeros(2), None)
