"""How data becomes noise: x_t = alpha_t x_0 + sigma_t eps, one schedule a file."""

import numpy as np

from diffusion.processes import ncsnv2, neighbourhoods
from diffusion.processes.base import GaussianProcess, Marginal, Schedule, expand
from diffusion.processes.check import check
from diffusion.processes.comparison import difference
from diffusion.processes.concrete_views import concrete_score, neighbour_ratios
from diffusion.processes.contract import Process, Rate
from diffusion.processes.d3pm import d3pm, d3pm_absorbing, d3pm_gaussian, d3pm_uniform
from diffusion.processes.discretised_gaussian import discretised_gaussian
from diffusion.processes.flow import rectified_flow
from diffusion.processes.hiding import hide
from diffusion.processes.keeping import (
  Keep,
  KeepSchedule,
  cosine_keep,
  ladder_keep,
  linear_keep,
  log_linear_keep,
  polynomial_keep,
  slowed_keep,
)
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
from diffusion.processes.mixture_path import mixture_path
from diffusion.processes.noise_mixture import mixture
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
from diffusion.processes.rate_matrix import rate_matrix, walk_rates
from diffusion.processes.recovery import T6_TIMES, RecoveryLevels, published_step, recovery_levels
from diffusion.processes.resample import uniform_resample
from diffusion.processes.subvp import subvp
from diffusion.processes.tokens import check_tokens
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
# Discrete processes whose coordinates all have the same values, (num_values, shape) -> process, likewise.
CHAINS = {
  "masked_by_value": lambda num_values, shape: masked_by_value(np.linspace(0.6, 2.0, num_values), shape),
  "mixture_path": lambda num_values, shape: mixture_path(
    num_values, shape, np.arange(1, num_values + 1), schedule=polynomial_keep(2.0)
  ),
  "path_with_masks": lambda num_values, shape: mixture_path(
    num_values, shape, np.arange(1, num_values + 2), schedule=log_linear_keep(0.05)
  ),
  "walk_on_a_line": lambda num_values, shape: rate_matrix(
    walk_rates(neighbourhoods.grid(num_values, (1, -1), wrap=False)), shape
  ),
  "walk_around": lambda num_values, shape: rate_matrix(
    walk_rates(neighbourhoods.cycle(num_values)), shape, schedule=cosine_keep()
  ),
  "masked_uniform": lambda num_values, shape: mixture(
    [masked(num_values, shape), uniform_resample(num_values, shape, t_min=1e-3)], [0.7, 0.3]
  ),
  "uniform_and_walk": lambda num_values, shape: mixture(
    [uniform_resample(num_values, shape), rate_matrix(walk_rates(neighbourhoods.cycle(num_values)), shape)],
    [0.5, 1.0],
  ),
  "d3pm_absorbing": lambda num_values, shape: d3pm_absorbing(num_values, shape, 20),
  "d3pm_uniform": lambda num_values, shape: d3pm_uniform(num_values, shape, cosine_betas(20)),
  "d3pm_gaussian": lambda num_values, shape: d3pm_gaussian(num_values, shape, np.linspace(0.2, 0.6, 20)),
}
# The discrete ladders seen as processes.
LADDERS = {
  "ddpm_ladder": ddpm_ladder,
  "ncsn_ladder": ncsn_ladder,
  "zero_snr_ladder": lambda: zero_snr_ladder([*ddpm_betas()[:-1], 1.0]),
}
