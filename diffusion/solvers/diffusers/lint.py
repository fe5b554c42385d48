"""What is wrong with a scheduler config of diffusers, in sentences."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from diffusion.solvers.diffusers import flow
from diffusion.solvers.diffusers.build import from_diffusers
from diffusion.solvers.diffusers.defaults import CLIPPING
from diffusion.solvers.diffusers.levels import Levels, chosen
from diffusion.solvers.diffusers.options import read
from diffusion.solvers.diffusers.schedule import levels_of


@dataclasses.dataclass(frozen=True)
class Case:
  """A config that can be expressed: class, options, steps and what they come to."""

  name: str
  c: dict[str, Any]
  n: int
  levels: Levels
  cost: int | None

  @property
  def count(self) -> int:
    """Timesteps of the table."""
    return self.c.get("num_train_timesteps", 1000)


def lint_diffusers(config: Any, num_steps: int, *, mu: float | None = None, **overrides: Any) -> list[str]:
  """The faults of a scheduler config for so many steps, as sentences.

  They say what is wrong with it, and what `from_diffusers` does instead.

  Where a sentence says "the same here", the steps are those of diffusers, faults and all, since a trajectory
  is to be reproduced; everywhere else it says what this library does.

  Args:
    config, num_steps, mu, overrides: as in `from_diffusers`.

  Returns:
    One sentence a fault, [] for none; for a config that cannot be expressed, what `from_diffusers` says.

  >>> print(*lint_diffusers({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}, 8))
  shift=3 is applied to the smallest time and once more to all of them, so the last level is 0.00893 and not
  0.00299: the same here; a grid of one's own, solvers.grids.flow_shift, shifts once.
  >>> lint_diffusers({"_class_name": "FlowMatchEulerDiscreteScheduler"}, 8)
  []
  """
  try:
    name, c, ignored = read(config, overrides)
    clips = name != "DDIMScheduler" and any(c.get(key) for key in CLIPPING)
    unclipped = overrides | {key: False for key in CLIPPING if clips and key in c}
    solver = from_diffusers(config, num_steps, mu=mu, **unclipped)[1]
    levels = levels_of(name, c, num_steps, mu)
  except ValueError as error:
    return [f"{error}."]
  case = Case(name, c, num_steps, levels, solver.cost)
  found = [sentence for rule in RULES for sentence in rule(case)]
  if ignored:
    found.append(f"{name} has no {', '.join(ignored)}: ignored, as diffusers does.")
  return found


def _spacing(case: Case) -> Iterator[str]:
  """Steps that leave the schedule's end out, one step at its other end, one step too many."""
  spacing, k = case.c.get("timestep_spacing"), case.levels.fed
  if spacing is None or chosen(case.c) or case.c.get("use_flow_sigmas") or case.name == "LCMScheduler":
    return
  if spacing == "linspace" and k[0] == 0:
    yield (
      "timestep_spacing='linspace' with one step evaluates timestep 0, where there is hardly any noise: "
      "the same here; use 'trailing'."
    )
  elif k[0] < case.count - 1:
    share = 100 * (case.count - 1 - k[0]) / case.count
    yield (
      f"timestep_spacing={spacing!r} with {case.n} steps starts at timestep {k[0]:g} of {case.count - 1}, "
      f"from noise of the last: the noisiest {share:.3g}% of the schedule are left out, the same here; use "
      "'trailing'."
    )
  if spacing == "trailing" and len(np.arange(case.count, 0, -case.count / case.n)) > case.n:
    yield (
      f"timestep_spacing='trailing' gives {case.n + 1} timesteps for {case.n} steps in diffusers, by "
      f"rounding, and the last is -1: here there are {case.n}."
    )


def _steps_off(case: Case) -> Iterator[str]:
  """DDIM and PNDM go N // n on, wherever the next timestep is."""
  if case.name != "DDIMScheduler" or case.n < 2:
    return
  k, stride = case.levels.fed, case.count // case.n
  off = np.abs(k[:-1] - stride - k[1:]).max()
  if off:
    yield (
      f"DDIMScheduler goes {stride} timesteps on in every step, wherever the next timestep is, so its states "
      f"are up to {off:g} timesteps off what the network is told: the same here; use 'trailing' and a number "
      f"of steps that divides {case.count}."
    )


