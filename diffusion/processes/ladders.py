"""Discrete noise ladders of DDPM and NCSN as processes on [0, 1] that pass through every rung.

Rung i = 1..N lies at t = i / N and log rho (VE) or log alpha (VP) is linear between rungs, so a network
trained on the rungs can be evaluated, sampled and integrated with a real-valued clock. Nothing looks up
an integer index.
"""

import numpy as np
import numpy.typing as npt
from flax import struct

from diffusion.processes.base import AnyArray, GaussianProcess, Marginal, array_namespace


def ddpm_betas(num_steps: int = 1000, beta_min: float = 0.1, beta_max: float = 20.0) -> np.ndarray:
  """beta_i of the discrete VP ladder, linear from beta_min/N to beta_max/N: [N] float64.

  Source: arXiv:2011.13456, eq. 34.

  >>> betas = ddpm_betas()
  >>> float(betas[0]), float(betas[-1])
  (0.0001, 0.02)
  """
  return np.linspace(beta_min / num_steps, beta_max / num_steps, num_steps)


def cosine_betas(num_steps: int = 1000, offset: float = 0.008, largest: float = 0.999) -> np.ndarray:
  """beta_i of the cosine ladder, cut at `largest`: [N] float64 (arXiv:2102.09672, eq. 17)."""
  grid = np.arange(num_steps + 1) / num_steps
  alpha_bar = np.cos((grid + offset) / (1 + offset) * np.pi / 2) ** 2
  return np.minimum(1.0 - alpha_bar[1:] / alpha_bar[:-1], largest)


def geometric_sigmas(num_steps: int = 1000, sigma_min: float = 0.01, sigma_max: float = 50.0) -> np.ndarray:
  """sigma_i of the NCSN ladder in ascending order, geometric: [N] float64 (arXiv:1907.05600)."""
  return np.exp(np.linspace(np.log(sigma_min), np.log(sigma_max), num_steps))


def _interpolate(t, nodes, values):
  """Piecewise linear value and slope; nodes are equally spaced from 0, values: [len(nodes)]."""
  xp = array_namespace(t)
  nodes, values = xp.asarray(nodes, dtype=t.dtype), xp.asarray(values, dtype=t.dtype)
  cell = xp.clip(xp.searchsorted(nodes, t, side="right") - 1, 0, nodes.shape[0] - 2)
  slope = (values[cell + 1] - values[cell]) / (nodes[cell + 1] - nodes[cell])
  return values[cell] + slope * (t - nodes[cell]), slope


@struct.dataclass
class VPLadder:
  """log alpha^2 linear in t between the rungs; sigma = sqrt(1 - alpha^2)."""

  nodes: AnyArray  # [N + 1] times, the first is 0
  log_alpha_bar: AnyArray  # [N + 1] log of the cumulative product of 1 - beta, the first is 0

  def __call__(self, t: AnyArray) -> Marginal:
    xp = array_namespace(t)
    log_alpha_bar, slope = _interpolate(t, self.nodes, self.log_alpha_bar)
    alpha = xp.exp(0.5 * log_alpha_bar)
    sigma = xp.sqrt(-xp.expm1(log_alpha_bar))
    return Marginal(alpha, sigma, 0.5 * slope * alpha, -0.5 * slope * alpha**2 / sigma, -slope * alpha**2)

  def t_of_log_snr(self, log_snr: AnyArray) -> AnyArray:
    xp = array_namespace(log_snr)
    integral = xp.logaddexp(-log_snr, xp.zeros_like(log_snr))
    dtype = log_snr.dtype
    return xp.interp(
      integral, -xp.asarray(self.log_alpha_bar, dtype=dtype), xp.asarray(self.nodes, dtype=dtype)
    )


@struct.dataclass
class VELadder:
  """log sigma linear in t between the rungs, from the first rung on; below it the line goes on."""

  nodes: AnyArray  # [N] times of the rungs, the first is 1/N
  log_sigma: AnyArray  # [N]

  def __call__(self, t: AnyArray) -> Marginal:
    xp = array_namespace(t)
    log_sigma, slope = _interpolate(t, self.nodes, self.log_sigma)
    sigma = xp.exp(log_sigma)
    return Marginal(xp.ones_like(t), sigma, xp.zeros_like(t), slope * sigma, 2.0 * slope * sigma**2)

  def t_of_log_snr(self, log_snr: AnyArray) -> AnyArray:
    xp = array_namespace(log_snr)
    dtype = log_snr.dtype
    nodes, log_sigma = xp.asarray(self.nodes, dtype=dtype), xp.asarray(self.log_sigma, dtype=dtype)
    below = nodes[0] + (-0.5 * log_snr - log_sigma[0]) * (nodes[1] - nodes[0]) / (log_sigma[1] - log_sigma[0])
    return xp.where(-0.5 * log_snr < log_sigma[0], below, xp.interp(-0.5 * log_snr, log_sigma, nodes))


