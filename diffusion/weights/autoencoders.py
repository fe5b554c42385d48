"""The autoencoder that a diffusion model's latents come from, by its file: a codec and its parameters.

    config.codec = dict(factory="weights.autoencoder_kl", path="sd-vae-ft-mse")

trains a model of its latents: see `autoencoder_kl`.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from diffusion import codecs
from diffusion.config.errors import UserError
from diffusion.weights.architectures import autoencoder_kl as architecture, edm2
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
  return architecture.codec(config, contents.load(), dtype=dtype)


def of_edm2(codec: AutoencoderKL, params: Any, encoder: Mapping[str, Any]) -> tuple[codecs.Codec, Any]:
  """(codec, parameters) of EDM2's latents: the autoencoder's without its scale, then those of a snapshot.

  EDM2 gives the autoencoder pictures in [0, 1]; those of this codec are in [-1, 1] like all others.

  Args:
    codec, params: of `load`.
    encoder: the arrays of a snapshot's 'encoder', see `edm2.latents`.

  >>> own = architecture.codec_of({"block_out_channels": [8], "norm_num_groups": 4})
  >>> own, _ = of_edm2(own, own.init(), {"scale": np.full((1, 4, 1, 1), 0.1), "bias": np.zeros((1, 4, 1, 1))})
  >>> own.shape_of((6, 4, 3)), len(own.parts)
  ((6, 4, 4), 3)
  """
  raw: Any = dataclasses.replace(codec, shift=np.float32(0), scale=np.float32(1))
  chained = codecs.chain(codecs.scale(-1.0, 2.0), raw, edm2.latents(encoder))
  return chained, ({}, params, {})


def config_of(notes: Mapping[str, Any], path: str) -> dict[str, Any]:
  """The config.json in a file's notes, a copy. Raises UserError for one that is of no AutoencoderKL.

  >>> config_of({"config": {"_class_name": "AutoencoderKL", "latent_channels": 3}}, "vae")["latent_channels"]
  3
  """
  config = notes.get("config")
  name = config.get("_class_name") if isinstance(config, Mapping) else None
  if name != architecture.NAME:
    raise UserError(
      f"{path} has {f'a config.json of {name}' if name else 'no config.json'} beside it, and an "
      "AutoencoderKL is wanted: give the folder of one as diffusers saves it, with its config.json and its "
      "weights"
    )
  return dict(config or {})


def autoencoder_kl(
  path: str, sampled: bool = True, dtype: str = "float32", saved: Mapping[str, Any] | None = None
) -> AutoencoderKL:
  """The codec of a published AutoencoderKL, whose parameters a run has: in a config, `config.codec`.

  Pictures [B, H, W, 3] in [-1, 1] go to latents (z - shift) * scaling_factor, by the numbers of its own
  config.json, and nothing else is measured or scaled. Its latents are far from deviation 1 where the factor
  was not measured on such data: `codecs.standardize` after it, in a list, mends that.

  Args:
    path: file or folder, as of `load`. train.py reads it once, writes `saved`, and keeps the weights in the
      train state.
    sampled: whether training sees a draw of the encoder's Gaussian, as DiT (arXiv:2212.09748) and Stable
      Diffusion did, or its mean. Tasks and statistics take the mean.
    dtype: that it computes in.
    saved: what `described` says of the file.

  Raises ValueError without `saved`.

  >>> config = {"_class_name": "AutoencoderKL", "block_out_channels": [8], "norm_num_groups": 4}
  >>> autoencoder_kl("vae", saved=dict(config=config)).shape_of((8, 8, 3))
  (8, 8, 4)
  """
  if saved is None:
    raise ValueError(
      f"the autoencoder in {path} needs 'saved', which says what it is: a run gets it from train.py"
    )
  return architecture.codec_of(config_of(saved, path), sampled, dtype=jnp.dtype(dtype))


def described(path: str | os.PathLike[str]) -> dict[str, Any]:
  """What a file of an AutoencoderKL is: dict(config=..., file=..., sha256=...) of its config and weights.

  Its arrays are compared with its config; the sha256 is of the file that holds them, or of the index of its
  shards and then the shards.

  Raises UserError as `load`.
  """
  contents = opening.read(os.path.expanduser(os.fspath(path)))
  config = config_of(contents.notes, contents.path)
  zero = np.zeros((), np.float32)  # of the same shapes, of which no number is read
  architecture.convert(
    {name: np.broadcast_to(zero, one.shape) for name, one in contents.arrays.items()}, config
  )
  return dict(config=config, file=os.path.basename(contents.path), sha256=digest(contents.path))


def digest(path: str) -> str:
  """The sha256 of a file of weights, as 64 digits; of an index of safetensors, of its shards too.

  Raises UserError for a file that cannot be read.
  """
  found = hashlib.sha256()
  folder = os.path.dirname(path)
  try:
    for name in (os.path.basename(path), *_shards(path)):
      with open(os.path.join(folder, name), "rb") as file:
        for piece in iter(lambda file=file: file.read(2**22), b""):
          found.update(piece)
  except OSError as error:
    raise UserError(f"{path} cannot be read ({error.strerror or error}): check it") from error
  return found.hexdigest()


def _shards(path):
  """The files that an index names; none of a file that is none."""
  if not path.endswith(".index.json"):
    return []
  with open(path, encoding="utf-8") as file:
    return sorted(set(json.load(file)["weight_map"].values()))
