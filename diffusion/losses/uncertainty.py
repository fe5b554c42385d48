"""Learned weighting by the uncertainty of each noise level."""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from diffusion.losses.base import Objective, layer, times_of
from diffusion.losses.weights import bounded_log_snr
from diffusion.processes.contract import is_gaussian


def uncertainty(num_features: int = 128, *, seed: int = 0) -> Callable[[Objective], Objective]:
  """L exp(-u(t)) + u(t) with a learned u: every noise level pulls alike (arXiv:2312.02696, eq. 14-15).

  At the optimum u(t) = log E[L | t], so L needs to be positive in expectation. u is linear in Fourier
  features of log(sigma/alpha) / 4, as in the paper, starts at zero and lives in params['loss']; the
  frequencies are drawn once from `seed` and are not learned. It is part of the interior, so that importance
  sampling treats both terms alike.

  Raises ValueError on an objective whose derivation contains the weight, or without a log-SNR clock.

  >>> import jax
  >>> from diffusion import losses, processes
  >>> dsm = losses.chain(losses.denoising_score_matching(processes.edm()), losses.uncertainty())
  >>> params, state = dsm.init(jax.random.key(0))
  >>> {name: leaf.shape for name, leaf in params["own"].items()}
  {'bias': (), 'weight': (128,)}
  """
  if num_features < 1:
    raise ValueError(f"uncertainty needs at least one Fourier feature, got {num_features}")
  generator = np.random.default_rng(seed)
  frequencies = 2.0 * np.pi * generator.standard_normal(num_features)
  phases = 2.0 * np.pi * generator.random(num_features)

  def init(key):
    del key
    return {"bias": jnp.zeros(()), "weight": jnp.zeros(num_features)}, {}

  def transform(objective):
    if objective.takes_weight:
      raise ValueError(
        f"uncertainty does not fit {objective.name}: its derivation contains the time weight, and a "
        "learned weight would change its minimiser"
      )
    process = objective.process
    if not is_gaussian(process):
      raise ValueError(
        f"uncertainty does not fit {objective.name}: u is a function of the log-SNR, and its process "
        f"({type(process).__name__}) has none; put it on the terms of a sum, before add"
      )

    def change(terms, roles, placed, params, state, clock):
      u = log_expected_loss(params, process, times_of(placed)).astype(terms.interior.dtype)
      return terms.replace(
        interior=jnp.exp(-u) * terms.interior + u,
        metrics={**terms.metrics, "uncertainty": u, "unweighted": terms.interior},
      )

    def log_expected_loss(params, process, t):
      clock = -bounded_log_snr(process, t) / 8.0
      angle = (
        clock[:, None] * jnp.asarray(frequencies, t.dtype)[None, :] + jnp.asarray(phases, t.dtype)[None, :]
      )
      features = jnp.sqrt(jnp.asarray(2.0 / num_features, t.dtype)) * jnp.cos(angle)
      return features @ params["weight"].astype(t.dtype) + params["bias"].astype(t.dtype)

    return layer(objective, change, name="uncertainty", init=init)

  return transform
