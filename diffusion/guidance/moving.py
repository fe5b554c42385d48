"""What a change of one view of a prediction does to all the others, at a fixed x_t."""

import jax.numpy as jnp

from diffusion.processes.base import expand
from diffusion.views import VIEWS


def moved(process, prediction, t, kind: str, change):
  """The prediction whose view `kind` has changed by `change` [B, ...], and every other view that it holds
  with it.

  Each view moves as it does with the output of a network that predicts `kind`, so none is divided by another.

  >>> from diffusion import denoisers, processes
  >>> p, t = processes.edm(), jnp.full(1, 2.0)
  >>> prediction = denoisers.Prediction(x0=jnp.ones((1, 1)), eps=jnp.zeros((1, 1)))
  >>> print(moved(p, prediction, t, "x0", jnp.ones((1, 1))).eps)   # x = x0 + 2 eps stays
  [[-0.5]]
  """
  m = process.marginal(t)

  def move(view):
    value = getattr(prediction, view)
    if value is None:
      return None
    factor = jnp.asarray(VIEWS[kind][view](m.alpha, m.sigma, m.d_alpha, m.d_sigma, m.d_variance)[1])
    return value + expand(factor, value).astype(value.dtype) * change.astype(value.dtype)

  return prediction.replace(**{view: move(view) for view in VIEWS["x0"]})


def with_view(views, name):
  """The views asked for, and one more that a transform needs itself."""
  return tuple(dict.fromkeys((*views, name)))


def only(prediction, views):
  """The prediction with the views asked for alone."""
  return prediction.replace(**{view: None for view in VIEWS["x0"] if view not in views})
