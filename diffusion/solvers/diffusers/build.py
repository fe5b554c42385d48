"""A diffusers scheduler config as a process and a solver of this library."""

from typing import Any

import numpy as np

from diffusion import processes
from diffusion.solvers.diffusers import exponential, steps, timesteps
from diffusion.solvers.diffusers.clipped import ClippedDDIM, clipped_ddim
from diffusion.solvers.diffusers.defaults import CLIPPING
from diffusion.solvers.diffusers.options import read
from diffusion.solvers.diffusers.schedule import levels_of
from diffusion.solvers.diffusers.steps import Frame
from diffusion.solvers.grids import check_steps
from diffusion.solvers.table import Table

VIEW_OF = {"epsilon": "eps", "sample": "x0", "v_prediction": "v", "flow_prediction": "velocity"}
"""{prediction_type of diffusers: what such a network is asked for here}."""


def from_diffusers(
  config: Any,
  num_steps: int,
  *,
  eta: float = 0.0,
  mu: float | None = None,
  denoiser_clips: bool = False,
  dtype: Any = np.float32,
  **overrides: Any,
) -> tuple[processes.GaussianProcess, Table | ClippedDDIM]:
  """(process, solver) with the times, sigmas and steps that diffusers 0.42 has for a scheduler config.

  Timestep k of a table of N betas is t = (k + 1)/N on `processes.vp_ladder`; flow matching runs on
  `processes.rectified_flow`, EDM's and the consistency schedulers on `processes.edm`. The table asks the
  network for what `prediction_type` says it predicts, so that no conversion at a rounded timestep comes
  between. A draw from `process.prior` starts where diffusers' `noise * init_noise_sigma` does. Where
  diffusers is wrong, `lint_diffusers` says so, and what is done instead.

  Args:
    config: a dict as in `scheduler_config.json`, or a path to such a file or its folder.
    num_steps: of `set_timesteps`.
    eta: of DDIM's `step`.
    mu: of `set_timesteps`, where `use_dynamic_shifting` is set.
    denoiser_clips: says that the denoiser's x0 is clipped as the config asks (`clip_sample`, `thresholding`
      or `clip_denoised`), by `guidance.static_threshold` or `guidance.dynamic_threshold` around it. Clipping
      is not linear, so that no table has it; DDIM's has a solver of its own.
    dtype: precision at run time.
    **overrides: options in place of the config's, for example timestep_spacing="trailing".

  Raises:
    ValueError: a class, an option or a value that is unknown or cannot be expressed, with what can be.

  >>> config = {"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "trailing"}
  >>> process, solver = from_diffusers(config, 4)
  >>> print(solver)
  EulerDiscreteScheduler: order 1, 4 evaluations, asks for eps, 1 slot, no noise (process vp_ladder)
  start  S0 <- 0.99998 x
  row 0  t=1     S0 <- 9.1115 S0 - 8.113 E
  row 1  t=0.75  S0 <- 4.843 S0 - 3.875 E
  row 2  t=0.5   S0 <- 2.5824 S0 - 1.789 E
  row 3  t=0.25  S0 <- 1.3813 S0 - 0.95294 E
  output t=0     S0
  """
  check_steps(num_steps)
  name, c, _ = read(config, overrides)
  if eta and name != "DDIMScheduler":
    raise ValueError(f"eta={eta} is an argument of DDIMScheduler's step, and {name} has none: leave it out")
  if not 0 <= eta <= 1:
    raise ValueError(f"eta is a share of the ancestral noise and lies in [0, 1], got {eta}")
  if bool(c.get("use_dynamic_shifting")) != (mu is not None):
    raise ValueError(
      f"{name} with use_dynamic_shifting={bool(c.get('use_dynamic_shifting'))} got mu={mu}: a dynamic shift "
      "needs mu, for Flux base_shift + (max_shift - base_shift) (tokens - 256)/(4096 - 256), and a fixed "
      "one has none"
    )
  called = name if not eta else f"{name}(eta={eta:g})"
  schedule = levels_of(name, c, int(num_steps), mu)
  if name == "DDIMScheduler" and any(c[key] for key in ("thresholding", "clip_sample")):
    return schedule.process, clipped_ddim(schedule, called, eta, _bound(c, denoiser_clips), dtype)
  frame = Frame(_view(name, c, denoiser_clips), called, dtype)
  if denoiser_clips:
    _check_level(schedule, name)
  return schedule.process, _table(name, c, schedule, frame, eta, int(num_steps))


