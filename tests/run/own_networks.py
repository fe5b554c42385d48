"""Networks that are not linen, as a reader would write them: a Flax NNX module and a plain pair of
functions."""

import jax
import jax.numpy as jnp
from flax import nnx


class Net(nnx.Module):
  """An MLP with a list of layers, batch statistics and dropout."""

  def __init__(self, width, *, rngs, num_classes=3, dropout=0.1):
    self.first = nnx.Linear(3, width, rngs=rngs)
    self.label = nnx.Embed(num_classes, width, rngs=rngs)
    self.layers = nnx.List([nnx.Linear(width, width, rngs=rngs) for _ in range(2)])
    self.norm = nnx.BatchNorm(width, momentum=0.9, rngs=rngs)
    self.dropout = nnx.Dropout(dropout, rngs=rngs)
    self.last = nnx.Linear(width, 2, rngs=rngs)

  def __call__(self, x, t, cond=None):
    h = self.first(jnp.concatenate([x, t[:, None]], axis=1))
    if cond is not None:
      label = cond["label"]
      h = h + jnp.where(label[:, None] >= 0, self.label(jnp.maximum(label, 0)), 0.0)
    for layer in self.layers:
      h = nnx.swish(layer(h))
    return self.last(self.dropout(self.norm(h)))


def init(key, x, t, cond):
  """Parameters of two layers in a list."""
  del t, cond
  first, last = jax.random.split(key)
  return [
    {"w": 0.5 * jax.random.normal(first, (x.shape[1] + 1, 16)), "b": jnp.zeros(16)},
    {"w": 0.25 * jax.random.normal(last, (16, x.shape[1])), "b": jnp.zeros(x.shape[1])},
  ]


def apply(params, x, t, cond, key, train):
  """Two layers, with dropout in training."""
  del cond
  first, last = params
  h = jnp.tanh(jnp.concatenate([x, t[:, None]], axis=1) @ first["w"] + first["b"][None])
  if train and key is not None:
    h = h * jax.random.bernoulli(key, 0.9, h.shape) / jnp.asarray(0.9, h.dtype)
  return h @ last["w"] + last["b"][None]


def same_name_twice(key, x, t, cond):
  """Parameters of which a checkpoint would lose one."""
  return {"enc.w": jnp.ones(2), "enc": {"w": jnp.zeros(2)}}
