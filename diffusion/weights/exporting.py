"""Folders as diffusers saves them, of networks that diffusers has too: the inverse of `loading`.

  write_pipeline(folder, {"unet": (config, arrays)}, scheduler)   a pipeline
  write_network(folder, config, arrays)                           one network

A network's module says its config by `diffusers_config`, and `arrays` makes the arrays of its parameters.
"""

import json
import os
import shutil
from collections.abc import Mapping
from typing import Any

import numpy as np

from diffusion.config.errors import UserError
from diffusion.solvers.diffusers.defaults import VERSION
from diffusion.weights.architectures import autoencoder_kl, dit_files, unet2d
from diffusion.weights.formats.safetensors import write_safetensors

WEIGHTS, CONFIG = "diffusion_pytorch_model.safetensors", "config.json"

EXPORT = {
  "UNet2DModel": unet2d.export,
  "AutoencoderKL": autoencoder_kl.export,
  "DiTTransformer2DModel": dit_files.export,
}
"""Class of diffusers -> (params, config) -> its arrays by dotted name."""

PLACES = {"UNet2DModel": "unet", "DiTTransformer2DModel": "transformer", "AutoencoderKL": "vae"}
"""Class of diffusers -> its folder in a pipeline."""

PIPELINES = {"unet": "DDIMPipeline", "transformer": "DiTPipeline"}


def arrays(params: Any, config: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """The arrays of diffusers' file of a network, by dotted name: `convert` of it gives the same bits.

  Args:
    params: of the module.
    config: of its `diffusers_config`.

  Raises UserError for a class that is not written here.
  """
  name = config.get("_class_name")
  if name not in EXPORT:
    raise UserError(f"the class {name!r} is not written here: those that are are {', '.join(EXPORT)}")
  return EXPORT[name](params, config)


def write_network(folder: str, config: Mapping[str, Any], arrays: Mapping[str, Any]) -> None:
  """One network into a new folder: config.json and its weights; complete or not there.

  Raises UserError for a folder that holds something.

  >>> import tempfile
  >>> folder = os.path.join(tempfile.mkdtemp(), "vae")
  >>> write_network(folder, {"_class_name": "AutoencoderKL"}, {"conv.bias": np.zeros(3, np.float32)})
  >>> sorted(os.listdir(folder))
  ['config.json', 'diffusion_pytorch_model.safetensors']
  """
  _whole(folder, lambda made: _network(made, config, arrays))


def write_pipeline(
  folder: str,
  networks: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]],
  scheduler: Mapping[str, Any],
  class_names: tuple[str, ...] = (),
) -> None:
  """A pipeline into a new folder, as `from_pretrained` of diffusers and `weights.load` open it.

  Args:
    folder: that is made, with all above it; complete or not there.
    networks: {folder in it: (config, arrays)}; 'unet' or 'transformer', and 'vae' where there is one.
    scheduler: contents of scheduler_config.json.
    class_names: of a 'transformer', whose pipeline knows its classes by name.

  Raises UserError for a folder that holds something.
  """
  main = next(name for name in networks if name in PIPELINES)
  index: dict[str, Any] = {"_class_name": PIPELINES[main], "_diffusers_version": f"{VERSION}.0"}
  index |= {name: ["diffusers", config["_class_name"]] for name, (config, _) in networks.items()}
  index["scheduler"] = ["diffusers", scheduler["_class_name"]]
  if class_names:
    index["id2label"] = {str(number): name for number, name in enumerate(class_names)}

  def write(made):
    for name, (config, own) in networks.items():
      _network(os.path.join(made, name), config, own)
    os.makedirs(os.path.join(made, "scheduler"))
    _json(os.path.join(made, "scheduler", "scheduler_config.json"), scheduler)
    _json(os.path.join(made, "model_index.json"), index)

  _whole(folder, write)


def _network(folder, config, own):
  os.makedirs(folder, exist_ok=True)
  _json(os.path.join(folder, CONFIG), {"_diffusers_version": f"{VERSION}.0", **config})
  write_safetensors(os.path.join(folder, WEIGHTS), own, {"format": "pt"})


def _json(path, contents):
  with open(path, "w", encoding="utf-8") as file:
    json.dump(contents, file, indent=2, sort_keys=True)
    file.write("\n")


def _whole(folder, write):
  """Writes a folder beside its place, and moves it there once it is complete."""
  folder = os.path.abspath(os.path.expanduser(folder))
  if os.path.exists(folder) and (not os.path.isdir(folder) or os.listdir(folder)):
    raise UserError(f"{folder} is there already and not empty: name a new folder")
  made = folder + ".tmp"
  shutil.rmtree(made, ignore_errors=True)
  try:
    os.makedirs(made)
    write(made)
    if os.path.isdir(folder):
      os.rmdir(folder)
    os.replace(made, folder)
  except OSError as error:
    raise UserError(f"{folder} cannot be written ({error.strerror or error})") from error
  finally:
    shutil.rmtree(made, ignore_errors=True)
