"""The sub-VP SDE: the drift of VP with a variance that stays below it."""

from flax import struct

from diffusion.processes.base import AnyArray, GaussianProcess, Marginal, array_namespace
from diffusion.processes.vp import LinearVP, integrated_beta, time_of_integrated_beta


@struct.dataclass
class SubVP:
  """log alpha as in VP, sigma = 1 - alpha^2 (arXiv:2011.13456, eq. 29)."""

  beta_min: float
  beta_max: float

  def __call__(self, t: AnyArray) -> Marginal:
    xp = array_namespace(t)
    vp = LinearVP(self.beta_min, self.beta_max)(t)
    integral = integrated_beta(t, self.beta_min, self.beta_max)
    beta = self.beta_min + t * (self.beta_max - self.beta_min)
    sigma, d_sigma = -xp.expm1(-integral), beta * vp.alpha**2
    return Marginal(vp.alpha, sigma, vp.d_alpha, d_sigma, 2.0 * sigma * d_sigma)

  def t_of_log_snr(self, log_snr: AnyArray) -> AnyArray:
    xp = array_namespace(log_snr)
    # rho = sigma/alpha = 1/alpha - alpha = 2 sinh(-log alpha), so int beta = 2 arcsinh(rho / 2).
    integral = 2.0 * xp.arcsinh(0.5 * xp.exp(-0.5 * log_snr))
    return time_of_integrated_beta(integral, self.beta_min, self.beta_max)


def subvp(beta_min: float = 0.1, beta_max: float = 20.0, t_min: float = 1e-3) -> GaussianProcess:
  """The sub-VP SDE on [0, 1] (arXiv:2011.13456, eq. 29).

  >>> from diffusion import processes
  >>> m = processes.subvp().marginal(0.3)
  >>> bool(abs(m.sigma - (1 - m.alpha**2)) < 1e-12)
  True
  """
  return GaussianProcess(SubVP(beta_min, beta_max), t_min, 1.0, 1.0, name="subvp")
