"""`sample.py --to-diffusers=FOLDER`: a run's network as a folder that diffusers opens."""

from typing import Any

import numpy as np

from diffusion import data
from diffusion.config.errors import UserError
from diffusion.run.opening import SavedRun, open_run
from diffusion.run.parts import codec as codec_of_run
from diffusion.weights import exporting
from diffusion.weights.architectures import autoencoder_kl, scheduler

MEASURED = 256
"""Training records whose latents say an autoencoder's scaling_factor."""


def run(workdir: str, folder: str, checkpoint: int | None = None, ema: str | None = None) -> str:
  """Writes the averaged weights of a run; returns the sentence that says what was written.

  A denoiser becomes a pipeline, with its scheduler and, where its codec is a published autoencoder, that; an
  AutoencoderKL becomes the folder of one, with the scaling_factor that makes its latents of deviation 1 and
  the deviation that it was trained with.

  Args:
    workdir, checkpoint, ema: of the run, as for sampling.
    folder: to be made.

  Raises:
    UserError: for a network that diffusers does not have, a process that no scheduler says, and a folder that
      holds something; before anything is written.
  """
  opened = open_run(workdir, checkpoint, ema)
  stated = getattr(opened.parts.network, "diffusers_config", None)  # a module of one's own may state none
  if stated is None:
    raise UserError(
      f"the network of {workdir} is {type(opened.parts.network).__name__}, which diffusers does not have: "
      "train one of weights.architectures.unet2d.build, dit_files.build or autoencoder_kl.build"
    )
  config = dict(stated)
  if config["_class_name"] == autoencoder_kl.NAME:
    config, params = _autoencoder(opened, config)
    exporting.write_network(folder, config, exporting.arrays(params, config))
    what = f"an AutoencoderKL of scaling_factor {config['scaling_factor']:.5g}"
  else:
    parts = opened.parts
    steps = scheduler.write(parts.process, parts.parameterization)
    networks = {
      exporting.PLACES[config["_class_name"]]: (config, exporting.arrays(opened.params, config)),
      **_codec(opened),
    }
    names = tuple(str(name) for name in parts.dataset.class_names) if "transformer" in networks else ()
    exporting.write_pipeline(folder, networks, steps, names)
    what = f"a pipeline of {', '.join(networks)} and {steps['_class_name']}"
  return f"wrote {what} from step {opened.step} (average {opened.average}) to {folder}"


def _codec(opened: SavedRun) -> dict[str, Any]:
  """{'vae': (config, arrays)} of a run whose codec is a published autoencoder; {} without a codec."""
  sections = codec_of_run.sections(opened.config)
  if not sections:
    return {}
  if len(sections) > 1 or not codec_of_run.published(sections[0]):
    raise UserError(
      "a pipeline of diffusers has one AutoencoderKL between pictures and latents, and config.codec of this "
      "run has something else: write the network alone by weights.exporting"
    )
  config = dict(opened.parts.codec.parts[0].network.diffusers_config)
  return {"vae": (config, exporting.arrays(opened.codec_params[0], config))}


def _autoencoder(opened: SavedRun, config: dict[str, Any]) -> tuple[dict[str, Any], Any]:
  """(config, parameters) of an AutoencoderKL that was trained on its reconstruction."""
  dataset = opened.parts.dataset
  x = dataset.scaling.to_model(data.load(dataset.train, MEASURED)["x"])
  codec = autoencoder_kl.codec_of(config | dict(scaling_factor=1.0, shift_factor=None))
  z = codec_of_run.coded(codec, opened.params, x)
  noise = float(opened.config.loss.get("noise", 0.1))
  sized = dict(scaling_factor=1.0 / float(np.std(z)), shift_factor=None, sample_size=int(dataset.shape[0]))
  config = config | sized
  return config, autoencoder_kl.with_deviation(opened.params, config, noise) if noise else opened.params