def _last_step(case: Case) -> Iterator[str]:
  """A last step that does not denoise, or does not move."""
  last, end = case.levels.sigma[-2], case.levels.s[-1] / case.levels.a[-1]
  if case.name == "CMStochasticIterativeScheduler" or end == 0:
    return
  if case.levels.sigma[-1] == last:
    yield (
      f"the last two sigmas are both {last:.4g}, so the last evaluation moves nothing: the same here; leave "
      "it out, or use final_sigmas_type='zero' where the scheduler has it."
    )
  yield (
    f"the run ends at sigma = {end:.4g} and not at 0, so some noise stays in the samples: the same here; "
    "solvers.with_denoising(solver, process) takes it out with one evaluation more."
  )


def _repeated(case: Case) -> Iterator[str]:
  """One timestep for several levels."""
  k = case.levels.fed
  if case.name == "PNDMScheduler" or len(np.unique(k)) == len(k):
    return
  yield (
    f"{len(k) - len(np.unique(k))} of {len(k)} timesteps repeat the one before, so the network is told one "
    "level for several: the same here; use fewer steps, or timesteps that are not rounded."
  )
  if k[0] == k[1]:
    yield (
      "the first timestep comes twice, and diffusers, which looks steps up by timestep, starts at the "
      "second sigma and fails at the last step: here it starts at the first."
    )


def _told(case: Case) -> Iterator[str]:
  """The level that the network is told, and that of the state, by more than 1% of the flow's time."""
  n = case.levels
  if case.name == "PNDMScheduler":  # whose rows start where their step does
    return
  if case.c.get("use_flow_sigmas"):
    told, level, share = n.t[:-1], n.sigma[:-1], 1.0
  else:
    with np.errstate(divide="ignore", invalid="ignore"):
      told, level = np.asarray(n.process.level(n.t[:-1]), np.float64), n.s[:-1] / n.a[:-1]
      share = (1 + level) / (
        1 + told
      )  # of sigma/(1 + sigma), which does not change where there is only noise
  with np.errstate(invalid="ignore"):
    off = np.nan_to_num(np.abs(told / level * share - 1))
  if off.max() > 0.01:
    i = int(off.argmax())
    yield (
      "the network is told whole or evenly spaced timesteps beside sigmas of another spacing, at step "
      f"{i} sigma = {told[i]:.4g} where the state has {level[i]:.4g}: the same here."
    )


def _cut_off(case: Case) -> Iterator[str]:
  """Timesteps that are cut to whole numbers, where rounding decides which."""
  c, kind, k = case.c, chosen(case.c), case.levels.fed
  cosine = case.name == "DPMSolverMultistepScheduler" and c["beta_schedule"] == "squaredcos_cap_v2"
  cut = kind in ("exponential", "beta") or (cosine and kind)
  if "use_flow_sigmas" not in c or c["use_flow_sigmas"] or not cut or k[0] < case.count - 1:
    return
  twice = ", comes twice and makes diffusers start at the second sigma and fail at the last step"
  yield (
    f"with {kind} sigmas timesteps are cut off to whole numbers, and the last bit of float32 decides in "
    f"diffusers whether the first is {k[0]:g} or "
    f"{k[0] - 1:g}{twice if len(k) > 1 and k[1] == k[0] - 1 else ''}: here it is {k[0]:g}."
  )


def _zero_snr(case: Case) -> Iterator[str]:
  """A start without signal."""
  if not case.c.get("rescale_betas_zero_snr"):
    return
  if case.levels.fed[0] < case.count - 1:
    yield (
      f"rescale_betas_zero_snr makes timestep {case.count - 1} pure noise and the run starts at "
      f"{case.levels.fed[0]:g}: the same here; use timestep_spacing='trailing'."
    )
  elif case.c["prediction_type"] == "epsilon":
    yield (
      "prediction_type='epsilon' at zero terminal SNR divides by the root of abar = 2^-24, so the first "
      "step is 4096 times the network's error: the same here; use a network that predicts v."
    )


