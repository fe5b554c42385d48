"""The process and the prediction that a scheduler config of diffusers says its network was trained for."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from diffusion import denoisers, processes
from diffusion.config.errors import UserError
from diffusion.solvers.diffusers.defaults import DEFAULTS, EVERYWHERE
from diffusion.solvers.diffusers.levels import beta_table, betas_of

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
WITHOUT_FLOOR = ("DDIMScheduler", "DDPMScheduler", "LCMScheduler")
"""Schedulers whose last step has no signal with rescale_betas_zero_snr; the others keep 2^-24 of abar."""


def read(
  config: Mapping[str, Any] | None, levels: bool = False
) -> tuple[processes.GaussianProcess, denoisers.Parameterization]:
  """(process, what the output means) of a scheduler_config.json.

  Timestep k of a table of N betas is t = (k + 1)/N on `processes.vp_ladder`, and the network is told k. With
  rescale_betas_zero_snr (arXiv:2305.08891) the last step has no signal: that is `processes.zero_snr_ladder`.
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
  return _ladder(given, kind), kinds[kind](time_scale=float(count), time_shift=-1.0)


def _ladder(config, kind):
  """The process of a table of betas, the same as its scheduler's own."""
  table = betas(config)
  if not config.get("rescale_betas_zero_snr"):
    return processes.vp_ladder(table)
  name = config["_class_name"]
  if kind == "epsilon" and name in WITHOUT_FLOOR:
    raise UserError(
      f"{name} with rescale_betas_zero_snr has no signal at its last step, where a predicted noise says "
      "nothing of the data: give the config that the network was trained with, whose prediction_type is "
      "'v_prediction' or 'sample', or leave rescale_betas_zero_snr out"
    )
  try:
    return beta_table(DEFAULTS[name] | dict(config), floor=name not in WITHOUT_FLOOR)[0]
  except ValueError as error:
    raise UserError(f"{name}: {error}") from error


def betas(config: Mapping[str, Any]) -> np.ndarray:
  """The table of betas of a scheduler config: [N] float64, the last one 1 with rescale_betas_zero_snr.

  >>> betas({"num_train_timesteps": 3, "beta_start": 0.1, "beta_end": 0.3}).round(3).tolist()
  [0.1, 0.2, 0.3]
  """
  options = DEFAULTS[config.get("_class_name", "DDPMScheduler")] | dict(config)
  schedule = options["beta_schedule"]
  if schedule not in EVERYWHERE["beta_schedule"]:
    raise UserError(
      f"beta_schedule={schedule!r} is not known here: give {', '.join(EVERYWHERE['beta_schedule'])}, or the "
      "table itself as trained_betas"
    )
  return betas_of(options)


def write(process: processes.GaussianProcess, meaning: denoisers.Parameterization) -> dict[str, Any]:
  """The contents of a scheduler_config.json whose process and prediction these are: the inverse of `read`.

  DDIM's for a table of betas, flow matching's Euler for `rectified_flow`, Score SDE's for `edm` with a score.

  Raises UserError for what no scheduler says: another process, or a network that is told other times.

  >>> process, meaning = read({"_class_name": "DDPMScheduler"})
  >>> found = write(process, meaning)
  >>> found["_class_name"], found["beta_schedule"], round(found["beta_end"], 9), found["prediction_type"]
  ('DDIMScheduler', 'linear', 0.02, 'epsilon')
  """
  kinds = {"eps": "epsilon", "x0": "sample", "v": "v_prediction"}
  count = round(float(meaning.time_scale))
  if process.name == "vp_ladder":
    found = {"_class_name": "DDIMScheduler", "clip_sample": False, "set_alpha_to_one": True}
    found |= {"timestep_spacing": "trailing", "prediction_type": kinds.get(meaning.kind)}
    found |= _table_of(np.asarray(process.marginal(np.arange(max(count, 2) + 1) / max(count, 2)).alpha))
  elif process.name == "rectified_flow":
    found = {"_class_name": FLOWS[0], "num_train_timesteps": count, "shift": 1.0}
  else:
    bounds = {"sigma_min": float(process.t_min), "sigma_max": float(process.t_max)}
    found = {"_class_name": LEVELS, "num_train_timesteps": 1000} | bounds
  levels = found["_class_name"] == LEVELS
  try:
    again, told = read(found, levels)
    same = processes.difference(again, process) == "" and _same(told, meaning)
  except UserError:
    same = False
  if not same:
    raise UserError(
      f"no scheduler of diffusers says the process {process.name!r} with a network that predicts "
      f"{meaning.kind!r} and is told {float(meaning.time_scale):g} {meaning.time_input} + "
      f"{float(meaning.time_shift):g}: known are processes.vp_ladder and ddpm_ladder of N steps with eps, x0 "
      "or v, time_scale=N and time_shift=-1, and processes.rectified_flow with velocity and time_scale=N"
    )
  return found


def _table_of(alpha):
  """The options of a table of betas by alpha at its rungs, the first at data.

  Two ends where it is linear, else the table itself.
  """
  table = 1 - np.square(alpha[1:] / alpha[:-1])
  ends = {"beta_start": float(table[0]), "beta_end": float(table[-1])}
  if np.allclose(table, np.linspace(table[0], table[-1], len(table)), rtol=1e-6, atol=0):
    return {"num_train_timesteps": len(table), "beta_schedule": "linear", **ends}
  return {"num_train_timesteps": len(table), "trained_betas": table.tolist()}


def _same(one, other):
  numbers = lambda p: tuple(float(x) for x in (p.time_scale, p.time_shift))
  return (one.kind, one.time_input, numbers(one)) == (other.kind, other.time_input, numbers(other))
