"""What an autoencoder is trained on: how well data come back from their latents."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffusion.losses.base import Objective, terms
from diffusion.losses.directions import noised
from diffusion.math.precision import at_least_single


def reconstruction(process: Any = None, kl: float = 1e-3, noise: float = 0.1) -> Objective:
  """The squared error of reconstruction, and a slight pull of the latents towards a normal distribution.

  With latents z = E(x) + noise e, e standard normal, it is, each a mean over the numbers of an example,

      mean (D(z) - x)^2 + kl mean (E(x)^2 + noise^2 - 1 - log noise^2) / 2,

  the loss of a variational autoencoder (arXiv:1312.6114, eq. 10) whose encoder has one fixed deviation, with
  the slight weight of the KL term of arXiv:2112.10752, section 3.1. With noise = 0 the encoder is
  deterministic, and the second term is kl mean E(x)^2 / 2. Latents come out near the deviation where both
  terms balance, not at 1: `codecs.standardize` does that.

  batch: a dict with 'x' [B, ...]; needs the views `latent` (at data) and `reconstruction` (at latents), as
  `networks.AutoEncoder` has them. Metrics: `reconstruction_mse` and `latent_square`, means [B]. There is no
  noise process: a process given is refused (ValueError), as are negative numbers.

  >>> sorted(reconstruction().needs["model"]), reconstruction().process
  (['latent', 'reconstruction'], None)
  """
  name = "reconstruction"
  if process is not None:
    raise ValueError("reconstruction is of clean data and knows no process: leave config.process out")
  if kl < 0 or noise < 0:
    raise ValueError(f"reconstruction takes kl and noise of 0 and more, got kl={kl} and noise={noise}")

  def evaluate(roles, placed, params, state, clock):
    model, x = roles["model"], placed.x_t
    mean = model(x, placed.t, placed.cond, views=("latent",)).latent
    drawn = jax.vmap(lambda key: jax.random.normal(key, mean.shape[1:], mean.dtype))(placed.keys)
    found = model(mean + noise * drawn, placed.t, placed.cond, views=("reconstruction",)).reconstruction
    error, square = _mean_square(found - x), _mean_square(mean)
    fixed = noise**2 - 1.0 - float(np.log(noise**2)) if noise else 0.0
    return terms(
      error + 0.5 * kl * (square + fixed), metrics={"reconstruction_mse": error, "latent_square": square}
    )

  return Objective(
    name=name,
    draw=noised(None, name),
    evaluate=evaluate,
    needs={"model": {"latent": name, "reconstruction": name}},
    denoises=False,
  )


def _mean_square(x):
  """The mean square of each example of x: [B, ...], [B]."""
  wide = x.astype(at_least_single(x.dtype))
  return jnp.mean(jnp.square(wide), axis=tuple(range(1, x.ndim)))
