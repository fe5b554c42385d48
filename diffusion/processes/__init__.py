"""How data becomes noise: x_t = alpha_t x_0 + sigma_t eps, one schedule a file."""

from diffusion.processes import ncsnv2, neighbourhoods
from diffusion.processes.base import GaussianProcess, Marginal, Schedule, expand
from diffusion.processes.check import check
from diffusion.processes.comparison import difference
from diffusion.processes.contract import Process, Rate
from diffusion.processes.discretised_gaussian import discretised_gaussian
from diffusion.processes.flow import rectified_flow
from diffusion.processes.hiding import hide
from diffusion.processes.keeping import Keep, KeepSchedule, cosine_keep, linear_keep
from diffusion.processes.ladders import (
  cosine_betas,
  ddpm_betas,
  ddpm_ladder,
  geometric_sigmas,
  ncsn_ladder,
  vp_ladder,
  zero_snr_ladder,
)
from diffusion.processes.masked import masked
from diffusion.processes.masked_by_value import masked_by_value
from diffusion.processes.paths import (
  Blend,
  Path,
  PathSchedule,
  as_path,
  from_process,
  linear,
  log_variance,
  spherical,
  through,
  trigonometric,
)
from diffusion.processes.recovery import T6_TIMES, RecoveryLevels, published_step, recovery_levels
from diffusion.processes.resample import uniform_resample
from diffusion.processes.subvp import subvp
from diffusion.processes.values import check_values
from diffusion.processes.ve import edm, ve
from diffusion.processes.vp import vp_cosine, vp_linear

# Every continuous-time process, for the tests that hold for all of them.
PROCESSES = {
  "vp_linear": vp_linear,
  "vp_cosine": vp_cosine,
  "subvp": subvp,
  "ve": ve,
  "edm": edm,
  "rectified_flow": rectified_flow,
}
# Paths between two ends, for the tests that hold for all of them.
TWO_ENDED = {
  "linear": linear,
  "bridge": lambda: linear(bridge=0.7),
  "linear_to_normal": lambda: linear("data", "normal"),
  "trigonometric": trigonometric,
  "spherical": spherical,
  "spherical_data": lambda: spherical("data", "data"),
  "log_variance": log_variance,
  "path_of_vp": lambda: from_process(vp_linear()),
}
# Masked processes, (num_values, shape) -> process, for the tests that hold for all of them.
MASKED = {
  "masked": masked,
  "masked_cosine": lambda num_values, shape: masked(num_values, shape, schedule=cosine_keep()),
}
# Processes of whole numbers, (sizes, shape) -> process, for the tests that hold for all of them.
DISCRETE = {"uniform_resample": uniform_resample, "discretised_gaussian": discretised_gaussian}
# The discrete ladders seen as processes.
LADDERS = {
  "ddpm_ladder": ddpm_ladder,
  "ncsn_ladder": ncsn_ladder,
  "zero_snr_ladder": lambda: zero_snr_ladder([*ddpm_betas()[:-1], 1.0]),
}