def vp_ladder(betas: npt.ArrayLike) -> GaussianProcess:
  """The process through any discrete VP ladder beta: [N], values in (0, 1).

  Raises:
    ValueError: a beta outside (0, 1), or fewer than two.
  """
  betas = np.asarray(betas, np.float64)
  if betas.ndim != 1 or betas.size < 2 or betas.min() <= 0 or betas.max() >= 1:
    raise ValueError(
      f"betas must be two or more numbers in (0, 1), got shape {betas.shape}: give the beta_i of x_i = "
      "sqrt(1 - beta_i) x_(i-1) + sqrt(beta_i) z"
    )
  log_alpha_bar = np.concatenate([[0.0], np.cumsum(np.log1p(-betas))])
  nodes = np.arange(betas.size + 1) / betas.size
  return GaussianProcess(VPLadder(nodes, log_alpha_bar), 1.0 / betas.size, 1.0, 1.0, name="vp_ladder")


def ddpm_ladder(num_steps: int = 1000, beta_min: float = 0.1, beta_max: float = 20.0) -> GaussianProcess:
  """DDPM's ladder of `num_steps` rungs at t = i/N (arXiv:2006.11239; arXiv:2011.13456, appendix C).

  >>> process = ddpm_ladder()
  >>> float(process.marginal(1 / 1000).alpha) == (1 - 1e-4) ** 0.5
  True
  """
  return vp_ladder(ddpm_betas(num_steps, beta_min, beta_max))


def ncsn_ladder(num_steps: int = 1000, sigma_min: float = 0.01, sigma_max: float = 50.0) -> GaussianProcess:
  """NCSN's geometric ladder of `num_steps` rungs at t = i/N (arXiv:1907.05600; arXiv:2011.13456, appendix C).

  >>> process = ncsn_ladder(num_steps=10)
  >>> round(float(process.marginal(0.1).sigma), 12), round(float(process.marginal(1.0).sigma), 12)
  (0.01, 50.0)
  """
  sigmas = geometric_sigmas(num_steps, sigma_min, sigma_max)
  nodes = np.arange(1, num_steps + 1) / num_steps
  return GaussianProcess(VELadder(nodes, np.log(sigmas)), 1.0 / num_steps, 1.0, sigma_max, name="ncsn_ladder")


@struct.dataclass
class AngleLadder:
  """The angle of (alpha, sigma) linear in t between the rungs, which the last rung may have at pi/2."""

  nodes: AnyArray  # [N + 1] times, the first is 0
  angle: AnyArray  # [N + 1] arctan(sigma/alpha), from 0 up
  rest: AnyArray  # [N + 1] pi/2 - angle, which keeps the digits of a small alpha

  def __call__(self, t: AnyArray) -> Marginal:
    xp = array_namespace(t)
    angle, slope = _interpolate(t, self.nodes, self.angle)
    rest = xp.interp(t, xp.asarray(self.nodes, dtype=t.dtype), xp.asarray(self.rest, dtype=t.dtype))
    alpha, sigma = xp.sin(rest), xp.sin(angle)
    return Marginal(alpha, sigma, -slope * sigma, slope * alpha, 2.0 * slope * alpha * sigma)

  def t_of_log_snr(self, log_snr: AnyArray) -> AnyArray:
    xp = array_namespace(log_snr)
    dtype = log_snr.dtype
    angle = xp.arctan(xp.exp(-0.5 * log_snr))
    return xp.interp(angle, xp.asarray(self.angle, dtype=dtype), xp.asarray(self.nodes, dtype=dtype))


def zero_snr_ladder(betas: npt.ArrayLike) -> GaussianProcess:
  """The process through a VP ladder with zero terminal SNR: its last beta is 1 (arXiv:2305.08891).

  The last rung has no signal. log alpha is not finite there, so between rungs the angle of (alpha, sigma) is
  linear in t in place of it.

  Raises:
    ValueError: a beta outside (0, 1), or a last one that is not 1.

  >>> process = zero_snr_ladder([0.1, 0.5, 1.0])
  >>> float(process.marginal(1.0).alpha), round(float(process.marginal(1 / 3).alpha) ** 2, 12)
  (0.0, 0.9)
  """
  betas = np.asarray(betas, np.float64)
  if (
    betas.ndim != 1
    or betas.size < 2
    or not (betas[:-1] > 0).all()
    or not (betas[:-1] < 1).all()
    or betas[-1] != 1
  ):
    raise ValueError(
      "betas of a ladder without signal at its end are two or more numbers, all in (0, 1) but the last, "
      f"which is 1, got {betas.tolist()[:3]}... to {betas.ravel()[-1:].tolist()}: take vp_ladder for one "
      "with signal"
    )
  abar = np.append(np.exp(np.concatenate([[0.0], np.cumsum(np.log1p(-betas[:-1]))])), 0.0)
  angle = np.arctan2(np.sqrt(1 - abar), np.sqrt(abar))
  rest = np.arctan2(np.sqrt(abar), np.sqrt(1 - abar))
  nodes = np.arange(betas.size + 1) / betas.size
  return GaussianProcess(AngleLadder(nodes, angle, rest), 1.0 / betas.size, 1.0, 1.0, name="zero_snr_ladder")
