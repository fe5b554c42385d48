"""MADE: the context of a coordinate has a derivative in exactly those that come before it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion import autoregressive, denoisers, losses
from diffusion.autoregressive.order import influence
from diffusion.networks import MADE


def built(net, shape, cond=None, seed=0):
  """(parameters away from their zeros, x, t)."""
  rng = np.random.default_rng(seed)
  x, t = jnp.asarray(rng.normal(size=(3, *shape)), jnp.float32), jnp.asarray([0.1, 0.5, 2.0], jnp.float32)
  shapes = jax.eval_shape(net.init, jax.random.key(0), x, t, cond)
  params = jax.tree.map(
    lambda leaf: jnp.asarray(rng.normal(size=leaf.shape) / np.sqrt(np.prod(leaf.shape[:-1]) + 1), leaf.dtype),
    shapes,
  )
  return params, x, t


def denoiser(net, params):
  """The network as a denoiser of its context and head."""
  return denoisers.from_flax(net, None, None, params["params"], methods=net.views)


@pytest.mark.parametrize(
  "shape,options",
  [
    ((5,), dict(width=12, depth=2)),
    ((2,), dict(width=5, depth=1, frequencies=(1.0, 3.0))),
    pytest.param((1,), dict(width=4, depth=1), marks=pytest.mark.slow),
    pytest.param((2, 2, 2), dict(width=9, depth=0), marks=pytest.mark.slow),
  ],
)
def test_the_context_sees_all_that_is_before_and_nothing_else(shape, options):
  """The Jacobian's pattern is the strictly lower triangle: exact zeros outside, and no hole inside."""
  net = MADE(features=3, head_width=6, **options)
  params, x, t = built(net, shape)
  size = int(np.prod(shape))
  seen = np.asarray(
    jax.jit(lambda params: influence(lambda x: net.apply(params, x, t, method="context"), x, size))(params)
  )
  np.testing.assert_array_equal(seen != 0, np.tril(np.ones((size, size), bool), -1))


@pytest.mark.slow
def test_the_whole_model_keeps_its_order():
  net = MADE(width=8, depth=1, features=3, head_width=6)
  params, x, t = built(net, (4,))
  autoregressive.check_order(denoiser(net, params), x, t)
  with pytest.raises(ValueError, match="context of coordinate 0 depends on coordinate 0"):
    autoregressive.check_order(
      denoiser(MADE(width=8, depth=1, features=3, head_width=6, masked=False), params), x, t
    )


def test_the_diagonal_derivative_is_that_of_the_whole_map():
  """One pass with the context held fixed, against the diagonal of the Jacobian of x -> scores, D passes: the
  same, to float32's digits."""
  net = MADE(width=8, depth=1, features=3, head_width=6, frequencies=(2.0,))
  params, x, t = built(net, (4,))

  @jax.jit
  def both(params):
    _, slope = losses.autoregressive.conditional_scores(denoiser(net, params), x, t, along=1.0)
    whole = jax.vmap(lambda x, t: jax.jacfwd(lambda x: net.apply(params, x[None], t[None])[0])(x))(x, t)
    context = net.apply(params, x, t, method="context")
    held = jax.vmap(
      lambda c, x: jax.jacfwd(
        lambda x: net.apply(params, x[None], t[:1], {"context": c[None]}, method="head")[0]
      )(x)
    )(context, x)
    return slope, jnp.diagonal(whole, axis1=1, axis2=2), held

  slope, diagonal, held = both(params)
  np.testing.assert_allclose(slope, diagonal, rtol=2e-5, atol=1e-5)
  np.testing.assert_array_equal(np.asarray(held) != 0, np.broadcast_to(np.eye(4, dtype=bool), (3, 4, 4)))
  np.testing.assert_allclose(slope, jnp.diagonal(held, axis1=1, axis2=2), rtol=2e-5, atol=1e-5)


@pytest.mark.slow
def test_time_and_label_reach_every_context_and_wrong_ones_are_refused():
  net = MADE(width=8, depth=1, features=3, num_classes=4)
  cond = {"label": jnp.array([0, 1, 2], jnp.int32)}
  params, x, t = built(net, (3,), cond)
  call = jax.jit(lambda t, cond: net.apply(params, x, t, cond, method="context"))
  base = np.asarray(call(t, cond))
  for other in (call(t + 0.3, cond), call(t, {"label": cond["label"] + 1})):
    assert (np.abs(np.asarray(other) - base).max(axis=-1) > 1e-4).all()
  with pytest.raises(ValueError, match="one time per example"):
    net.apply(params, x, t[0], cond)
  with pytest.raises(ValueError, match="without classes"):
    MADE(width=8, depth=1, features=3).init(jax.random.key(0), x, t, cond)
