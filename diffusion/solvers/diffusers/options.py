"""A scheduler config of diffusers as a class and its options, and what of one has to be refused."""

import difflib
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from diffusion.solvers.diffusers.defaults import CHOICES, DEFAULTS, EVERYWHERE, RENAMED, SPACINGS

_KNOWN = {name for options in DEFAULTS.values() for name in options}


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
      f"its options are {', '.join(DEFAULTS[name])}"
    )
  ignored = sorted(set(given) - set(DEFAULTS[name]))
  options = DEFAULTS[name] | {key: value for key, value in given.items() if key in DEFAULTS[name]}
  renamed = RENAMED.get(name, {})
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
  for key, allowed in (EVERYWHERE | CHOICES.get(name, {})).items():
    if key in options and options[key] not in allowed:
      raise ValueError(
        f"{name} with {key}={options[key]!r} cannot be expressed: {key} is one of "
        f"{', '.join(map(repr, allowed))}"
      )
  chosen = [key for key in SPACINGS if options.get(key)]
  if len(chosen) > 1:
    raise ValueError(f"{name} takes one spacing of sigmas, got {' and '.join(chosen)}: leave one")
  flow = options.get("use_flow_sigmas", False)
  if flow and chosen and not (name == "UniPCMultistepScheduler" and chosen == ["use_karras_sigmas"]):
    raise ValueError(
      f"{name} with use_flow_sigmas and {chosen[0]} spaces variance-exploding sigmas and takes them for "
      "flow times above 1, which gives NaN: leave one"
    )
  kind = options.get("prediction_type")
  if "use_flow_sigmas" in options and (kind == "v_prediction" if flow else kind == "flow_prediction"):
    raise ValueError(
      f"{name} with prediction_type={kind!r} and use_flow_sigmas={flow} mixes two processes: "
      "flow_prediction goes with use_flow_sigmas=True, v_prediction with False"
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
      "nothing of the data and diffusers returns inf or NaN: use prediction_type 'v_prediction' or "
      "'sample'"
    )
  algorithm, order = options.get("algorithm_type"), options.get("solver_order")
  if name.startswith("DPMSolver") and algorithm in ("dpmsolver", "sde-dpmsolver"):
    if options["final_sigmas_type"] == "zero":
      raise ValueError(
        f"{name} with algorithm_type={algorithm!r} integrates the noise, which is not known at sigma = 0: "
        "use final_sigmas_type='sigma_min'"
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
