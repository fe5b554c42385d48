"""Codecs: between the values of the data and what a model sees, on the device.

  codecs.identity()                  nothing changes
  codecs.scale(mean, std)            (x - mean) / std
  codecs.standardize()               the same, with numbers that are measured on the training data
  codecs.autoencoder(run=FOLDER)     the latents of another run's network; no likelihood
  codecs.chain(a, b, ...)            one after another

A config names one, or several in a list, as `config.codec`.
"""

from collections.abc import Callable
from typing import Any

from diffusion.codecs.affine import Identity, Scale, Standardize, identity, scale, standardize
from diffusion.codecs.autoencoder import Autoencoder, autoencoder
from diffusion.codecs.chain import Chain, chain
from diffusion.codecs.contract import Codec
from diffusion.networks import AutoEncoder

SHAPE = (2, 2, 1)
"""Of one example that every one of `CODECS` takes."""

CODECS: dict[str, Callable[[], Any]] = {
  "identity": identity,
  "scale": lambda: scale(0.5, 2.0),
  "scale_by_channel": lambda: scale((0.5,), (0.25,)),
  "standardize": standardize,
  "chain": lambda: chain(scale(1.0, 0.5), standardize(), scale((-1.0,), (3.0,))),
  "autoencoder": lambda: autoencoder(
    "none",
    saved=dict(
      network=AutoEncoder(shape=SHAPE, latent_shape=(3,), width=8, depth=1),
      shape=SHAPE,
    ),
  ),
  "chain_of_latents": lambda: chain(CODECS["autoencoder"](), standardize()),
}
"""Every codec, for the tests that hold for all of them: list a new one here."""

__all__ = [
  "CODECS",
  "SHAPE",
  "Autoencoder",
  "Chain",
  "Codec",
  "Identity",
  "Scale",
  "Standardize",
  "autoencoder",
  "chain",
  "identity",
  "scale",
  "standardize",
]
