"""The autoencoder that a diffusion model's latents come from, by its file: a codec and its parameters."""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from diffusion import codecs
from diffusion.config.errors import UserError
from diffusion.weights.architectures import autoencoder_kl, edm2
from diffusion.weights.architectures.kl_codec import AutoencoderKL
from diffusion.weights.formats import opening

FOLDER = "vae"
"""Of a pipeline of diffusers, with its autoencoder."""


def place_of(path: str, given: str | os.PathLike[str] | None = None) -> str | None:
  """Where the autoencoder of a model is: what is given, the folder 'vae' of a pipeline, or None.

  >>> place_of("model.safetensors"), place_of("model.safetensors", "vae")
  (None, 'vae')
  """
  if given is not None:
    return os.path.expanduser(os.fspath(given))
  within = os.path.join(path, FOLDER)
  return within if os.path.isfile(os.path.join(path, "model_index.json")) and os.path.isdir(within) else None


def load(path: str | os.PathLike[str], dtype: Any = jnp.float32) -> tuple[AutoencoderKL, Any]:
  """(codec, its parameters in float32) of a file of an AutoencoderKL of diffusers, or of its folder.

  Args:
    path: weights in any format of `weights.read`, with their config.json beside them.
    dtype: that the network computes in.

  Raises:
    UserError: for a file that cannot be read, that is of something else, or whose arrays do not fit its
      config.

  >>> load("tests/weights/recorded/edm.pkl")
  Traceback (most recent call last):
  ...
  diffusion.config.errors.UserError: tests/weights/recorded/edm.pkl has no config.json beside it, and \
an AutoencoderKL is wanted: give the folder of one as diffusers saves it, with its config.json and its weights
  """
  contents = opening.read(os.path.expanduser(os.fspath(path)))
  config = config_of(contents.notes, contents.path)
  return autoencoder_kl.codec(config, contents.load(), dtype=dtype)


def of_edm2(codec: AutoencoderKL, params: Any, encoder: Mapping[str, Any]) -> tuple[codecs.Codec, Any]:
  """(codec, parameters) of EDM2's latents: the autoencoder's without its scale, then those of a snapshot.

  EDM2 gives the autoencoder pictures in [0, 1]; those of this codec are in [-1, 1] like all others.

  Args:
    codec, params: of `load`.
    encoder: the arrays of a snapshot's 'encoder', see `edm2.latents`.

  >>> own = autoencoder_kl.codec_of({"block_out_channels": [8], "norm_num_groups": 4})
  >>> own, _ = of_edm2(own, own.init(), {"scale": np.full((1, 4, 1, 1), 0.1), "bias": np.zeros((1, 4, 1, 1))})
  >>> own.shape_of((6, 4, 3)), len(own.parts)
  ((6, 4, 4), 3)
  """
  raw = dataclasses.replace(codec, shift=np.float32(0), scale=np.float32(1))
  chained = codecs.chain(codecs.scale(-1.0, 2.0), raw, edm2.latents(encoder))
  return chained, ({}, params, {})


def config_of(notes: Mapping[str, Any], path: str) -> dict[str, Any]:
  """The config.json in a file's notes, a copy. Raises UserError for one that is of no AutoencoderKL.

  >>> config_of({"config": {"_class_name": "AutoencoderKL", "latent_channels": 3}}, "vae")["latent_channels"]
  3
  """
  config = notes.get("config")
  name = config.get("_class_name") if isinstance(config, Mapping) else None
  if name != autoencoder_kl.NAME:
    raise UserError(
      f"{path} has {f'a config.json of {name}' if name else 'no config.json'} beside it, and an "
      "AutoencoderKL is wanted: give the folder of one as diffusers saves it, with its config.json and its "
      "weights"
    )
  return dict(config or {})
