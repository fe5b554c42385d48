"""A published model by its file: a denoiser of this library, and the sampler that its authors use.

| what the file says | model |
|---|---|
| a pickle with a module of EDM or EDM2, under 'ema' | `architectures.edm` |
| a config.json of `UNet2DModel` | `architectures.unet2d` |
| a config.json of `DiTTransformer2DModel`, `DiT` or `SiT` | `architectures.dit_files` |
| names of arrays of guided-diffusion, OpenAI's consistency models, Score SDE | `architectures.authors` |

A folder of diffusers may be a whole pipeline: its network is read, and its scheduler. The authors' files of
DiT and SiT say neither what they are nor their sizes: `architectures.dit_sizes` has both.
"""

import json
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp

from diffusion import solvers
from diffusion.config.errors import UserError
from diffusion.weights.architectures import authors, dit_files, edm, unet2d
from diffusion.weights.architectures.dit_options import shape_of
from diffusion.weights.formats import mapped, opening

NETWORKS = ("unet", "transformer")
"""Folders of a pipeline that hold its network."""

STEPS = {"DDPMScheduler": 1000}
"""Steps of diffusers' pipelines by their scheduler; 50 for the others."""


class Model(NamedTuple):
  """A published model.

  Attributes:
    denoiser: with its parameters.
    shape: of one sample, [H, W, C]; H and W are those of the training data.
    classes: number of classes that the condition 'label' counts, 0 without.
    sampler: the solver that its authors use; None where it is not known here.
    path: of the file or folder.
    format: of the file, see `weights`.
  """

  denoiser: Any
  shape: tuple[int, int, int]
  classes: int
  sampler: Any
  path: str
  format: str


def load(
  path: str | os.PathLike[str], dtype: Any = jnp.float32, told: Mapping[str, Any] | None = None
) -> Model:
  """The model of a file or folder of weights.

  Args:
    path: the file, its folder, or the folder of a pipeline of diffusers.
    dtype: that the network computes in; its parameters are float32.
    told: what an authors' file does not say of its model, by their names for it, such as
      {"sde": "subvpsde"}: see `architectures.authors`. A config.json beside the file may say it too.

  Raises:
    UserError: for a file that cannot be read (`weights.read`), that is of a model not known here, or whose
      arrays and options do not fit it.

  >>> model = load("tests/weights/recorded/edm.pkl")
  >>> model.shape, model.classes, model.sampler.name, model.sampler.cost
  ((4, 4, 3), 4, 'heun', 35)
  """
  path = os.path.expanduser(os.fspath(path))
  network, scheduler = _within(path)
  contents = opening.read(network)
  tree, config = contents.notes.get("tree"), contents.notes.get("config")
  snapshot = tree.get("ema") if isinstance(tree, Mapping) else None
  if isinstance(snapshot, Mapping) and "class_name" in snapshot:
    _nothing_told(path, snapshot["class_name"], told)
    return _of_edm(path, contents, snapshot, dtype)
  beside = config if isinstance(config, Mapping) else {}
  name = beside.get("_class_name") or authors.kind_of(contents.arrays)
  if name in authors.KINDS:
    return _of_authors(path, contents, authors.KINDS[name], dict(beside) | dict(told or {}), dtype)
  if name not in FAMILIES:
    what = f"of {name}" if name else "of a model that it does not name"
    raise UserError(
      f"{path} is {what}, which is not known here: known are pickles of EDM and EDM2, a config.json of "
      f"{', '.join(FAMILIES)} beside the weights, and the authors' files of {', '.join(authors.KINDS)}"
    )
  _nothing_told(path, name, told)
  denoiser, shape, classes = FAMILIES[name](config, scheduler, contents.load(), dtype)
  return Model(denoiser, shape, classes, _sampler(scheduler), path, contents.format)


def _nothing_told(path, name, told):
  if told:
    raise UserError(f"{path} is of {name}, whose file says what it is: leave told={dict(told)} out")


def _within(path):
  """(the network's folder or file, contents of the scheduler's config or None)."""
  if os.path.isfile(os.path.join(path, "model_index.json")):
    folders = [os.path.join(path, name) for name in NETWORKS if os.path.isdir(os.path.join(path, name))]
    network = folders[0] if folders else path
  else:
    network = path
  folder = network if os.path.isdir(network) else os.path.dirname(network)
  for place in (folder, os.path.join(os.path.dirname(folder), "scheduler")):
    file = os.path.join(place, "scheduler_config.json")
    if os.path.isfile(file):
      with mapped.sound(file, "a scheduler config"), open(file, encoding="utf-8") as opened:
        return network, json.load(opened)
  return network, None


def _of_edm(path, contents, snapshot, dtype):
  names = [name for name in contents.arrays if name.startswith("ema.")]
  arrays = {name.removeprefix("ema."): value for name, value in contents.load(names).items()}
  denoiser = edm.denoiser(snapshot, arrays, dtype)
  outer, _ = edm.options(snapshot)
  side = outer.img_resolution
  # Heun's method in 18 steps for CIFAR-10 and in 40 for images of 64 (arXiv:2206.00364), in 32 for EDM2.
  steps = 18 if side <= 32 else 40
  sampler = solvers.build("heun", denoiser.process, 32 if snapshot["class_name"] == "Precond" else steps)
  return Model(denoiser, (side, side, outer.img_channels), outer.label_dim, sampler, path, contents.format)


def _of_authors(path, contents, kind, told, dtype):
  found = kind.found(contents.load(kind.needed(contents.arrays)), told)
  denoiser = found.file.denoiser(found.options, found.arrays, dtype=dtype)
  sampler = found.file.sampler(found.options)
  return Model(denoiser, found.shape, found.classes, sampler, path, contents.format)


def _of_unet2d(config, scheduler, arrays, dtype):
  denoiser = unet2d.denoiser(config, scheduler, arrays, dtype=dtype)
  options = unet2d.build(config).options
  size = options.sample_size
  height, width = size if isinstance(size, tuple) else (size, size)
  if height is None or width is None:
    raise UserError("the config.json has no sample_size, the side of the model's images: add it")
  return denoiser, (height, width, options.in_channels), options.num_class_embeds or 0


def _of_dit(config, scheduler, arrays, dtype):
  shape = shape_of(config)
  denoiser = dit_files.denoiser(config, scheduler, arrays, dtype=dtype)
  return denoiser, (shape.side, shape.side, shape.channels), shape.classes - shape.null


FAMILIES = {
  "UNet2DModel": _of_unet2d,
  "DiTTransformer2DModel": _of_dit,
  "Transformer2DModel": _of_dit,
  "DiT": _of_dit,
  "SiT": _of_dit,
}
"""`_class_name` of a config.json: what makes (denoiser, shape, classes) of it."""


def _sampler(scheduler):
  """The solver of a scheduler's config; None without one, or where it has none here."""
  if scheduler is None:
    return None
  try:
    _, solver = solvers.from_diffusers(scheduler, STEPS.get(scheduler.get("_class_name"), 50))
  except ValueError:
    return None
  return solver
