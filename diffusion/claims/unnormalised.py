"""The mean of a one-dimensional Gaussian, learned by noise-contrastive estimation and by compositional optimisation."""

import jax
import jax.numpy as jnp
import optax

from diffusion import losses
from diffusion.claims.fitting import fit


def energy(mean, x, t, cond=None):
  """(x - mean)^2 / 2: an unnormalised N(mean, 1)."""
  del t, cond
  return 0.5 * jnp.sum(jnp.square(x - mean), axis=1)


def mean_error(objective, true_mean, *, learning_rate, steps, batch_size, seed):
  """|mean - true mean| after plain gradient descent from mean 0 on data N(true mean, 1)."""
  closing = losses.at_times(losses.uniform_times(0.0, 1.0), fields=losses.fields(model={"energy": energy}))
  loss = losses.chain(objective, closing)
  data = lambda key: {"x": true_mean + jax.random.normal(key, (batch_size, 1))}
  params, _, _ = fit(loss, jnp.zeros(()), optax.sgd(learning_rate), data, steps=steps, seed=seed)
  return abs(float(params["model"]) - true_mean)


def gaussian_mean(config, seed) -> dict:
  """Errors of the mean by MECO with a broad and with a narrow noise, and by NCE, at the config's numbers of steps.

  config: true_mean R, batch_size, few and many steps, rate, meco_learning_rate, nce_learning_rates. NCE's error is that of
  the best of its learning rates, MECO has one.
  """
  true_mean = config["true_mean"]
  narrow, broad = losses.gaussian_noise(0.0, 1.0), losses.gaussian_noise(0.0, true_mean)
  meco = lambda noise, steps: mean_error(
      losses.compositional_likelihood(noise=noise, rate=config["rate"]), true_mean,
      learning_rate=config["meco_learning_rate"], steps=steps, batch_size=config["batch_size"], seed=seed)
  nce = lambda steps: min(mean_error(
      losses.noise_contrastive_estimation(noise=narrow), true_mean,
      learning_rate=rate, steps=steps, batch_size=config["batch_size"], seed=seed) for rate in config["nce_learning_rates"])
  few, many = config["few"], config["many"]
  result = {"meco_error_few": meco(broad, few), "meco_error": meco(broad, many), "meco_error_narrow_noise": meco(narrow, many),
            "nce_error_few": nce(few), "nce_error": nce(many)}
  return result | {"nce_minus_meco_few": result["nce_error_few"] - result["meco_error_few"],
                   "nce_minus_meco": result["nce_error"] - result["meco_error"]}
