"""Adversarial inputs of a small classifier: the fast gradient sign method and projected gradient steps, in a
ball of the largest change."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp

Layers = Sequence[tuple[jax.Array, jax.Array]]
"""(weight [D_in, D_out], bias [D_out]) of a perceptron's layers."""


def logits(layers: Layers, x: jax.Array) -> jax.Array:
  """What a perceptron with tanh between its layers says of each class.

  Args:
    layers: sequence of (weights [D_in, D_out], bias [D_out]), such as scikit-learn's coefs_ and intercepts_;
      a single one is a linear classifier.
    x: [B, D].

  Returns:
    [B, classes].
  """
  *hidden, (weights, bias) = layers
  for inner, offset in hidden:
    x = jnp.tanh(x @ inner + offset[None])
  return x @ weights + bias[None]


@functools.partial(jax.jit, static_argnames="steps")
def attacked(layers: Layers, x: jax.Array, label: jax.Array, size: float, steps: int = 1) -> jax.Array:
  """Inputs in [0, 1] moved so that the classifier thinks less of their label, by `size` at most in every
  entry and within [0, 1].

  One step is the fast gradient sign method (arXiv:1412.6572), x + size sign(gradient of the loss); several
  are projected gradient steps of 2.5 size / steps (arXiv:1706.06083) from x itself, without a random start.
  Both follow the log-odds of the other classes against the
  label: the cross-entropy is log(1 + exp(that)), so its gradient has the same direction, but is no number
  where the classifier is sure.

  Args:
    layers: as in `logits`.
    x: [B, D] in [0, 1]; label: [B]; size: of the ball in the largest norm.

  >>> layers = ((jnp.array([[2.0, -1.0], [-1.0, 3.0]]), jnp.zeros(2)),)
  >>> attacked(layers, jnp.array([[0.5, 0.5], [0.0, 1.0]]), jnp.array([0, 0]), 0.125).tolist()
  [[0.375, 0.625], [0.0, 1.0]]
  """
  x = jnp.asarray(x, jnp.float32)

  def odds(x):
    said = logits(layers, x)
    own = jax.nn.one_hot(label, said.shape[1], dtype=bool)
    return jnp.sum(jax.nn.logsumexp(jnp.where(own, -jnp.inf, said), axis=1)) - jnp.sum(
      jnp.where(own, said, 0.0)
    )

  stride = size * min(1.0, 2.5 / steps)

  def step(moved, _):
    moved = moved + stride * jnp.sign(jax.grad(odds)(moved))
    return jnp.clip(jnp.clip(moved, x - size, x + size), 0.0, 1.0), None

  return jax.lax.scan(step, x, None, length=steps)[0]
