"""The sampler section of a config: the solver, the guidance, and what samples start from."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from diffusion import data, guidance, solvers
from diffusion.config import factories, loading
from diffusion.config.errors import UserError
from diffusion.config.factories import plain
from diffusion.guidance.interval import check_interval
from diffusion.run.parts.assembly import Parts

SAMPLER_KEYS = (
  *("solver", "steps", "grid", "guidance", "interval", "guided_channels"),
  *("options", "denoise", "tolerance"),
)


def solver(section: Mapping[str, Any], process: Any) -> Any:
  """The solver of a config's sampler section.

  Args:
    section: `solver` (a name of `solvers.ON_GRIDS`; `solvers.DEFAULT` of the process's kind if left out),
      `steps`, `grid` (a name, a section with a factory such as solvers.grids.uniform, or nothing for the
      solver's own), `options` of its builder, and `denoise` (true by default): on a Gaussian process with
      noise at t = 0, whether one more evaluation removes it. A name of `solvers.ADAPTIVE` has `tolerance` in
      place of steps and grid; so has one of `solvers.UNMASKING`, where it has a tolerance at all.
    process: the process of the model.

  Raises UserError for a key, a name or an option that does not exist, a solver of another kind of process,
  and a grid that leaves masks.
  """
  loading.check_keys(section, SAMPLER_KEYS, "config.sampler")
  name = section.get("solver", solvers.DEFAULT[process.kind])
  grid = plain(section.get("grid")) or None
  adaptive = name in solvers.CHOOSE_STEPS
  steps = section.get("steps", None if adaptive else 20)
  options = dict(plain(section.get("options")) or {})
  try:
    if adaptive:
      if name in solvers.ADAPTIVE:
        options.setdefault("denoise", bool(section.get("denoise", True)))
      return solvers.build(name, process, steps, grid=grid, tolerance=section.get("tolerance"), **options)
    if isinstance(grid, Mapping):
      grid = factories.build(grid, process, steps, where="config.sampler.grid")
    noisy = process.kind == "gaussian" and float(process.marginal(0.0).sigma) > 0
    cleans = section.get("denoise", True) and name != "annealed_langevin" and noisy
    if cleans and name in ("predictor_corrector", "euler_maruyama", "reverse_diffusion"):
      options.setdefault("denoise", False)  # the last evaluation does it
    built = solvers.build(name, process, steps, grid=grid, tolerance=section.get("tolerance"), **options)
  except (ValueError, TypeError, ImportError) as error:
    raise UserError(f"config.sampler: {error}") from error
  if process.ends[1] == "mask" and float(process.level(float(built.times[-1]))) > 0:
    raise UserError(
      f"config.sampler.grid ends at t = {float(built.times[-1]):g}, where '{process.name}' still masks: end "
      f"it at t = {float(process.t_of_level(0.0)):g}, or leave it out"
    )
  return solvers.with_denoising(built, process) if cleans else built


def check_asked(solver: Any, denoiser: Any) -> None:
  """UserError where a solver asks for a view that the model does not answer."""
  missing = [view for view in solver.views if view not in denoiser.views]
  if missing:
    raise UserError(
      f"{solver.name} asks the model for {', '.join(missing)}, and config.denoiser answers "
      f"{', '.join(denoiser.views)} on '{denoiser.process.name}': choose another solver, or another "
      "parameterisation to train"
    )


def starts(parts: Parts) -> Callable[[np.ndarray], np.ndarray] | None:
  """What samples start from, by their indices, or None.

  They start from records where the process runs between two data sets, see `data.starts_of_records`. None
  where its prior is drawn.

  Raises UserError for such a process and data that are no pairs.
  """
  if parts.process.ends[1] != "data":
    return None
  if parts.dataset.pair is None:
    raise UserError(
      f"sampling on '{parts.process.name}' starts from a second data set, and {parts.dataset.name} has none: "
      "name the array of its records that is, config.data.pair=NAME, or join two sets by data.two_sets"
    )
  return data.starts_of_records(parts.dataset)


def guide(objective: Any, dataset: Any, section: Mapping[str, Any]) -> Callable[[Any], Any]:
  """The guidance of a sampler section, as a function from denoiser to denoiser.

  Args:
    objective: that trained the model, for what it has learned (`losses.Objective`).
    dataset: of the run.
    section: with `guidance`, a weight w (0 for none) or a list of sections with a factory, such as
      dict(factory='guidance.classifier_free', weight=1.0), the first closest to the network; and with
      `interval` of a weight ((low, high) noise levels sigma/alpha, or none), and `guided_channels` of a
      weight (how many of the last axis it acts on, the first ones; none for all).

  Raises:
    UserError: a weight or an interval that is none, guidance of a model without conditions or of one that
      never saw a record without, or what a distilled run did not learn.
  """
  given, interval = plain(section.get("guidance")) or 0.0, _interval(section.get("interval"))
  if isinstance(given, (list, tuple)):
    _whole(section, "a list of guidance")
    return _by_path(objective, dataset, given, interval)
  weight = _number(given)
  learned = objective.conditions.get("guidance")
  if learned is not None:
    _whole(section, "guidance that was learned")
    return _learned(weight, interval, learned)
  if not weight:
    _whole(section, "no guidance")
    return guidance.chain()
  _check_unconditional(objective, dataset, f"guidance {weight:g}")
  return guidance.classifier_free(weight, interval, channels=section.get("guided_channels"))


def check_channels(section: Mapping[str, Any], shape: tuple[int, ...]) -> None:
  """Raises UserError where guidance is to act on more channels than a sample has, or on none."""
  channels = section.get("guided_channels")
  if channels is not None and not 1 <= channels <= shape[-1]:
    raise UserError(
      f"--guided-channels={channels} of samples with {shape[-1]}: give a number from 1 to {shape[-1]}, or "
      "leave it out for all"
    )


def _whole(section, what):
  """Raises UserError where a part of the channels is to be guided by `what`."""
  if section.get("guided_channels") is not None:
    raise UserError(
      f"--guided-channels is of classifier-free guidance, --guidance=W, and this is {what}: leave it out"
    )


def guide_by_another(objective: Any, section: Mapping[str, Any]) -> tuple[float, tuple[float, float] | None]:
  """(weight, interval) of guidance by a second network; arguments and errors as of `guide`."""
  given = plain(section.get("guidance")) or 0.0
  _whole(section, "guidance by a second network")
  if isinstance(given, (list, tuple)) or "guidance" in objective.conditions or not _number(given):
    raise UserError(
      "--guide-weights guides by one weight: add --guidance=W, other than 0 (EDM2's guidance less 1), to a "
      "model that has no list of guidance and that learned none"
    )
  return _number(given), _interval(section.get("interval"))


def weight(objective: Any, section: Mapping[str, Any]) -> float | None:
  """The one weight of a sampler section's guidance, which the guided denoiser has as its `weight`.

  None where nothing is guided, and for a list of sections, of which each has its own.
  """
  given = plain(section.get("guidance")) or 0.0
  if isinstance(given, (list, tuple)):
    return None
  number = _number(given)
  return number if number or "guidance" in objective.conditions else None


def _by_path(objective, dataset, sections, interval):
  """The guidance of a list of sections."""
  where = "config.sampler.guidance"
  if interval is not None:
    raise UserError(
      f"config.sampler.interval={interval} is of a weight, and {where} is a list: give the interval to its "
      f"sections"
    )
  around = [factories.build(one, where=f"{where}[{index}]") for index, one in enumerate(sections)]

  def apply(denoiser):
    try:
      guided = guidance.chain(*around)(denoiser)
    except (ValueError, TypeError, AttributeError) as error:
      raise UserError(f"{where}: {error}") from error
    if guided.needs_unconditional:
      _check_unconditional(objective, dataset, where)
    return guided

  return apply


def _check_unconditional(objective, dataset, what):
  if not dataset.conditional:
    raise UserError(
      f"{what} needs a model with classes and this one has none: leave out --guidance (in the config: "
      "config.sampler.guidance=0)"
    )
  if not objective.drops_condition:
    raise UserError(
      f"{what} needs a model that was trained without its condition too, and this run has no condition "
      "dropout: leave out --guidance (in the config: config.sampler.guidance=0), or train with "
      "config.loss.condition_dropout=0.1"
    )


def _learned(weight, interval, learned):
  """One of the weights of guidance that a distilled run has learned: one evaluation a call."""
  low, high = learned
  if not low <= weight <= high:
    raise UserError(
      f"guidance {weight:g} is outside of what this distilled run has learned, weights from {low:g} to "
      f"{high:g}: give --guidance in that range"
    )
  if interval:
    raise UserError(
      f"this run has learned guidance at the noise levels of its teacher, and --interval={interval} "
      "can not change them: leave it out "
      "(in the config: config.sampler.interval=())"
    )
  return guidance.learned(weight)


def _number(weight):
  try:
    number = float(weight)
  except (TypeError, ValueError):
    number = math.nan
  if not math.isfinite(number):
    raise UserError(f"guidance is a number, 0 for none, such as 0.5; it is {weight!r}")
  return number


def _interval(interval):
  """(low, high) or None; UserError for anything else."""
  interval = plain(interval)
  if interval is None or interval == () or interval == []:
    return None
  try:
    low, high = (float(end) for end in interval)
    check_interval((low, high))
  except (TypeError, ValueError) as error:
    raise UserError(
      f"an interval of guidance is two noise levels sigma/alpha, low < high, such as (0.05, 0.6), or () for "
      f"all; it is {interval!r}"
    ) from error
  return low, high