def _bound(c, denoiser_clips):
  """The bound of DDIM's clipped x0."""
  if denoiser_clips:
    raise ValueError(
      "DDIMScheduler clips x0 and not the noise, as its solver here does: leave out denoiser_clips"
    )
  if not c["thresholding"]:
    return c["clip_sample_range"]
  if c["sample_max_value"] != 1:
    raise ValueError(
      f"DDIMScheduler with thresholding and sample_max_value={c['sample_max_value']:g} scales x0 by a "
      "quantile beside the noise as it was predicted, which no solver here does: give thresholding=False, "
      "or sample_max_value=1"
    )
  return 1.0  # the quantile is clamped to [1, sample_max_value]


def _view(name, c, denoiser_clips):
  """What the network is asked for."""
  if name == "IPNDMScheduler":
    return "v"
  if name.startswith("FlowMatch"):
    return "velocity"
  clips = [key for key in CLIPPING if c.get(key)]
  if clips:
    option = clips[0]
    if not denoiser_clips:
      raise ValueError(
        f"{name} with {option} clips x0, which is not linear: put guidance.static_threshold around the "
        f"denoiser and say denoiser_clips=True, or give {option}=False"
      )
    return "x0"
  if denoiser_clips:
    raise ValueError(f"this {name} does not clip: leave out denoiser_clips")
  if name.startswith("EDM") or name == "CMStochasticIterativeScheduler":
    return "x0"
  return VIEW_OF[c["prediction_type"]]


def _check_level(n, name):
  """Raises ValueError where the denoiser would convert its output at another level than the scheduler's."""
  level = n.process.level(n.t[:-1])
  off = np.flatnonzero(~(np.abs(level - n.sigma[:-1]) <= 1e-6 * level))
  if off.size and np.isfinite(level[off]).all():
    raise ValueError(
      f"{name} clips at sigma = {n.sigma[off[0]]:.6g} and hands the network a timestep of sigma = "
      f"{level[off[0]]:.6g}, where the denoiser would clip: use a spacing of whole timesteps"
    )


def _table(name, c, n, frame, eta, count):
  flow = c.get("use_flow_sigmas", False)
  table = {
    "EDMEulerScheduler": lambda: steps.euler_to_data(n, frame),
    "EDMDPMSolverMultistepScheduler": lambda: exponential.dpm_multistep(n, frame, c),
    "DPMSolverMultistepScheduler": lambda: exponential.dpm_multistep(n, frame, c, flow),
    "DPMSolverSinglestepScheduler": lambda: exponential.dpm_singlestep(n, frame, c, flow),
    "UniPCMultistepScheduler": lambda: exponential.unipc(n, frame, c, flow),
    "DEISMultistepScheduler": lambda: exponential.deis(n, frame, c, flow),
    "SASolverScheduler": lambda: exponential.sa_solver(n, frame, c, flow),
    "EulerDiscreteScheduler": lambda: steps.euler(n, frame),
    "EulerAncestralDiscreteScheduler": lambda: steps.euler_ancestral(n, frame),
    "HeunDiscreteScheduler": lambda: steps.heun(n, frame),
    "LMSDiscreteScheduler": lambda: steps.lms(n, frame),
    "IPNDMScheduler": lambda: steps.ipndm(n, frame),
    "FlowMatchEulerDiscreteScheduler": lambda: steps.flow_euler(n, frame, c["stochastic_sampling"]),
    "FlowMatchHeunDiscreteScheduler": lambda: steps.flow_heun(n, frame),
    "CMStochasticIterativeScheduler": lambda: steps.consistency(n, frame, c["s_noise"]),
    "DDIMScheduler": lambda: steps.ddim(n, frame, eta),
    "DDPMScheduler": lambda: steps.ddpm(n, frame, c["variance_type"]),
    "LCMScheduler": lambda: steps.lcm(n, frame, c["timestep_scaling"]),
    "PNDMScheduler": lambda: steps.pndm(n, frame, timesteps.of_pndm(c, count)[1]),
  }
  return table[name]()
