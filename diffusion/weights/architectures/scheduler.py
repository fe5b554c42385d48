"""The process and the prediction that a scheduler config of diffusers says its network was trained for."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from diffusion import denoisers, processes
from diffusion.config.errors import UserError
from diffusion.solvers.diffusers.defaults import DEFAULTS, EVERYWHERE
from diffusion.solvers.diffusers.levels import betas_of

WITH_BETAS = (
  "DDIMScheduler",
  "DDPMScheduler",
  "PNDMScheduler",
  "EulerDiscreteScheduler",
  "EulerAncestralDiscreteScheduler",
  "LMSDiscreteScheduler",
  "HeunDiscreteScheduler",
  "DPMSolverMultistepScheduler",
  "DPMSolverSinglestepScheduler",
  "UniPCMultistepScheduler",
  "DEISMultistepScheduler",
  "SASolverScheduler",
  "LCMScheduler",
)
FLOWS = ("FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler")
LEVELS = "ScoreSdeVeScheduler"


def read(
  config: Mapping[str, Any] | None, levels: bool = False
) -> tuple[processes.GaussianProcess, denoisers.Parameterization]:
  """(process, what the output means) of a scheduler_config.json.

  Timestep k of a table of N betas is t = (k + 1)/N on `processes.vp_ladder`, and the network is told k.
  Flow matching is `processes.rectified_flow`, told N t. Score SDE's levels are `processes.edm`, told sigma,
  and the network returns the score.

  Args:
    config: its contents; None for DDPM's table with a predicted noise, or with `levels` for Score SDE's.
    levels: whether the network is told noise levels.

  Raises:
    UserError: for a class or an option whose process is not known here.

  >>> process, meaning = read({"_class_name": "DDIMScheduler", "prediction_type": "v_prediction"})
  >>> process.name, meaning.kind, meaning.time_scale, meaning.time_shift
  ('vp_ladder', 'v', 1000.0, -1.0)
  """
  given = dict(config or {"_class_name": LEVELS if levels else "DDPMScheduler"})
  name = given.get("_class_name")
  if name not in (*WITH_BETAS, *FLOWS, LEVELS):
    raise UserError(
      f"the scheduler's _class_name is {name!r}: its process is not known here, those of "
      f"{', '.join((*WITH_BETAS, *FLOWS, LEVELS))} are"
    )
  if (name == LEVELS) != levels:
    raise UserError(
      f"{name} tells its network {'noise levels' if name == LEVELS else 'numbers of timesteps'}, and this "
      f"network takes {'noise levels' if levels else 'numbers of timesteps'}: give the same model's "
      "scheduler config"
    )
  if name == LEVELS:
    bounds = float(given.get("sigma_min", 0.01)), float(given.get("sigma_max", 1348.0))
    return processes.edm(*bounds), denoisers.score(time_input="t")
  count = int(given.get("num_train_timesteps", 1000))
  if name in FLOWS or given.get("use_flow_sigmas"):
    return processes.rectified_flow(), denoisers.velocity(time_scale=float(count))
  kinds = {"epsilon": denoisers.eps, "sample": denoisers.x0, "v_prediction": denoisers.v}
  kind = given.get("prediction_type", "epsilon")
  if kind not in kinds:
    raise UserError(f"{name} with prediction_type={kind!r} is not known here: give one of {', '.join(kinds)}")
  return processes.vp_ladder(betas(given)), kinds[kind](time_scale=float(count), time_shift=-1.0)


def betas(config: Mapping[str, Any]) -> np.ndarray:
  """The table of betas of a scheduler config: [N] float64.

  >>> betas({"num_train_timesteps": 3, "beta_start": 0.1, "beta_end": 0.3}).round(3).tolist()
  [0.1, 0.2, 0.3]
  """
  if config.get("rescale_betas_zero_snr"):
    raise UserError(
      "rescale_betas_zero_snr makes a table whose last step has no signal, which is no vp_ladder: leave it "
      "out"
    )
  options = DEFAULTS[config.get("_class_name", "DDPMScheduler")] | dict(config)
  schedule = options["beta_schedule"]
  if schedule not in EVERYWHERE["beta_schedule"]:
    raise UserError(
      f"beta_schedule={schedule!r} is not known here: give {', '.join(EVERYWHERE['beta_schedule'])}, or the "
      "table itself as trained_betas"
    )
  return betas_of(options)
