"""Variance-preserving processes: alpha^2 + sigma^2 = 1."""

import numpy as np
from flax import struct

from diffusion.processes.base import AnyArray, GaussianProcess, Marginal, array_namespace


def integrated_beta(t: AnyArray, beta_min: float, beta_max: float) -> AnyArray:
  """int_0^t beta for the linear beta, shaped like t."""
  return t * (beta_min + 0.5 * t * (beta_max - beta_min))


def time_of_integrated_beta(integral: AnyArray, beta_min: float, beta_max: float) -> AnyArray:
  """Solves int_0^t beta = integral for the linear beta, without the cancellation of the schoolbook root."""
  xp = array_namespace(integral)
  slope = beta_max - beta_min
  return 2.0 * integral / (beta_min + xp.sqrt(beta_min**2 + 2.0 * slope * integral))


@struct.dataclass
class LinearVP:
  """beta(t) = beta_min + t (beta_max - beta_min), log alpha = -1/2 int beta (arXiv:2011.13456, eq. 32)."""

  beta_min: float
  beta_max: float

  def __call__(self, t: AnyArray) -> Marginal:
    xp = array_namespace(t)
    integral = integrated_beta(t, self.beta_min, self.beta_max)
    beta = self.beta_min + t * (self.beta_max - self.beta_min)
    alpha = xp.exp(-0.5 * integral)
    sigma = xp.sqrt(-xp.expm1(-integral))
    return Marginal(alpha, sigma, -0.5 * beta * alpha, 0.5 * beta * alpha**2 / sigma, beta * alpha**2)

  def t_of_log_snr(self, log_snr: AnyArray) -> AnyArray:
    xp = array_namespace(log_snr)
    # -log alpha^2 = log(1 + exp(-log_snr))
    integral = xp.logaddexp(-log_snr, xp.zeros_like(log_snr))
    return time_of_integrated_beta(integral, self.beta_min, self.beta_max)


@struct.dataclass
class CosineVP:
  """alpha = cos(pi t / 2), sigma = sin(pi t / 2) (arXiv:2102.09672 without its offset; arXiv:2202.00512)."""

  def __call__(self, t: AnyArray) -> Marginal:
    xp = array_namespace(t)
    quarter = 0.5 * np.pi
    # sin of the remaining angle keeps alpha exactly zero at t = 1, where cos(pi/2) is 6e-17.
    alpha = xp.sin(quarter * (1.0 - t))
    sigma = xp.sin(quarter * t)
    return Marginal(alpha, sigma, -quarter * sigma, quarter * alpha, 2 * quarter * alpha * sigma)

  def t_of_log_snr(self, log_snr: AnyArray) -> AnyArray:
    xp = array_namespace(log_snr)
    return 2.0 / np.pi * xp.arctan(xp.exp(-0.5 * log_snr))


def vp_linear(beta_min: float = 0.1, beta_max: float = 20.0, t_min: float = 1e-3) -> GaussianProcess:
  """The VP SDE with a linear beta on [0, 1] (arXiv:2011.13456, eq. 32-33).

  Args:
    beta_min: beta at t = 0.
    beta_max: beta at t = 1.
    t_min: default end of sampling; the paper trains down to 1e-5 and samples down to 1e-3.

  >>> from diffusion import processes
  >>> f, g2 = processes.vp_linear().drift_diffusion(0.0 + 1e-6)
  >>> bool(abs(g2 + 2 * f) < 1e-6)        # g^2 = beta = -2 f
  True
  """
  return GaussianProcess(LinearVP(beta_min, beta_max), t_min, 1.0, 1.0, name="vp_linear")


def vp_cosine(t_min: float = 1e-3) -> GaussianProcess:
  """The VP process with alpha = cos(pi t/2) on [0, 1], whose last time holds no signal at all.

  >>> from diffusion import processes
  >>> float(processes.vp_cosine().marginal(1.0).alpha)
  0.0
  """
  return GaussianProcess(CosineVP(), t_min, 1.0, 1.0, name="vp_cosine")
