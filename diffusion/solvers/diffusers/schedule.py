"""Which levels which scheduler of diffusers takes."""

from typing import Any

import numpy as np

from diffusion.solvers.diffusers import flow, levels, timesteps


def levels_of(name: str, c: dict[str, Any], n: int, mu: float | None = None) -> levels.Levels:
  """The times and levels of a scheduler with these options: see `levels.Levels`.

  There is one a row of its table, but for Heun's.
  """
  if c.get("use_flow_sigmas"):
    return _of_flow_sigmas(name, c, n, mu)
  matching = lambda: flow.of_flow(c, flow.flow_euler_sigmas(c, n, mu), 0.0, whole=False)
  adams = lambda: levels.of_dpm(c | dict(final_sigmas_type="sigma_min"), n, end="last")
  found = {
    "DDIMScheduler": lambda: timesteps.of_whole_timesteps(c, n),
    "DDPMScheduler": lambda: timesteps.of_next_timestep(c, n),
    "LCMScheduler": lambda: timesteps.of_distilled_timesteps(c, n),
    "PNDMScheduler": lambda: timesteps.of_pndm(c, n)[0],
    "IPNDMScheduler": lambda: levels.of_ipndm(n),
    "EulerDiscreteScheduler": lambda: levels.of_euler(c, n),
    "EulerAncestralDiscreteScheduler": lambda: levels.of_euler(c, n),
    "HeunDiscreteScheduler": lambda: levels.of_euler(c, n),
    "LMSDiscreteScheduler": lambda: levels.of_euler(c, n),
    "DPMSolverMultistepScheduler": lambda: levels.of_dpm(c, n, rounds=False),
    "DPMSolverSinglestepScheduler": lambda: levels.of_dpm(c, n),
    "UniPCMultistepScheduler": lambda: levels.of_dpm(c, n, end="last"),
    "DEISMultistepScheduler": adams,
    "SASolverScheduler": adams,
    "EDMEulerScheduler": lambda: levels.of_edm(c, n),
    "EDMDPMSolverMultistepScheduler": lambda: levels.of_edm(c, n),
    "FlowMatchEulerDiscreteScheduler": matching,
    "FlowMatchHeunDiscreteScheduler": matching,
    "CMStochasticIterativeScheduler": lambda: levels.of_consistency(c, n),
  }
  return found[name]()


def _of_flow_sigmas(name, c, n, mu):
  """Flow times in the schedulers that are made for a table of betas."""
  if name == "UniPCMultistepScheduler":
    sigma = flow.unipc_flow_sigmas(c, n, mu)
    return flow.of_flow(c, sigma, 0.0 if c["final_sigmas_type"] == "zero" else sigma[-1], whole=True)
  sigma = flow.dpm_flow_sigmas(c, n, c["flow_shift"] if mu is None else float(np.exp(mu)))
  if c.get("final_sigmas_type") == "zero":
    end = 0.0
  elif c.get("final_sigmas_type") == "sigma_min":
    end = np.sqrt(1 / (1 - levels.betas_of(c)[0]) - 1)  # of the table of betas
  else:
    end = sigma[-1]
  return flow.of_flow(c, sigma, end, whole=True)
