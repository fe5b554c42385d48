"""Epsilon scaling: the predicted noise divided by a constant a little above one.

It is used against the drift of sampled states.
"""

from collections.abc import Callable
from typing import Any

import jax
from flax import struct

from diffusion.denoisers import Denoiser, Prediction, check_views
from diffusion.guidance.shift import GaussianWrapper, shifted, with_view
from diffusion.processes.base import expand


@struct.dataclass
class EpsilonScaling(GaussianWrapper):
  """A denoiser whose noise prediction is divided by constant + slope t.

  Attributes:
    inner: the denoiser.
    constant, slope: numbers.
  """

  inner: Any
  constant: Any
  slope: Any

  @property
  def needs_signal(self) -> bool:
    """Yes: it changes the score, of which x0 knows nothing where there is no signal."""
    return True

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
    """As a denoiser: x: [B, ...] and t: [B] give a `Prediction` with the views asked for."""
    check_views(views, self.views)
    prediction = self.inner(x, t, cond, views=with_view(views, "eps"), key=key, train=train)
    eps = prediction.eps
    scale = self.constant + self.slope * t
    change = eps * expand((1 / scale - 1).astype(eps.dtype), eps)
    return shifted(self.process, prediction, t, "eps", change).only(views)


def epsilon_scaling(constant: Any, slope: Any = 0.0) -> Callable[[Denoiser], EpsilonScaling]:
  """Epsilon scaling: eps / (constant + slope t), and all other views with it (arXiv:2308.15321, section 4).

  A network that was trained on true noisy data sees sampled states with a little more noise than their time
  says and predicts too much; a constant of 1.004 to 1.02 is what the authors use, found by a search. x0
  changes by -(sigma/alpha) of the change of eps, so a sampler must not start where alpha = 0.

  Args:
    constant, slope: numbers; changing them does not recompile. (1, 0) changes nothing.

  Returns:
    A function from denoiser to denoiser.

  Raises:
    ValueError: a constant that is not positive.

  >>> import jax.numpy as jnp
  >>> from diffusion import denoisers, guidance, processes
  >>> larger = lambda params, x, t, cond: 1.02 * x
  >>> denoiser = denoisers.from_function(larger, processes.vp_linear(), denoisers.eps())
  >>> scaled = guidance.epsilon_scaling(1.02)(denoiser)
  >>> float(scaled(jnp.ones((1, 1)), jnp.full(1, 0.5), views=("eps",)).eps[0, 0].round(6))
  1.0
  """
  if not constant > 0:
    raise ValueError(
      f"eps is divided by constant + slope t, so the constant must be positive, got {constant}"
    )
  return lambda denoiser: EpsilonScaling(denoiser, constant, slope)