def _double_shift(case: Case) -> Iterator[str]:
  """Flow matching's shift, twice."""
  shift = case.c.get("shift", 1.0)
  if shift == 1 or case.c.get("use_dynamic_shifting"):
    return
  once = flow.shifted(1 / case.count, shift)
  yield (
    f"shift={shift:g} is applied to the smallest time and once more to all of them, so the last level is "
    f"{flow.shifted(once, shift):.3g} and not {once:.3g}: the same here; a grid of one's own, "
    "solvers.grids.flow_shift, shifts once."
  )


def _flow_sigmas(case: Case) -> Iterator[str]:
  """Flow times in schedulers that are made for a table of betas."""
  if not case.c.get("use_flow_sigmas"):
    return
  if case.levels.sigma[0] < 1:
    yield (f"the flow starts at t = {case.levels.sigma[0]:.6g}, from noise of t = 1: the same here.")
  if case.name.startswith("DPM") and case.c["final_sigmas_type"] == "sigma_min":
    yield (
      f"final_sigmas_type='sigma_min' takes {case.levels.sigma[-1]:.4g} from the table of betas for the "
      "last time of the flow: the same here; use 'zero'."
    )


def _unipc(case: Case) -> Iterator[str]:
  """UniPC's last step to sigma = 0."""
  if case.name != "UniPCMultistepScheduler" or case.levels.sigma[-1] > 0:
    return
  if case.c["solver_type"] == "bh1":
    yield "solver_type='bh1' and a last step to sigma = 0 are NaN in diffusers: here the step ends at x0."
  if not case.c["lower_order_final"] and case.c["solver_order"] > 1:
    yield (
      "lower_order_final=False and a last step to sigma = 0 are inf in diffusers: here the last step is of "
      "order 1."
    )


def _order(case: Case) -> Iterator[str]:
  """Orders that are not what they say."""
  if case.name.startswith(("DPMSolverMulti", "EDMDPM")) and case.c["solver_order"] == 3:
    yield (
      "solver_order=3 has half the weight that the second difference needs and is of order 2: the same "
      "here; solvers.dpmpp_3m is of order 3."
    )
  single = case.name == "DPMSolverSinglestepScheduler" and not case.c["lower_order_final"]
  if single and (case.c["final_sigmas_type"] == "zero" or case.n % case.c["solver_order"]):
    yield "lower_order_final=False is changed to True, as diffusers does for this end and number of steps."
  if case.name == "IPNDMScheduler":
    yield "the first step, from pure noise, takes x0 = 0 whatever the network says: the same here."


def _clips(case: Case) -> Iterator[str]:
  """Clipping, which a table leaves to the denoiser."""
  c = case.c
  if c.get("thresholding") and c["sample_max_value"] <= 1:
    yield (
      "thresholding with sample_max_value=1 clips x0 to [-1, 1] whatever the quantile: the same here; set "
      "sample_max_value for dynamic thresholding."
    )
  if case.name != "DDIMScheduler" and any(c.get(key) for key in CLIPPING):
    yield (
      "x0 is clipped, which is not linear: put guidance.static_threshold, or dynamic_threshold for "
      "thresholding, around the denoiser and say denoiser_clips=True."
    )


def _evaluations(case: Case) -> Iterator[str]:
  """Calls beyond the number of steps, and noise of another scale."""
  if case.cost != case.n:
    yield f"{case.n} steps are {case.cost} evaluations of the network, as in diffusers."
  if case.name.startswith("EDM"):
    yield (
      f"the start has standard deviation {np.hypot(case.c['sigma_max'], 1):.6g} for a first sigma of "
      f"{case.c['sigma_max']:g}: the same here."
    )


RULES = (
  _spacing,
  _steps_off,
  _repeated,
  _told,
  _cut_off,
  _zero_snr,
  _double_shift,
  _flow_sigmas,
  _unipc,
  _order,
  _last_step,
  _clips,
  _evaluations,
)
