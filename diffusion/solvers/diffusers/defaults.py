"""The scheduler classes of diffusers that are known, and their options.

The options have the defaults of version 0.42; with them stand the values that have steps here.
"""

from typing import Any

VERSION = "0.42"
"""The version of diffusers whose defaults and steps are meant."""

_BETAS = dict(
  num_train_timesteps=1000, beta_start=1e-4, beta_end=0.02, beta_schedule="linear", trained_betas=None
)
_SPACING = dict(timestep_spacing="linspace", steps_offset=0)
_SIGMAS = dict(use_karras_sigmas=False, use_exponential_sigmas=False, use_beta_sigmas=False)
_FLOW = dict(use_flow_sigmas=False, flow_shift=1.0)
_SHIFT = dict(use_dynamic_shifting=False, time_shift_type="exponential")
_THRESHOLD = dict(thresholding=False, dynamic_thresholding_ratio=0.995, sample_max_value=1.0)
_CLIP = dict(clip_sample=True, clip_sample_range=1.0)
_EPSILON = dict(prediction_type="epsilon")
_DPM = dict(solver_order=2, algorithm_type="dpmsolver++", solver_type="midpoint", final_sigmas_type="zero")
_EDM = dict(
  sigma_min=0.002,
  sigma_max=80.0,
  sigma_data=0.5,
  sigma_schedule="karras",
  num_train_timesteps=1000,
  prediction_type="epsilon",
  rho=7.0,
  final_sigmas_type="zero",
)
_NEVER = -float("inf")

DEFAULTS: dict[str, dict[str, Any]] = {
  "DDIMScheduler": _BETAS
  | _EPSILON
  | _CLIP
  | _THRESHOLD
  | dict(set_alpha_to_one=True, timestep_spacing="leading", steps_offset=0, rescale_betas_zero_snr=False),
  "DDPMScheduler": _BETAS
  | _EPSILON
  | _CLIP
  | _THRESHOLD
  | dict(
    variance_type="fixed_small", timestep_spacing="leading", steps_offset=0, rescale_betas_zero_snr=False
  ),
  "PNDMScheduler": _BETAS
  | _EPSILON
  | dict(skip_prk_steps=False, set_alpha_to_one=False, timestep_spacing="leading", steps_offset=0),
  "IPNDMScheduler": dict(num_train_timesteps=1000, trained_betas=None),
  "LCMScheduler": _BETAS
  | _EPSILON
  | _CLIP
  | _THRESHOLD
  | dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False)
  | dict(original_inference_steps=50, set_alpha_to_one=True, steps_offset=0, timestep_spacing="leading")
  | dict(timestep_scaling=10.0, rescale_betas_zero_snr=False),
  "EulerDiscreteScheduler": _BETAS
  | _EPSILON
  | _SPACING
  | _SIGMAS
  | dict(interpolation_type="linear", sigma_min=None, sigma_max=None, timestep_type="discrete")
  | dict(rescale_betas_zero_snr=False, final_sigmas_type="zero"),
  "EulerAncestralDiscreteScheduler": _BETAS | _EPSILON | _SPACING | dict(rescale_betas_zero_snr=False),
  "HeunDiscreteScheduler": _BETAS
  | _EPSILON
  | _SPACING
  | _SIGMAS
  | dict(beta_start=0.00085, beta_end=0.012, clip_sample=False, clip_sample_range=1.0),
  "LMSDiscreteScheduler": _BETAS | _EPSILON | _SPACING | _SIGMAS,
  "DPMSolverMultistepScheduler": _BETAS
  | _EPSILON
  | _THRESHOLD
  | _SPACING
  | _SIGMAS
  | _FLOW
  | _SHIFT
  | _DPM
  | dict(lower_order_final=True, euler_at_final=False, use_lu_lambdas=False, lambda_min_clipped=_NEVER)
  | dict(variance_type=None, rescale_betas_zero_snr=False),
  "DPMSolverSinglestepScheduler": _BETAS
  | _EPSILON
  | _THRESHOLD
  | _SIGMAS
  | _FLOW
  | _SHIFT
  | _DPM
  | dict(lower_order_final=False, lambda_min_clipped=_NEVER, variance_type=None),
  "UniPCMultistepScheduler": _BETAS
  | _EPSILON
  | _THRESHOLD
  | _SPACING
  | _SIGMAS
  | _FLOW
  | _SHIFT
  | dict(solver_order=2, predict_x0=True, solver_type="bh2", lower_order_final=True, disable_corrector=[])
  | dict(solver_p=None, final_sigmas_type="zero", rescale_betas_zero_snr=False, shift_terminal=None)
  | dict(sigma_min=None, sigma_max=None),
  "DEISMultistepScheduler": _BETAS
  | _EPSILON
  | _THRESHOLD
  | _SPACING
  | _SIGMAS
  | _FLOW
  | _SHIFT
  | dict(solver_order=2, algorithm_type="deis", solver_type="logrho", lower_order_final=True),
  "SASolverScheduler": _BETAS
  | _EPSILON
  | _THRESHOLD
  | _SPACING
  | _SIGMAS
  | _FLOW
  | dict(predictor_order=2, corrector_order=2, tau_func=None, algorithm_type="data_prediction")
  | dict(lower_order_final=True, lambda_min_clipped=_NEVER, variance_type=None),
  "EDMEulerScheduler": _EDM,
  "EDMDPMSolverMultistepScheduler": _EDM
  | _THRESHOLD
  | dict(solver_order=2, algorithm_type="dpmsolver++", solver_type="midpoint")
  | dict(lower_order_final=True, euler_at_final=False),
  "FlowMatchEulerDiscreteScheduler": _SIGMAS
  | _SHIFT
  | dict(num_train_timesteps=1000, shift=1.0, base_shift=0.5, max_shift=1.15, base_image_seq_len=256)
  | dict(max_image_seq_len=4096, invert_sigmas=False, shift_terminal=None, stochastic_sampling=False),
  "FlowMatchHeunDiscreteScheduler": dict(num_train_timesteps=1000, shift=1.0),
  "CMStochasticIterativeScheduler": dict(num_train_timesteps=40, sigma_min=0.002, sigma_max=80.0)
  | dict(sigma_data=0.5, s_noise=1.0, rho=7.0, clip_denoised=True),
}
"""{class: {option: its default}}."""

