"""What a config says of the time after training, the sections `sampler` and `evaluation`, checked before it.

A mistake there that is found when the last step is done costs the metrics of a run.
"""

from collections.abc import Mapping
from typing import Any

from diffusion.config import factories, loading
from diffusion.config.errors import UserError
from diffusion.config.factories import plain
from diffusion.run.parts import assembly, sampler_config

EVALUATION_KEYS = ("num_samples", "batch", "seed", "held_out", "own")


def check(parts: Any) -> None:
  """UserError for whatever in config.sampler and config.evaluation would be refused after training.

  Args:
    parts: of `assembly.assemble`.
  """
  config = parts.config
  check_evaluation(config.get("evaluation") or {})
  if config.get("sampler") and parts.parameterization is not None:
    solver = sampler_config.solver(config.sampler, parts.process)
    around = sampler_config.guide(assembly.model_player(parts).loss.objective, parts.dataset, config.sampler)
    sampler_config.check_asked(solver, around(assembly.denoiser(parts)))
    sampler_config.starts(parts)


def check_evaluation(section: Mapping[str, Any]) -> None:
  """UserError for a key that config.evaluation does not have, or a value that it cannot take.

  >>> check_evaluation(dict(num_samples=1))
  Traceback (most recent call last):
  ...
  diffusion.config.errors.UserError: config.evaluation.num_samples must be a whole number from 2 on; it is 1
  """
  loading.check_keys(section, EVALUATION_KEYS, "config.evaluation")
  for key, least in (("num_samples", 2), ("batch", 1), ("seed", 0), ("held_out", 0)):
    value = section.get(key, least)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value < 2**31:
      raise UserError(f"config.evaluation.{key} must be a whole number from {least} on; it is {value!r}")
  own, where = plain(section.get("own")), "config.evaluation.own"
  if own:
    if not isinstance(own, Mapping) or not isinstance(own.get("factory"), str):
      raise UserError(f"{where} must be a section with a factory, such as dict(factory='mine.measure')")
    factory = factories.resolve(own["factory"], where)
    if not callable(factory):
      raise UserError(f"{where}.factory: '{own['factory']}' is not a function")
    taken = factories.arguments(factory)
    free = any(one.kind is one.VAR_KEYWORD for one in taken.values())
    for key in own:
      if key != "factory" and key not in taken and not free:
        raise UserError(
          f"{where}: '{own['factory']}' has no argument '{key}'{factories.closest(key, taken)}; it takes "
          f"{', '.join(taken)}"
        )
