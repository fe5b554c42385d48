"""Files of authors that carry no config: what they are by the names of their arrays.

| model | file | what has to be told |
|---|---|---|
| UNetModel | `guided_diffusion` | of sizes that are not published, what no array tells |
| SuperResModel | `super_resolution` | the same |
| KarrasDenoiser | `consistency_models` | `distillation` |
| MeanFlow | `mean_flow` | `until` where it is not 'data' |
| ddpm | `score_sde_ddpm` | `sde` and `continuous`; more of other sizes |
| ncsnpp | `score_sde` | `sde` of networks without Fourier features; more of other sizes |

What is told has the authors' names for it, and may stand in a config.json beside the file.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from diffusion.config.errors import UserError
from diffusion.weights.architectures import (
  consistency_models,
  guided_diffusion,
  guided_diffusion_options,
  mean_flow,
  score_sde,
  score_sde_ddpm,
  score_sde_files,
  super_resolution,
)
from diffusion.weights.architectures.entries import options_of

AVERAGE = "ema."
"""Where checkpoints of SiT's training have the average."""


class Kind(NamedTuple):
  """Files of one kind.

  Attributes:
    fits: (arrays by name) -> whether they are of this kind, by their names and shapes.
    file: that has its `build`, `convert`, `process`, `meaning` and `sampler`, each by the options.
    config: (arrays, what is told) -> the options in plain words.
    options: (config) -> the options.
    size: (options) -> what is known of its samples.
    needed: (names) -> those of the arrays that are read.
    numbers: names of the arrays whose numbers the options follow from; of the others, shapes are looked at.
    own: (arrays, options) -> the arrays as the file's `convert` takes them.
  """

  fits: Callable[[Mapping[str, Any]], bool]
  file: Any
  config: Callable[[Mapping[str, Any], Mapping[str, Any]], dict[str, Any]]
  options: Callable[[Mapping[str, Any]], Any]
  size: Callable[[Any], "Size"]
  needed: Callable[[Iterable[str]], list[str]] = list
  own: Callable[[Mapping[str, Any], Any], Mapping[str, Any]] = lambda arrays, _: arrays
  numbers: tuple[str, ...] = ()


class Size(NamedTuple):
  """What is known of a model's samples, as `families.Parts` has it."""

  shape: tuple[int, int, int]
  classes: int = 0
  unconditional: bool = False
  denoises: bool = True
  values: tuple[float, float] | None = (-1.0, 1.0)
  told: tuple[str, ...] = ()


def kind_of(arrays: Mapping[str, Any]) -> str | None:
  """The model that a file's arrays are of, None for none that is known here.

  Raises UserError for a classifier, which is no denoiser.

  >>> kind_of({"params_ema.ResnetBlockBigGANpp_0.Conv_0.kernel": None})
  'ncsnpp'
  """
  if guided_diffusion_options.is_classifier(arrays):
    raise UserError(
      "these arrays are those of guided-diffusion's classifier of noisy images, which guides a denoiser and "
      "is none: read it by weights.architectures.noisy_classifier"
    )
  return next((name for name, kind in KINDS.items() if kind.fits(arrays)), None)


def _is_karras(arrays):
  return guided_diffusion_options.is_unet(arrays) and guided_diffusion_options.in_two_dimensions(arrays)


def _of_images(options, denoises=True):
  shape = (options.image_size, options.image_size, options.in_channels)
  return Size(shape, options.num_classes or 0, denoises=denoises)


def _of_latents(config):
  # One that goes to data in one step was trained with its guidance, and knows no other.
  side, steps = config["input_size"], config["until"] != "data"
  return Size((side, side, config["in_channels"]), config["num_classes"], steps, steps, None)


def _of_score_sde(options):
  shape = (options.image_size, options.image_size, options.num_channels)
  return Size(shape, values=(-1.0, 1.0) if options.in_symmetric_range else (0.0, 1.0))


def _plain(options):
  """A dataclass of options as JSON has it."""
  found = dataclasses.asdict(options)
  return {name: list(one) if isinstance(one, tuple) else one for name, one in found.items()}


def _of_average(names):
  found = list(names)
  return [name for name in found if name.startswith(AVERAGE)] or found


def _without_prefix(arrays, _=None):
  return {name.removeprefix(AVERAGE): one for name, one in arrays.items()}


def _averages(file):
  """`Kind.own` of a file that has `places`."""

  def own(arrays, options):
    found = score_sde_files.own(score_sde_files.averaged(arrays), file.places(options))
    return {name: np.asarray(one) for name, one in found.items()}

  return own


KINDS: dict[str, Kind] = {
  "KarrasDenoiser": Kind(
    _is_karras,
    consistency_models,
    lambda arrays, told: _plain(consistency_models.options_of(arrays, told)),
    lambda config: options_of(consistency_models.KarrasUNetModel, config),
    lambda options: _of_images(options, not options.distillation),
  ),
  "SuperResModel": Kind(
    guided_diffusion_options.is_super_resolution,
    super_resolution,
    lambda arrays, told: _plain(guided_diffusion_options.unet(arrays, super_resolution.SuperResModel, told)),
    lambda config: options_of(super_resolution.SuperResModel, config),
    lambda options: _of_images(options)._replace(told=(super_resolution.LOW_RES,)),
  ),
  "UNetModel": Kind(
    guided_diffusion_options.is_unet,
    guided_diffusion,
    lambda arrays, told: _plain(guided_diffusion_options.unet(arrays, guided_diffusion.UNetModel, told)),
    lambda config: options_of(guided_diffusion.UNetModel, config),
    _of_images,
  ),
  "MeanFlow": Kind(
    lambda arrays: any(f"{prefix}{mean_flow.FIRST}.weight" in arrays for prefix in ("", AVERAGE)),
    mean_flow,
    lambda arrays, told: mean_flow.config_of(_without_prefix(arrays), told),
    dict,
    _of_latents,
    _of_average,
    _without_prefix,
  ),
  "ddpm": Kind(  # before ncsnpp, whose files of PyTorch look alike by their names
    lambda arrays: score_sde_ddpm.is_flax(arrays) or score_sde_ddpm.is_torch(arrays),
    score_sde_ddpm,
    lambda arrays, told: _plain(score_sde_ddpm.options_of(score_sde_files.averaged(arrays), told)),
    lambda config: options_of(score_sde_ddpm.DDPM, config),
    _of_score_sde,
    score_sde_files.needed,
    _averages(score_sde_ddpm),
    (score_sde_files.TORCH + score_sde_files.LEVELS,),
  ),
  "ncsnpp": Kind(
    lambda arrays: score_sde_files.is_flax(arrays) or score_sde_files.is_torch(arrays),
    score_sde,
    lambda arrays, told: _plain(score_sde_files.options_of(score_sde_files.averaged(arrays), told)),
    lambda config: options_of(score_sde.NCSNpp, config),
    _of_score_sde,
    score_sde_files.needed,
    _averages(score_sde),
    (score_sde_files.TORCH + score_sde_files.LEVELS,),
  ),
}
"""Class of a model, as its authors name it, or the name of its kind -> how its files are read."""
