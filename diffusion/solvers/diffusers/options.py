"""A scheduler config of diffusers: the classes that are known, their options with the defaults of version
0.42, and what of a config this library has to refuse."""

import difflib
import json
import pathlib
from collections.abc import Mapping
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

_KNOWN = {name for options in DEFAULTS.values() for name in options}
# What a class takes of another class's names, as diffusers does when one scheduler is made from another's
# config.
_RENAMED = {
  "DPMSolverMultistepScheduler": dict(deis="dpmsolver++", logrho="midpoint", bh1="midpoint", bh2="midpoint"),
  "DPMSolverSinglestepScheduler": dict(deis="dpmsolver++", logrho="midpoint", bh1="midpoint", bh2="midpoint"),
  "EDMDPMSolverMultistepScheduler": dict(
    deis="dpmsolver++", logrho="midpoint", bh1="midpoint", bh2="midpoint"
  ),
  "UniPCMultistepScheduler": dict(midpoint="bh2", heun="bh2", logrho="bh2"),
  "DEISMultistepScheduler": {"dpmsolver": "deis", "dpmsolver++": "deis"}
  | dict(midpoint="logrho", heun="logrho", bh1="logrho", bh2="logrho"),
}
_CHOICES: dict[str, dict[str, tuple[Any, ...]]] = {
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
_EVERYWHERE: dict[str, tuple[Any, ...]] = dict(
  beta_schedule=("linear", "scaled_linear", "squaredcos_cap_v2"),
  timestep_spacing=("leading", "trailing", "linspace"),
  prediction_type=("epsilon", "sample", "v_prediction", "flow_prediction"),
  interpolation_type=("linear", "log_linear"),
  final_sigmas_type=("zero", "sigma_min"),
  sigma_schedule=("karras", "exponential"),
  variance_type=(None, "fixed_small", "fixed_small_log", "fixed_large"),
)


def read(config: Any, overrides: Mapping[str, Any]) -> tuple[str, dict[str, Any], list[str]]:
  """The class of a config, all its options, and the names of options that the class does not have.

  Args:
    config: a dict as in `scheduler_config.json`, or a path to such a file or to the folder that holds it.
    overrides: options that replace those of the config.

  Returns:
    (class name, {option: value} with the defaults of diffusers 0.42 for what the config leaves out, what
    belongs to other schedulers and is ignored, as diffusers does).

  Raises:
    ValueError: no class or an unknown one; an option that no scheduler has, or a value that is not known.

  >>> config = {"_class_name": "PNDMScheduler", "clip_sample": False}
  >>> name, options, ignored = read(config, {"steps_offset": 1})
  >>> name, options["steps_offset"], options["timestep_spacing"], ignored
  ('PNDMScheduler', 1, 'leading', ['clip_sample'])
  """
  given = dict(_loaded(config)) | dict(overrides)
  name = given.get("_class_name")
  if name not in DEFAULTS:
    close = difflib.get_close_matches(str(name), DEFAULTS, 1, 0.6)
    meant = f", did you mean {close[0]!r}?" if close else ":"
    raise ValueError(
      f"the scheduler's _class_name is {name!r}{meant} this library has the steps of {', '.join(DEFAULTS)}"
    )
  given = {key: value for key, value in given.items() if not key.startswith("_")}
  strange = sorted(set(given) - _KNOWN)
  if strange:
    close = difflib.get_close_matches(strange[0], _KNOWN, 1, 0.6)
    raise ValueError(
      f"{name} has no option {strange[0]!r}{f', did you mean {close[0]!r}?' if close else ''}: remove it, "
      f"its "
      f"options are {', '.join(DEFAULTS[name])}"
    )
  ignored = sorted(set(given) - set(DEFAULTS[name]))
  options = DEFAULTS[name] | {key: value for key, value in given.items() if key in DEFAULTS[name]}
  renamed = _RENAMED.get(name, {})
  for key in ("algorithm_type", "solver_type"):
    if key in options:
      options[key] = renamed.get(options[key], options[key])
  _check(name, options)
  return name, options, ignored


def _loaded(config: Any) -> Mapping[str, Any]:
  if isinstance(config, Mapping):
    return config
  path = pathlib.Path(config)
  path = path / "scheduler_config.json" if path.is_dir() else path
  if not path.is_file():
    raise ValueError(
      f"{path} is no file: give a scheduler_config.json, its folder, or its contents as a dict"
    )
  found = json.loads(path.read_text())
  if not isinstance(found, dict):
    raise ValueError(f"{path} holds {type(found).__name__} and no scheduler config, which is a JSON object")
  return found


def _check(name: str, options: dict[str, Any]) -> None:
  for key, allowed in (_EVERYWHERE | _CHOICES.get(name, {})).items():
    if key in options and options[key] not in allowed:
      raise ValueError(
        f"{name} with {key}={options[key]!r} cannot be expressed: {key} is one of "
        f"{', '.join(map(repr, allowed))}"
      )
  chosen = [key for key in (*_SIGMAS, "use_lu_lambdas") if options.get(key)]
  if len(chosen) > 1:
    raise ValueError(f"{name} takes one spacing of sigmas, got {' and '.join(chosen)}: leave one")
  flow = options.get("use_flow_sigmas", False)
  if flow and chosen and not (name == "UniPCMultistepScheduler" and chosen == ["use_karras_sigmas"]):
    raise ValueError(
      f"{name} with use_flow_sigmas and {chosen[0]} spaces variance-exploding sigmas and takes them for flow "
      "times above 1, which gives NaN: leave one"
    )
  kind = options.get("prediction_type")
  if "use_flow_sigmas" in options and (kind == "v_prediction" if flow else kind == "flow_prediction"):
    raise ValueError(
      f"{name} with prediction_type={kind!r} and use_flow_sigmas={flow} mixes two processes: flow_prediction "
      "goes with use_flow_sigmas=True, v_prediction with False"
    )
  if kind == "flow_prediction" and "use_flow_sigmas" not in options:
    raise ValueError(
      f"{name} has no prediction_type 'flow_prediction': it is one of the schedulers' with flow sigmas"
    )
  if (
    options.get("rescale_betas_zero_snr")
    and kind == "epsilon"
    and name in ("DDIMScheduler", "DDPMScheduler", "LCMScheduler")
  ):
    raise ValueError(
      f"{name} with rescale_betas_zero_snr starts where there is no signal, where a predicted noise says "
      "nothing of the data and diffusers returns inf or NaN: use prediction_type 'v_prediction' or 'sample'"
    )
  algorithm, order = options.get("algorithm_type"), options.get("solver_order")
  if name.startswith("DPMSolver") and algorithm in ("dpmsolver", "sde-dpmsolver"):
    if options["final_sigmas_type"] == "zero":
      raise ValueError(
        f"{name} with algorithm_type={algorithm!r} integrates the noise, which is not known at sigma = 0: "
        f"use "
        "final_sigmas_type='sigma_min'"
      )
    if algorithm == "sde-dpmsolver" and order == 3:
      raise ValueError("sde-dpmsolver has steps of order 1 and 2: use solver_order=2")
    if kind == "flow_prediction":
      raise ValueError(
        f"{name} with algorithm_type={algorithm!r} does not read flow_prediction: use dpmsolver++"
      )
  if name.startswith("UniPC") and not options["predict_x0"] and options["final_sigmas_type"] == "zero":
    raise ValueError(
      f"{name} with predict_x0=False integrates the noise, which is not known at sigma = 0, and is NaN in "
      "diffusers: use final_sigmas_type='sigma_min'"
    )
  if name.startswith("EDMDPM") and algorithm == "sde-dpmsolver++" and order == 3:
    raise ValueError(f"{name} has no stochastic step of order 3: use solver_order=2")
  if name.startswith("EDM") and kind not in ("epsilon", "v_prediction"):
    raise ValueError(f"{name} preconditions 'epsilon' and 'v_prediction', got {kind!r}")
