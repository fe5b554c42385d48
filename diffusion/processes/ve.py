"""Variance-exploding processes: alpha = 1."""

from flax import struct

from diffusion.processes.base import AnyArray, GaussianProcess, Marginal, array_namespace


@struct.dataclass
class GeometricVE:
  """sigma(t) = sigma_min (sigma_max / sigma_min)^t (arXiv:2011.13456, eq. 30).

  The noise at t = 0 is sigma_min, not zero: the process starts from data that already carries it.
  """

  sigma_min: float
  sigma_max: float

  def __call__(self, t: AnyArray) -> Marginal:
    xp = array_namespace(t)
    rate = self._rate(t)
    sigma = self.sigma_min * xp.exp(rate * t)
    return Marginal(xp.ones_like(t), sigma, xp.zeros_like(t), rate * sigma, 2.0 * rate * sigma**2)

  def t_of_log_snr(self, log_snr: AnyArray) -> AnyArray:
    xp = array_namespace(log_snr)
    low = xp.log(xp.asarray(self.sigma_min, dtype=log_snr.dtype))
    return (-0.5 * log_snr - low) / self._rate(log_snr)

  def _rate(self, like):
    xp = array_namespace(like)
    return xp.log(xp.asarray(self.sigma_max / self.sigma_min, dtype=like.dtype))


@struct.dataclass
class LinearVE:
  """sigma(t) = t: the noise level is the clock (arXiv:2206.00364, table 1)."""

  def __call__(self, t: AnyArray) -> Marginal:
    xp = array_namespace(t)
    return Marginal(xp.ones_like(t), 1.0 * t, xp.zeros_like(t), xp.ones_like(t), 2.0 * t)

  def t_of_log_snr(self, log_snr: AnyArray) -> AnyArray:
    return array_namespace(log_snr).exp(-0.5 * log_snr)


def ve(sigma_min: float = 0.01, sigma_max: float = 50.0, t_min: float = 1e-5) -> GaussianProcess:
  """The VE SDE with geometric noise on [0, 1] (arXiv:2011.13456, eq. 30-31).

  Args:
    sigma_min: noise at t = 0.
    sigma_max: noise at t = 1: the largest distance between two training examples (arXiv:2006.09011, technique
      1).
    t_min: default end of sampling.

  >>> from diffusion import processes
  >>> float(processes.ve().marginal(0.0).sigma)
  0.01
  """
  return GaussianProcess(GeometricVE(sigma_min, sigma_max), t_min, 1.0, sigma_max, name="ve")


def edm(sigma_min: float = 0.002, sigma_max: float = 80.0) -> GaussianProcess:
  """EDM's process: alpha = 1, sigma = t on [0, sigma_max] (arXiv:2206.00364).

  Args:
    sigma_min: default end of sampling before the last step to zero.
    sigma_max: noise to start from.

  >>> from diffusion import processes
  >>> float(processes.edm().marginal(3.0).sigma)
  3.0
  """
  return GaussianProcess(LinearVE(), sigma_min, sigma_max, sigma_max, name="edm")
