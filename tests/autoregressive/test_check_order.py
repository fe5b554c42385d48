"""The check of the order finds every way in which a coordinate can see what it may not."""

import conditional_families as family
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion import autoregressive, denoisers

X = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3)), jnp.float32)
HEAD = lambda c, x: c[..., 0] - x
before = lambda x: jnp.cumsum(x, axis=1) - x


def answering(context, head):
  """The model with this context of x and head of (context, x)."""
  return denoisers.from_functions(
    {}, context=lambda own, x, t, cond: context(x), head=lambda own, x, t, cond: head(cond["context"], x)
  )


def test_a_model_in_order_passes():
  autoregressive.check_order(family.gaussian(), X.reshape(2, 1, 3, 1), 0.3)


@pytest.mark.parametrize(
  "context,head,words",
  [
    (lambda x: jnp.tanh(before(x) + 1e-6 * x), HEAD, "coordinate 0 depends on coordinate 0"),
    (lambda x: before(x).at[:, 1].add(x[:, 2] ** 2), HEAD, "coordinate 1 depends on coordinate 2"),
    (lambda x: before(x) / jnp.std(x, axis=1, keepdims=True), HEAD, "no normalisation or pooling"),
    (
      before,
      lambda c, x: c[..., 0] - jnp.mean(x, axis=1, keepdims=True),
      "head of coordinate 0 depends on coordinate 1",
    ),
    (before, lambda c, x: c[..., 0] - jnp.arange(1.0, 4.0)[None] * x, "another order"),
    (before, lambda c, x: c[..., 0] - c[:, ::-1, 0] - x, "context of coordinate 2"),
  ],
)
def test_what_is_out_of_order_raises_a_sentence(context, head, words):
  model = answering(lambda x: context(x)[..., None], head)
  with pytest.raises(ValueError, match=words):
    autoregressive.check_order(model, X)


def test_a_context_without_features_raises_a_sentence():
  with pytest.raises(ValueError, match="one vector a coordinate"):
    autoregressive.check_order(answering(lambda x: x, HEAD), X)
