"""Files of authors that carry no config: what they are by the names of their arrays.

| model | file | what has to be told |
|---|---|---|
| UNetModel | `guided_diffusion` | of sizes that are not published, what no array tells |
| KarrasDenoiser | `consistency_models` | `distillation` |
| MeanFlow | `mean_flow` | `until` where it is not 'data' |
| ncsnpp | `score_sde` | `sde` of networks without Fourier features; more of other sizes |

What is told has the authors' names for it, and may stand in a config.json beside the file.
"""

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
  score_sde_files,
)

AVERAGE = "ema."
"""Where checkpoints of SiT's training have the average."""


class Found(NamedTuple):
  """A model whose options are known.

  Attributes:
    file: that has its `build`, `convert`, `process`, `meaning`, `sampler` and `denoiser`.
    options: of the model.
    arrays: as that file's `convert` takes them.
    shape: of one sample, [H, W, C].
    classes: number of classes, 0 without.
  """

  file: Any
  options: Any
  arrays: Mapping[str, Any]
  shape: tuple[int, int, int]
  classes: int


class Kind(NamedTuple):
  """Files of one kind.

  Attributes:
    fits: (arrays by name) -> whether they are of this kind, by their names and shapes.
    needed: (names) -> those of the arrays that are read.
    found: (arrays, what is told) -> `Found`.
  """

  fits: Callable[[Mapping[str, Any]], bool]
  needed: Callable[[Iterable[str]], list[str]]
  found: Callable[[Mapping[str, Any], Mapping[str, Any]], Found]


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


def _unet(arrays, told):
  options = guided_diffusion_options.unet(arrays, guided_diffusion.UNetModel, told)
  return Found(guided_diffusion, options, arrays, *_of_images(options))


def _karras(arrays, told):
  options = consistency_models.options_of(arrays, told)
  return Found(consistency_models, options, arrays, *_of_images(options))


def _of_images(options):
  return (options.image_size, options.image_size, options.in_channels), options.num_classes or 0


def _mean_flow(arrays, told):
  own = {name.removeprefix(AVERAGE): one for name, one in arrays.items()}
  config = mean_flow.config_of(own, told)
  side = config["input_size"]
  return Found(mean_flow, config, own, (side, side, config["in_channels"]), config["num_classes"])


def _of_average(names):
  found = list(names)
  return [name for name in found if name.startswith(AVERAGE)] or found


def _ncsnpp(arrays, told):
  averaged = score_sde_files.averaged(arrays)
  options = score_sde_files.options_of(averaged, told)
  shape = (options.image_size, options.image_size, options.num_channels)
  own = {name: np.asarray(one) for name, one in score_sde_files.own(averaged, options).items()}
  return Found(score_sde, options, own, shape, 0)


KINDS: dict[str, Kind] = {
  "KarrasDenoiser": Kind(_is_karras, list, _karras),
  "UNetModel": Kind(guided_diffusion_options.is_unet, list, _unet),
  "MeanFlow": Kind(
    lambda arrays: any(f"{prefix}{mean_flow.FIRST}.weight" in arrays for prefix in ("", AVERAGE)),
    _of_average,
    _mean_flow,
  ),
  "ncsnpp": Kind(
    lambda arrays: score_sde_files.is_flax(arrays) or score_sde_files.is_torch(arrays),
    score_sde_files.needed,
    _ncsnpp,
  ),
}
"""Class of a model, as its authors name it, or the name of its kind -> how its files are read."""
