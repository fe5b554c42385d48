"""Autoguidance: away from a worse version of the same model."""

from typing import Any

from flax import struct

from diffusion.guidance.interval import active_weight, check_interval, extrapolated
from diffusion.processes.comparison import difference


@struct.dataclass
class Autoguidance:
  """A denoiser that moves away from a worse one; see `autoguidance`."""

  denoiser: Any
  worse: Any
  weight: Any
  low: Any
  high: Any

  # Network evaluations for one call, for the count of forward passes.
  forward_passes = 2

  @property
  def process(self):
    return self.denoiser.process

  def __call__(self, x, t, cond=None, *, views=("x0", "eps"), key=None, train=False):
    """As a denoiser: both models see the same x, t and condition."""
    good, worse = (
      model(x, t, cond, views=views, key=key, train=train) for model in (self.denoiser, self.worse)
    )
    weight = active_weight(self.process, t, self.weight, self.low, self.high)
    return extrapolated(good, worse.replace(collections=good.collections), weight)


def autoguidance(worse, weight, interval=None):
  """(1 + w) good - w worse, with the same condition for both (arXiv:2406.02507, eq. 4 with its w one larger).

  The worse model is smaller or less trained: what both do wrong in the same direction is undone, and the
  class does not lose its variety as it does under classifier-free guidance. Each call costs one evaluation of
  each; both count as one evaluation.

  Args:
    worse: a denoiser on the same process.
    weight: w, a number or one a sample, [B]; 0 changes nothing.
    interval: (low, high) noise levels sigma/alpha between which to guide, or None for all.

  Raises:
    ValueError: an empty interval, or two processes.

  >>> import jax.numpy as jnp
  >>> from diffusion import guidance, oracles, processes
  >>> good, worse = (oracles.gaussian(processes.edm(), [mean], [1.0]) for mean in (1.0, 0.5))
  >>> guided = guidance.autoguidance(worse, 1.0)(good)     # 2 * good - worse: the mean 1.5
  >>> float(guided(jnp.full((1, 1), 1.5), jnp.ones(1)).x0[0, 0])
  1.5
  """
  low, high = check_interval(interval)

  def apply(denoiser):
    wrong = difference(denoiser.process, worse.process)
    if wrong:
      raise ValueError(f"the two models of autoguidance must share a process, noise for noise: {wrong}")
    return Autoguidance(denoiser, worse, weight, low, high)

  return apply