CLIPPING = ("thresholding", "clip_sample", "clip_denoised")
"""Options that clip the network's x0."""

SPACINGS = (*_SIGMAS, "use_lu_lambdas")
"""Options of which at most one is set."""

RENAMED = {
  "DPMSolverMultistepScheduler": dict(deis="dpmsolver++", logrho="midpoint", bh1="midpoint", bh2="midpoint"),
  "DPMSolverSinglestepScheduler": dict(deis="dpmsolver++", logrho="midpoint", bh1="midpoint", bh2="midpoint"),
  "EDMDPMSolverMultistepScheduler": dict(
    deis="dpmsolver++", logrho="midpoint", bh1="midpoint", bh2="midpoint"
  ),
  "UniPCMultistepScheduler": dict(midpoint="bh2", heun="bh2", logrho="bh2"),
  "DEISMultistepScheduler": {"dpmsolver": "deis", "dpmsolver++": "deis"}
  | dict(midpoint="logrho", heun="logrho", bh1="logrho", bh2="logrho"),
}
"""{class: {another class's value: what it is here}}, as diffusers reads one scheduler's config for
another."""

CHOICES: dict[str, dict[str, tuple[Any, ...]]] = {
  "DPMSolverMultistepScheduler": dict(
    algorithm_type=("dpmsolver++", "dpmsolver", "sde-dpmsolver++", "sde-dpmsolver"),
    solver_type=("midpoint", "heun"),
    solver_order=(1, 2, 3),
  ),
  "DPMSolverSinglestepScheduler": dict(
    algorithm_type=("dpmsolver++", "dpmsolver", "sde-dpmsolver++"),
    solver_type=("midpoint", "heun"),
    solver_order=(1, 2, 3),
  ),
  "EDMDPMSolverMultistepScheduler": dict(
    algorithm_type=("dpmsolver++", "sde-dpmsolver++"),
    solver_type=("midpoint", "heun"),
    solver_order=(1, 2, 3),
  ),
  "UniPCMultistepScheduler": dict(solver_type=("bh1", "bh2"), solver_order=(1, 2, 3, 4), solver_p=(None,)),
  "DEISMultistepScheduler": dict(algorithm_type=("deis",), solver_type=("logrho",), solver_order=(1, 2, 3)),
  "SASolverScheduler": dict(
    algorithm_type=("data_prediction", "noise_prediction"),
    predictor_order=(1, 2, 3, 4),
    corrector_order=(1, 2, 3, 4),
    tau_func=(None,),
  ),
  "DDPMScheduler": dict(variance_type=("fixed_small", "fixed_small_log", "fixed_large")),
  "PNDMScheduler": dict(prediction_type=("epsilon", "v_prediction")),
  "EulerAncestralDiscreteScheduler": dict(prediction_type=("epsilon", "v_prediction")),
  "EulerDiscreteScheduler": dict(timestep_type=("discrete",)),
  "IPNDMScheduler": dict(trained_betas=(None,)),
  "FlowMatchEulerDiscreteScheduler": dict(invert_sigmas=(False,), time_shift_type=("exponential", "linear")),
}
"""{class: {option: the values that have steps here}}, for this class."""

EVERYWHERE: dict[str, tuple[Any, ...]] = dict(
  beta_schedule=("linear", "scaled_linear", "squaredcos_cap_v2"),
  timestep_spacing=("leading", "trailing", "linspace"),
  prediction_type=("epsilon", "sample", "v_prediction", "flow_prediction"),
  interpolation_type=("linear", "log_linear"),
  final_sigmas_type=("zero", "sigma_min"),
  sigma_schedule=("karras", "exponential"),
)
"""{option: the values that have steps here}, for every class that has the option."""
