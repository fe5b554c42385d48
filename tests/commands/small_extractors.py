"""Extractors that cost nothing, for `--features` by a dotted path: random projections of small images."""

import hashlib

import jax.numpy as jnp
import numpy as np

from diffusion.metrics.extractors import Extractor


def inception():
  """In place of the Inception network."""
  return _projection("inception", {"pool": 6, "spatial": 4, "logits": 10}, 0, "")


def other():
  """Another set of weights of the same kind."""
  return _projection("inception", {"pool": 6, "spatial": 4, "logits": 10}, 1, "")


def mine():
  """Of a kind of its own."""
  return _projection("mine", {"pool": 5}, 2, "torch_bilinear")


def _projection(kind, outputs, seed, resize):
  rng = np.random.RandomState(seed)
  params = {name: rng.standard_normal((192, size)).astype(np.float32) / 8 for name, size in outputs.items()}

  def apply(params, x, centre):
    flat = jnp.tanh((x - centre) / centre).reshape(len(x), -1)
    return {name: jnp.matmul(flat, weights, precision="highest") for name, weights in params.items()}

  digest = hashlib.sha256(b"".join(array.tobytes() for array in params.values())).hexdigest()
  return Extractor(kind, f"small {kind}", 8, outputs, params, apply, digest, "", resize)
