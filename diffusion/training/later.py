"""What a config says of the time after training, the sections `sampler` and `evaluation`, checked before it.

A mistake there that is found when the last step is done costs the metrics of a run.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

from diffusion import configuration, guidance
from diffusion.errors import UserError
from diffusion.factories import plain
from diffusion.guidance.interval import check_interval
from diffusion.training import assembly

EVALUATION_KEYS = ("num_samples", "batch", "seed", "held_out", "own")


def check(parts: Any) -> None:
  """UserError for whatever in config.sampler and config.evaluation would be refused after training.

  Args:
    parts: of `assembly.assemble`.
  """
  config = parts.config
  check_evaluation(config.get("evaluation") or {})
  if config.get("sampler") and parts.parameterization is not None:
    solver = assembly.solver(config.sampler, parts.process)
    around = guide(assembly.model_player(parts).loss.objective, parts.dataset, config.sampler)
    assembly.check_asked(solver, around(assembly.denoiser(parts)))
    assembly.starts(parts)


def check_evaluation(section: Mapping[str, Any]) -> None:
  """UserError for a key that config.evaluation does not have, or a value that it cannot take.

  >>> check_evaluation(dict(num_samples=1))
  Traceback (most recent call last):
  ...
  diffusion.errors.UserError: config.evaluation.num_samples must be a whole number from 2 on; it is 1
  """
  configuration.check_keys(section, EVALUATION_KEYS, "config.evaluation")
  for key, least in (("num_samples", 2), ("batch", 1), ("seed", 0), ("held_out", 0)):
    value = section.get(key, least)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value < 2**31:
      raise UserError(f"config.evaluation.{key} must be a whole number from {least} on; it is {value!r}")
  own, where = plain(section.get("own")), "config.evaluation.own"
  if own:
    if not isinstance(own, Mapping) or not isinstance(own.get("factory"), str):
      raise UserError(f"{where} must be a section with a factory, such as dict(factory='mine.measure')")
    factory = configuration.resolve(own["factory"], where)
    if not callable(factory):
      raise UserError(f"{where}.factory: '{own['factory']}' is not a function")
    taken = configuration.arguments(factory)
    free = any(one.kind is one.VAR_KEYWORD for one in taken.values())
    for key in own:
      if key != "factory" and key not in taken and not free:
        raise UserError(
          f"{where}: '{own['factory']}' has no argument '{key}'{configuration.closest(key, taken)}; it takes "
          f"{', '.join(taken)}"
        )


def guide(objective: Any, dataset: Any, section: Mapping[str, Any]) -> Callable[[Any], Any]:
  """The guidance of a sampler section, as a function from denoiser to denoiser.

  Args:
    objective: that trained the model, for what it has learned (`losses.Objective`).
    dataset: of the run.
    section: with `guidance`, a weight w (0 for none) or a list of sections with a factory, such as
      dict(factory='guidance.classifier_free', weight=1.0), the first closest to the network; and with
      `interval` of a weight ((low, high) noise levels sigma/alpha, or none).

  Raises:
    UserError: a weight or an interval that is none, guidance of a model without conditions or of one that
      never saw a record without, or what a distilled run did not learn.
  """
  given, interval = plain(section.get("guidance")) or 0.0, _interval(section.get("interval"))
  if isinstance(given, (list, tuple)):
    return _by_path(objective, dataset, given, interval)
  weight = _number(given)
  learned = objective.conditions.get("guidance")
  if learned is not None:
    return _learned(weight, interval, learned)
  if not weight:
    return guidance.chain()
  _check_unconditional(objective, dataset, f"guidance {weight:g}")
  return guidance.classifier_free(weight, interval)


def _by_path(objective, dataset, sections, interval):
  """The guidance of a list of sections."""
  where = "config.sampler.guidance"
  if interval is not None:
    raise UserError(
      f"config.sampler.interval={interval} is of a weight, and {where} is a list: give the interval to its "
      f"sections"
    )
  around = [configuration.build(one, where=f"{where}[{index}]") for index, one in enumerate(sections)]

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
