"""Epsilon scaling: the predicted noise divided by a constant a little above one, against the drift of sampled
states."""

from typing import Any

from flax import struct

from diffusion.guidance.moving import moved, only, with_view
from diffusion.processes.base import expand


@struct.dataclass
class EpsilonScaling:
  """A denoiser whose noise prediction is divided by constant + slope t.

  Attributes:
    denoiser: the denoiser.
    constant, slope: numbers.
  """

  denoiser: Any
  constant: Any
  slope: Any

  # Network evaluations for one call, for the count of forward passes.
  forward_passes = 1

  # Of which a prediction of x0 knows nothing where there is no signal: `solvers.sample` refuses to start
  # there.
  changes_score = True

  @property
  def process(self):
    return self.denoiser.process

  def __call__(self, x, t, cond=None, *, views=("x0", "eps"), key=None, train=False):
    """As a denoiser: x: [B, ...] and t: [B] give a `Prediction` with the views asked for."""
    prediction = self.denoiser(x, t, cond, views=with_view(views, "eps"), key=key, train=train)
    eps = prediction.eps
    scale = self.constant + self.slope * t
    change = eps * expand((1 / scale - 1).astype(eps.dtype), eps)
    return only(moved(self.process, prediction, t, "eps", change), views)


def epsilon_scaling(constant, slope=0.0):
  """eps / (constant + slope t), and all other views with it (arXiv:2308.15321, section 4).

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
  >>> denoiser = denoisers.from_function(lambda params, x, t, cond: 1.02 * x, processes.vp_linear(), denoisers.eps())
  >>> scaled = guidance.epsilon_scaling(1.02)(denoiser)
  >>> float(scaled(jnp.ones((1, 1)), jnp.full(1, 0.5), views=("eps",)).eps[0, 0].round(6))
  1.0
  """
  if not constant > 0:
    raise ValueError(
      f"eps is divided by constant + slope t, so the constant must be positive, got {constant}"
    )
  return lambda denoiser: EpsilonScaling(denoiser, constant, slope)
