"""Time weightings, all of them factors of the squared error of eps.

With lambda = log(alpha^2 / sigma^2), a squared error of x0 is 1/SNR times that of eps, and one of the score
1/sigma^2 times; weights below are stated in eps units, so that they mean the same for every parameterisation.
A weight is a function (process, t [B]) -> [B]; it computes in float64 on the host for a NumPy t.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffusion.losses.base import Objective, layer, times_of

# Beyond this the ratio alpha/sigma has no digits left in float32; powers up to the second stay finite.
LOG_SNR_BOUND = 40.0
# exp(-LOG_SNR_BOUND / 2): the same bound for alpha or sigma alone.
SMALLEST = 2e-9
VIEWS = ("x0", "eps", "score", "v", "velocity")


def namespace(t: Any) -> Any:
  """jax.numpy for a JAX array, NumPy for the rest."""
  return jnp if isinstance(t, jax.Array) else np


def bounded_log_snr(process: Any, t: Any) -> Any:
  """The log-SNR [B], kept within +-40 so that an end without noise or without signal stays finite."""
  return namespace(t).clip(process.log_snr(t), -LOG_SNR_BOUND, LOG_SNR_BOUND)


def noise_scale(process: Any, t: Any, view: str) -> Any:
  """The factor [B] that turns an error of a view at fixed x_t into one of eps.

  From x_t = alpha x0 + sigma eps: alpha/sigma for x0, sigma for the score, alpha / (alpha^2 + sigma^2) for v
  and alpha / (alpha d_sigma - sigma d_alpha) for the velocity; up to the sign.
  """
  xp = namespace(t)
  if view == "eps":
    return xp.ones_like(t)
  if view == "x0":
    return xp.exp(0.5 * bounded_log_snr(process, t))
  m = process.marginal(t)
  if view == "score":
    return xp.maximum(m.sigma, SMALLEST)
  alpha = xp.maximum(m.alpha, SMALLEST)
  if view == "v":
    return alpha / (m.alpha**2 + m.sigma**2)
  if view == "velocity":
    return alpha / (m.alpha * m.d_sigma - m.sigma * m.d_alpha)
  raise ValueError(f"unknown view {view!r}: choose one of {', '.join(VIEWS)}")


def uniform() -> Callable[[Any, Any], Any]:
  """Weight one: the "simple" loss of DDPM (arXiv:2006.11239, eq. 14).

  >>> from diffusion import processes
  >>> uniform()(processes.edm(), np.array([1.0, 2.0])).tolist()
  [1.0, 1.0]
  """
  return lambda process, t: namespace(t).ones_like(t)


def likelihood() -> Callable[[Any, Any], Any]:
  """Likelihood weighting, g(t)^2 / sigma^2 = -d lambda / dt.

  It is g^2 in units of the score (arXiv:2101.09258, eq. 8).

  Half its integral over t of the expected squared eps error bounds the negative log-likelihood in nats, up to
  terms free of the model (arXiv:2107.00630, eq. 17): under uniform times on [t_min, t_max] that is
  0.5 (t_max - t_min) times the loss; chain with `scale(0.5 * (t_max - t_min))` to read it in nats.
  Infinite at an end without noise or without signal: so on the host, bounded on the device.
  """

  def weight(process, t):
    xp = namespace(t)
    m = process.marginal(t)
    floor = SMALLEST if xp is jnp else 0.0
    with np.errstate(divide="ignore", invalid="ignore"):
      return m.d_variance / xp.maximum(m.sigma, floor) ** 2 - 2.0 * m.d_alpha / xp.maximum(m.alpha, floor)

  return weight


def snr(power: float) -> Callable[[Any, Any], Any]:
  """SNR^power: snr(-1) is the plain squared error of x0, snr(0) that of eps.

  >>> from diffusion import processes
  >>> snr(-1)(processes.edm(), np.array([2.0])).round(6).tolist()
  [4.0]
  """
  return lambda process, t: namespace(t).exp(power * bounded_log_snr(process, t))


def truncated_snr() -> Callable[[Any, Any], Any]:
  """Truncated SNR: max(SNR, 1) on x0, that is max(1, 1/SNR) on eps.

  Source: arXiv:2202.00512, section 4, "truncated SNR".
  """
  return lambda process, t: namespace(t).exp(namespace(t).maximum(-bounded_log_snr(process, t), 0.0))


def min_snr(gamma: float = 5.0) -> Callable[[Any, Any], Any]:
  """Min-SNR weighting: min(SNR, gamma) on x0, that is min(1, gamma/SNR) on eps.

  Source: arXiv:2303.09556, section 3.4. Raises ValueError unless gamma > 0.

  >>> from diffusion import processes
  >>> min_snr(5.0)(processes.edm(), np.array([0.1, 1.0])).round(6).tolist()
  [0.05, 1.0]
  """
  if not gamma > 0:
    raise ValueError(f"min_snr cuts the signal-to-noise ratio at gamma > 0 (5 in the paper), got {gamma}")
  log_gamma = float(np.log(gamma))
  return lambda process, t: namespace(t).exp(
    namespace(t).minimum(log_gamma - bounded_log_snr(process, t), 0.0)
  )


def edm(data_std: float = 0.5) -> Callable[[Any, Any], Any]:
  """EDM's weighting: (s^2 + d^2) / (s d)^2 on x0 at noise level s = sigma/alpha.

  That is 1 + (s/d)^2 on eps (arXiv:2206.00364, eq. 8). d is the standard deviation of the data. Raises
  ValueError unless it is positive.
  """
  if not data_std > 0:
    raise ValueError(f"data_std is the standard deviation of the data and positive, got {data_std}")
  shift = float(2.0 * np.log(data_std))

  def weight(process, t):
    return 1.0 + namespace(t).exp(-bounded_log_snr(process, t) - shift)

  return weight


def sigmoid(bias: float = 2.0) -> Callable[[Any, Any], Any]:
  """Sigmoid weighting, sigmoid(bias - lambda).

  Source: arXiv:2303.00848, section 3 and table 1, there with bias 2; the bias is -1 in arXiv:2410.19324.

  The papers' integral is over lambda: under uniform times chain it with `weight_by(likelihood())` too.
  """

  def weight(process, t):
    xp = namespace(t)
    return xp.exp(-xp.logaddexp(xp.zeros_like(t), bounded_log_snr(process, t) - bias))

  return weight


def native(view: str) -> Callable[[Any, Any], Any]:
  """The weight that gives back the plain squared error of a view.

  native('velocity') is the flow-matching loss. Raises ValueError for an unknown view.

  >>> from diffusion import processes
  >>> native("velocity")(processes.rectified_flow(), np.array([0.5])).tolist()
  [4.0]
  """
  if view not in VIEWS:
    raise ValueError(f"unknown view {view!r}: choose one of {', '.join(VIEWS)}")
  return lambda process, t: noise_scale(process, t, view) ** -2


def check_weight(weight: Callable[[Any, Any], Any], process: Any, who: str) -> None:
  """Raises ValueError unless weight(process, t [B]) is [B], found out by tracing alone."""
  try:
    shape = jax.eval_shape(lambda t: weight(process, t), jax.ShapeDtypeStruct((2,), jnp.float32)).shape
  except Exception as error:
    kind = "no process" if process is None else process.name
    raise ValueError(
      f"{who} and this weight do not fit: a weight is a function (process, t [B]) -> [B], and on the "
      f"process of {who} ({kind}) it failed with: {error}"
    ) from error
  if shape != (2,):
    raise ValueError(
      f"a weight is a function (process, t [B]) -> [B]; for t of shape (2,) this one returned {shape}"
    )


def weight_by(weight: Callable[[Any, Any], Any]) -> Callable[[Objective], Objective]:
  """The transform that multiplies the interior, not the boundary, by weight(process, t).

  Raises ValueError on an objective whose derivation contains the weight, and where the weight does not fit
  the objective's process.

  >>> from diffusion import losses, processes
  >>> losses.chain(losses.denoising_score_matching(processes.edm()), weight_by(edm(0.5))).name
  'weight_by(denoising_score_matching)'
  """
  if not callable(weight):
    raise TypeError(f"weight_by takes a weight such as min_snr(5.0), got {weight!r}")

  def transform(objective):
    if objective.takes_weight:
      raise ValueError(
        f"weight_by does not fit {objective.name}: its derivation contains the time weight and its "
        "derivative, so pass weight=... to that objective instead"
      )
    check_weight(weight, objective.process, objective.name)

    def change(terms, roles, placed, params, state, clock):
      factor = weight(objective.process, times_of(placed))
      return terms.replace(interior=factor.astype(terms.interior.dtype) * terms.interior)

    return layer(objective, change, name="weight_by")

  return transform
