"""What a change of one view of a prediction does to all the others, at a fixed x_t."""

from typing import Any

import jax
import jax.numpy as jnp

from diffusion.denoisers import Prediction, Wrapper
from diffusion.processes.base import expand
from diffusion.processes.views import GAUSSIAN_VIEWS, VARIANCE_FRACTION, VIEWS


class GaussianWrapper(Wrapper):
  """A wrapper that answers the views of a Gaussian process alone.

  What it does to an energy or a Hessian is not known. A subclass is a struct.dataclass with `inner`, as of
  `Wrapper`, and checks the views that it is asked for.
  """

  @property
  def views(self) -> tuple[str, ...]:
    """Those of x0, eps, score, v, velocity and a learned variance that the inner denoiser can answer."""
    return tuple(view for view in self.inner.views if view in (*GAUSSIAN_VIEWS, VARIANCE_FRACTION))


def shifted(process: Any, prediction: Prediction, t: jax.Array, kind: str, change: jax.Array) -> Prediction:
  """The prediction after a change of one of its views.

  The view `kind` has changed by `change` [B, ...], and every other view that the prediction holds with it.

  Each view moves as it does with the output of a network that predicts `kind`, so none is divided by another.
  A learned variance stays as it is.

  >>> from diffusion import denoisers, processes
  >>> p, t = processes.edm(), jnp.full(1, 2.0)
  >>> prediction = denoisers.Prediction(x0=jnp.ones((1, 1)), eps=jnp.zeros((1, 1)))
  >>> print(shifted(p, prediction, t, "x0", jnp.ones((1, 1))).eps)   # x = x0 + 2 eps stays
  [[-0.5]]
  """
  m = process.marginal(t)

  def shift(view, value):
    if view == VARIANCE_FRACTION:
      return value
    factor = jnp.asarray(VIEWS[kind][view](m.alpha, m.sigma, m.d_alpha, m.d_sigma, m.d_variance)[1])
    return value + expand(factor, value).astype(value.dtype) * change.astype(value.dtype)

  return prediction.replace(**{view: shift(view, value) for view, value in prediction.views.items()})


def with_view(views: tuple[str, ...], name: str) -> tuple[str, ...]:
  """The views asked for, and one more that a transform needs itself.

  >>> with_view(("eps",), "x0")
  ('eps', 'x0')
  """
  return tuple(dict.fromkeys((*views, name)))
