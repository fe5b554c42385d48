"""Thresholding of the predicted clean data: static, and dynamic by a quantile of each sample."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from diffusion.denoisers import Denoiser, Prediction, check_views
from diffusion.guidance.shift import GaussianWrapper, shifted, with_view
from diffusion.processes.base import expand


@struct.dataclass
class Threshold(GaussianWrapper):
  """A denoiser whose x0 stays in [-bound, bound]; see `dynamic_threshold` and `static_threshold`.

  Attributes:
    inner: the denoiser, guided or not.
    bound: of the data in the units of the model.
    quantile: of |x0| that decides the scale of a sample, or None for plain clipping.
  """

  inner: Any
  bound: Any
  quantile: Any = None

  def __call__(
    self,
    x: Any,
    t: jax.Array,
    cond: Any = None,
    *,
    views: tuple[str, ...] = ("x0", "eps"),
    key: jax.Array | None = None,
    train: bool = False,
  ) -> Prediction:
    """As a denoiser; x0 is thresholded, and the other views follow from it and x."""
    check_views(views, self.views)
    prediction = self.inner(x, t, cond, views=with_view(views, "x0"), key=key, train=train)
    x0 = prediction.x0
    bound = jnp.asarray(self.bound, x0.dtype)
    if self.quantile is None:
      inside = jnp.clip(x0, -bound, bound)
    else:
      reach = jnp.quantile(jnp.abs(x0).reshape(x0.shape[0], -1), jnp.asarray(self.quantile, x0.dtype), axis=1)
      reach = expand(jnp.maximum(reach, bound), x0)
      inside = jnp.clip(x0, -reach, reach) * (bound / reach)
    return shifted(self.process, prediction, t, "x0", inside - x0).only(views)


def static_threshold(bound: float = 1.0) -> Callable[[Denoiser], Threshold]:
  """Static thresholding: x0 clipped to [-bound, bound], all other views recomputed from it and x_t.

  Put it after guidance in a chain: guidance is linear in every view, thresholding is not.

  Args:
    bound: largest absolute value of the data in the units of the model; a leaf.

  Raises:
    ValueError: a bound that is not positive.

  >>> from diffusion import denoisers, guidance, processes
  >>> three = lambda params, x, t, cond: 3.0 + 0.0 * x
  >>> denoiser = denoisers.from_function(three, processes.edm(), denoisers.x0())
  >>> clipped = guidance.static_threshold()(denoiser)(jnp.ones((1, 1)), jnp.full(1, 2.0))
  >>> float(clipped.x0[0, 0]), float(clipped.eps[0, 0])
  (1.0, 0.0)
  """
  _check_bound(bound)
  return lambda denoiser: Threshold(denoiser, bound)


def dynamic_threshold(quantile: float = 0.995, bound: float = 1.0) -> Callable[[Denoiser], Threshold]:
  """Dynamic thresholding of x0 (arXiv:2205.11487, section 2.3).

  x0 is clipped at the quantile q of its own absolute values where that exceeds the bound, and scaled by
  bound / q.

  Each sample by itself. Samples whose quantile lies within the bound are clipped at the bound and not scaled.

  Args:
    quantile: share of a sample's entries that stay unclipped, in (0, 1].
    bound: largest absolute value of the data in the units of the model.

  Raises:
    ValueError: a quantile outside (0, 1], or a bound that is not positive.

  >>> from diffusion import denoisers, guidance, processes
  >>> model = lambda params, x, t, cond: jnp.array([[4.0, 2.0, -1.0]]) + 0.0 * x
  >>> denoiser = denoisers.from_function(model, processes.edm(), denoisers.x0())
  >>> inside = guidance.dynamic_threshold(0.5)(denoiser)  # the median is 2
  >>> inside(jnp.ones((1, 3)), jnp.full(1, 2.0)).x0.tolist()
  [[1.0, 1.0, -0.5]]
  """
  if not 0 < quantile <= 1:
    raise ValueError(f"the quantile is a share of a sample's entries, above 0 and at most 1, got {quantile}")
  _check_bound(bound)
  return lambda denoiser: Threshold(denoiser, bound, quantile)


def _check_bound(bound):
  if not bound > 0:
    raise ValueError(f"the bound is the largest absolute value of the data, so it is positive, got {bound}")
