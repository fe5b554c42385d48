"""The mean of a one-dimensional Gaussian, learned by noise-contrastive estimation and by compositional
optimisation."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from diffusion import denoisers, losses
from diffusion.run.fit import fit


def energy(mean: jax.Array, x: jax.Array, t: jax.Array, cond: Any = None) -> jax.Array:
  """(x - mean)^2 / 2: an unnormalised N(mean, 1)."""
  del t, cond
  return 0.5 * jnp.sum(jnp.square(x - mean), axis=1)


def mean_errors(
  objective: losses.Objective,
  true_mean: float,
  *,
  learning_rate: float,
  steps: int,
  batch_size: int,
  seed: int,
) -> np.ndarray:
  """|mean - true mean| after each step [steps] of plain gradient descent from mean 0 on data N(true mean,
  1)."""
  closing = losses.at_times(
    losses.uniform_times(0.0, 1.0), roles=losses.roles(model=denoisers.from_functions(energy=energy))
  )
  loss = losses.chain(objective, closing)
  data = lambda key: {"x": true_mean + jax.random.normal(key, (batch_size, 1))}
  means = fit(
    loss,
    jnp.zeros(()),
    optax.sgd(learning_rate),
    data,
    steps=steps,
    seed=seed,
    observe=lambda params: params["model"],
  )[2]
  return np.abs(np.asarray(means) - true_mean)


def gaussian_mean(config: Any, seed: int) -> dict[str, float]:
  """Errors of the mean by MECO with a broad and with a narrow noise, and by NCE, after the config's numbers
  of steps.

  config: true_mean R, batch_size, few and many steps, rate, meco_learning_rate, nce_learning_rates. NCE's
  error is that of the best of its learning rates, MECO has one.
  """
  true_mean, few, many = config["true_mean"], config["few"], config["many"]
  narrow, broad = losses.gaussian_noise(0.0, 1.0), losses.gaussian_noise(0.0, true_mean)

  def run(objective, rate):
    return mean_errors(
      objective, true_mean, learning_rate=rate, steps=many, batch_size=config["batch_size"], seed=seed
    )

  meco, meco_narrow = (
    run(losses.compositional_likelihood(noise=noise, rate=config["rate"]), config["meco_learning_rate"])
    for noise in (broad, narrow)
  )
  nce = np.minimum.reduce(
    [run(losses.noise_contrastive_estimation(noise=narrow), rate) for rate in config["nce_learning_rates"]]
  )
  return {
    "meco_error_few": meco[few - 1],
    "meco_error": meco[-1],
    "meco_error_narrow_noise": meco_narrow[-1],
    "nce_error_few": nce[few - 1],
    "nce_error": nce[-1],
    "nce_minus_meco_few": nce[few - 1] - meco[few - 1],
    "nce_minus_meco": nce[-1] - meco[-1],
  }
