"""Noise-contrastive estimation: an unnormalised density by telling data from noise."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffusion.losses.base import Objective, terms
from diffusion.losses.reference_noise import Noise, check_noise, gaussian_noise, levels, with_normals
from diffusion.math.precision import at_least_single


def noise_contrastive_estimation(
  process: Any = None, noise: Noise | None = None, *, num_noise: int = 1, learn_normalizer: bool = True
) -> Objective:
  """Noise-contrastive estimation: the logistic loss of data against noise.

  The logit is -energy - log Z - log q - log num_noise (Gutmann and Hyvarinen, JMLR 13, 2012). The loss is

  -log sigmoid(logit(x)) - sum over `num_noise` noise points z of log sigmoid(-logit(z)); least where
  exp(-energy) / Z is the density of the data. log Z is a number in params['loss'] that starts at 0 (on x_t of
  a process it is one number for all t: let the energy take up the rest); `learn_normalizer=False` fixes it at
  0, for an energy that normalises itself. A learned noise, such as `fitted_gaussian_noise()`, adds its own
  negative log-likelihood of the data, and feels nothing of the logistic loss. Where the noise is far from the
  data the loss is flat: see `compositional_likelihood`.

  batch: a dict with 'x' [B, ...]; needs `energy`. Acts on x_t of the process, or on clean data with
  process=None. Raises TypeError for what is no `Noise`, ValueError for fewer than one noise point or what is
  no process.

  >>> from diffusion import losses
  >>> nce = losses.noise_contrastive_estimation(noise=losses.gaussian_noise(0.0, 2.0))
  >>> {name: leaf.shape for name, leaf in nce.init(jax.random.key(0))[0].items() if name != "noise"}
  {'log_normalizer': ()}
  """
  name = "noise_contrastive_estimation"
  noise = gaussian_noise() if noise is None else noise
  check_noise(noise, name)
  if not isinstance(num_noise, int) or num_noise < 1:
    raise ValueError(f"{name} compares with num_noise=1 or more noise points an example, got {num_noise!r}")
  draw = with_normals(process, name, num_noise)

  def init(key):
    params = {"noise": noise.init(key)}
    return (params | {"log_normalizer": jnp.zeros(())} if learn_normalizer else params), {}

  def evaluate(roles, placed, params, state, clock):
    own = params
    alpha, sigma = levels(process, placed)
    still = jax.lax.stop_gradient(own["noise"])

    def logit(x):
      log_model = -roles["model"](x, placed.t, placed.cond, views=("energy",)).energy.astype(
        at_least_single(x.dtype)
      )
      if learn_normalizer:
        log_model = log_model - own["log_normalizer"].astype(log_model.dtype)
      return log_model - noise.log_prob(still, x, alpha, sigma) - float(np.log(num_noise))

    of_data = logit(placed.x_t)
    of_noise = jax.vmap(lambda z: logit(noise.sample(still, z, alpha, sigma)), in_axes=1, out_axes=1)(
      placed.targets["normal"]
    )
    value = jax.nn.softplus(-of_data) + jnp.sum(jax.nn.softplus(of_noise), axis=1)
    right = 0.5 * (jnp.where(of_data > 0, 1.0, 0.0) + jnp.mean(jnp.where(of_noise < 0, 1.0, 0.0), axis=1))
    metrics = {"nce": value, "accuracy": right.astype(value.dtype)}
    if noise.learned:
      metrics["noise_nll"] = -noise.log_prob(own["noise"], placed.x_t, alpha, sigma)
      value = value + metrics["noise_nll"]
    return terms(value, metrics=metrics)

  return Objective(
    name=name, init=init, draw=draw, evaluate=evaluate, process=process, needs={"model": {"energy": name}}
  )
