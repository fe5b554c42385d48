"""Rectified flow: the straight line from data to noise."""

from flax import struct

from diffusion.processes.base import AnyArray, GaussianProcess, Marginal, array_namespace


@struct.dataclass
class RectifiedFlow:
  """alpha = 1 - t, sigma = t (arXiv:2209.03003; arXiv:2210.02747 with t reversed)."""

  def __call__(self, t: AnyArray) -> Marginal:
    xp = array_namespace(t)
    return Marginal(1.0 - t, 1.0 * t, -xp.ones_like(t), xp.ones_like(t), 2.0 * t)

  def t_of_log_snr(self, log_snr: AnyArray) -> AnyArray:
    xp = array_namespace(log_snr)
    # rho / (1 + rho), written so that neither end overflows.
    return 1.0 / (1.0 + xp.exp(0.5 * log_snr))


def rectified_flow(t_min: float = 1e-3) -> GaussianProcess:
  """Rectified flow on [0, 1]: data at t = 0, noise without signal at t = 1; the velocity is eps - x_0.

  >>> from diffusion import processes
  >>> m = processes.rectified_flow().marginal(0.25)
  >>> float(m.alpha), float(m.sigma)
  (0.75, 0.25)
  """
  return GaussianProcess(RectifiedFlow(), t_min, 1.0, 1.0, name="rectified_flow")
