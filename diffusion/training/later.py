"""What a config says of the time after training, the sections `sampler` and `evaluation`, checked before it.

A mistake there that is found when the last step is done costs the metrics of a run.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

from diffusion import configuration, guidance, losses
from diffusion.errors import UserError
from diffusion.factories import plain
from diffusion.guidance.interval import check_interval
from diffusion.training import model, student

EVALUATION_KEYS = ("num_samples", "batch", "seed", "held_out", "own")


def check(parts: Any) -> None:
  """UserError for whatever in config.sampler and config.evaluation would be refused after training.

  Args:
    parts: of `model.assemble`.
  """
  config = parts.config
  check_evaluation(config.get("evaluation") or {})
  if config.get("sampler") and parts.parameterization is not None:
    model.solver(config.sampler, parts.process)
    guide(config, parts.dataset, config.sampler)


def check_evaluation(section: Mapping[str, Any]) -> None:
  """UserError for a key that config.evaluation does not have, or a value that it cannot take.

  >>> check_evaluation(dict(num_samples=1))
  Traceback (most recent call last):
  ...
  diffusion.errors.UserError: config.evaluation.num_samples must be a whole number from 2 on; it is 1
  """
  model.check_keys(section, EVALUATION_KEYS, "config.evaluation")
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


def guide(config: Any, dataset: Any, section: Mapping[str, Any]) -> Callable[[Any], Any]:
  """The guidance of a sampler section, as a function from denoiser to denoiser.

  Args:
    config: of the run, for what its loss has learned.
    dataset: of the run.
    section: with `guidance` (w; 0 for none) and `interval` ((low, high) noise levels sigma/alpha, or none).

  Raises:
    UserError: a weight or an interval that is none, guidance of a model without conditions or of one that
      never saw a record without, or what a distilled run did not learn.
  """
  weight, interval = _number(section.get("guidance") or 0.0), _interval(section.get("interval"))
  learned = student.guidance_range(config.loss)
  if learned is not None:
    return _learned(weight, interval, learned)
  if not weight:
    return lambda denoiser: denoiser
  if not dataset.conditional:
    raise UserError(
      f"guidance {weight:g} needs a model with classes and this one has none: leave out --guidance (in the "
      "config: config.sampler.guidance=0)"
    )
  if not drops_condition(config.loss):
    raise UserError(
      f"guidance {weight:g} needs a model that was trained without its condition too, and this run has "
      f"condition_dropout {config.loss.get('condition_dropout') or 0:g}: leave out --guidance (in the "
      "config: config.sampler.guidance=0), or train with config.loss.condition_dropout=0.1"
    )
  return guidance.classifier_free(weight, interval)


def drops_condition(loss: Mapping[str, Any]) -> bool:
  """Whether conditions were dropped in training; yes for an objective that is not this library's, of which
  nobody knows.

  >>> drops_condition(dict(factory="losses.denoising_score_matching", condition_dropout=0.0))
  False
  """
  named = [student.named(transform) for transform in loss.get("transforms") or ()]
  objective = configuration.resolve(loss["factory"], "config.loss")
  return (
    bool(loss.get("condition_dropout"))
    or losses.condition_dropout in named
    or not objective.__module__.startswith("diffusion.")
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
