"""Maximum likelihood of an unnormalised density by compositional optimisation.

The normaliser is a running estimate.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffusion.losses.base import Objective, terms
from diffusion.losses.reference_noise import Noise, check_noise, gaussian_noise, levels, with_normals
from diffusion.math.precision import at_least_single


def compositional_likelihood(
  process: Any = None, noise: Noise | None = None, *, rate: float = 0.1
) -> Objective:
  """Compositional likelihood: the negative log-likelihood of an energy, with MECO's gradient.

  It is energy(x) + log E_{z~q}[exp(-energy(z)) / q(z)] (arXiv:2306.07485).

  The logarithm of a mean has no unbiased gradient from a batch, so the mean u is followed as state,
  u <- (1 - rate) u + rate mean(w) with w = exp(-energy(z)) / q(z) (in logarithms; the first batch starts it),
  and the gradient is that of energy(x) + w / u with u held fixed. Its momentum is the optimiser's. The bias
  is O(rate), the variance that of w: choose q broader than the data, since a narrow q gives w an infinite
  variance.

  The value is the current estimate in nats; `log_normalizer` among the metrics is log u. One noise point an
  example. The normaliser is one number: use it on clean data, or on x_t where the energy is normalised alike
  at every t. The batch is coupled through u, so the value of an example depends on the others.

  batch: a dict with 'x' [B, ...]; needs `energy`. Raises ValueError unless 0 < rate <= 1, TypeError for what
  is no `Noise`.

  >>> from diffusion import losses
  >>> meco = losses.compositional_likelihood(noise=losses.gaussian_noise(0.0, 4.0))
  >>> meco.coupled, meco.bias_order
  (True, 1)
  """
  name = "compositional_likelihood"
  noise = gaussian_noise() if noise is None else noise
  check_noise(noise, name)
  if noise.learned:
    raise ValueError(
      f"{name} weighs by a noise that is given: gaussian_noise(mean, std), broader than the data"
    )
  if not 0 < rate <= 1:
    raise ValueError(f"{name} moves its estimate by a rate between 0 and 1, got {rate}")
  draw = with_normals(process, name, 1)

  def init(key):
    del key
    return {}, {"log_normalizer": jnp.zeros(()), "count": jnp.zeros((), jnp.int32)}

  def evaluate(roles, placed, params, state, clock):
    alpha, sigma = levels(process, placed)
    energy = lambda x: roles["model"](x, placed.t, placed.cond, views=("energy",)).energy.astype(
      at_least_single(x.dtype)
    )
    z = noise.sample({}, placed.targets["normal"][:, 0], alpha, sigma)
    log_weight = -energy(z) - noise.log_prob({}, z, alpha, sigma)
    still = jax.lax.stop_gradient(log_weight)
    log_mean = jax.nn.logsumexp(still) - float(np.log(still.size))
    before = state["log_normalizer"].astype(still.dtype)
    moved = (
      log_mean
      if rate == 1
      else jnp.logaddexp(np.log1p(-rate).item() + before, np.log(rate).item() + log_mean)
    )
    log_u = jax.lax.stop_gradient(jnp.where(state["count"] == 0, log_mean, moved))
    # Nought in value, and in gradient that of w / u.
    surrogate = jnp.exp(log_weight - log_u) - jnp.exp(still - log_u)
    value = energy(placed.x_t) + log_u + surrogate
    return terms(
      value,
      metrics={
        "log_normalizer": jnp.full_like(value, log_u),
        "log_weight_variance": jnp.full_like(value, jnp.var(still)),
      },
    )

  def update(state, t, terms):
    del t
    log_u = jnp.mean(terms.metrics["log_normalizer"]).astype(state["log_normalizer"].dtype)
    return {"log_normalizer": log_u, "count": state["count"] + 1}

  return Objective(
    name=name,
    init=init,
    draw=draw,
    evaluate=evaluate,
    update=update,
    process=process,
    needs={"model": {"energy": name}},
    coupled=True,
    bias_order=1,
  )
