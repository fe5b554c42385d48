"""Names in a config become objects: a dotted path is a factory, the keys beside it are its arguments."""

import difflib
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterable, Mapping
from types import ModuleType
from typing import Any

import ml_collections

from diffusion.config.errors import UserError


def closest(name: str, allowed: Iterable[Any]) -> str:
  """' (did you mean 'x'?)' for the nearest allowed name, or nothing.

  >>> closest("stesp", ["steps", "seed"])
  " (did you mean 'steps'?)"
  """
  near = difflib.get_close_matches(name, [str(option) for option in allowed], n=1, cutoff=0.6)
  return f" (did you mean '{near[0]}'?)" if near else ""


def _module(path: str):
  """The module at `path`, None if there is none; an import error inside an existing module is not hidden."""
  try:
    return importlib.import_module(path)
  except ModuleNotFoundError as error:
    if error.name and (path == error.name or path.startswith(error.name + ".")):
      return None
    raise


def resolve(path: str, where: str = "config") -> Any:
  """The object a dotted path names: inside `diffusion` first, else in any importable module.

  Raises UserError with the closest name if there is no such object.

  >>> resolve("config.factories.closest")("sed", ["seed"])
  " (did you mean 'seed'?)"
  >>> resolve("math.hypot")(3, 4)  # Python's own, for diffusion.math has none of that name
  5.0
  """
  parts = str(path).split(".")
  lacking = ""
  for prefix in ("diffusion.", ""):
    for cut in range(len(parts) - 1, 0, -1):
      module = _module(prefix + ".".join(parts[:cut]))
      if module is None:
        continue
      found = module
      for name in parts[cut:]:
        if not hasattr(found, name):
          lacking = lacking or f"'{path}' has no '{name}' in '{module.__name__}'{_instead(found, name)}"
          break
        found = getattr(found, name)
      else:
        return found
      break
  if lacking:
    raise UserError(f"{where}.factory: {lacking}")
  package = importlib.import_module("diffusion")
  folders = sorted(module.name for module in pkgutil.iter_modules(package.__path__))
  raise UserError(
    f"{where}.factory: no module for '{path}'{closest(parts[0], folders)}; give a name inside diffusion "
    f"({', '.join(folders)}), such as 'processes.edm', or the dotted path of your own importable module"
  )


def _instead(owner, name):
  """What a module or class has in place of a name.

  In words: what is nearest, and its functions and classes, or its modules where it has none.
  """
  public = {option: getattr(owner, option) for option in dir(owner) if not option.startswith("_")}
  offered = [option for option, found in public.items() if callable(found) and found is not ModuleType]
  offered = offered or [option for option, found in public.items() if isinstance(found, ModuleType)]
  return f"{closest(name, public)}; it offers {', '.join(offered)}"


def arguments(factory: Callable[..., Any]) -> dict[str, inspect.Parameter]:
  """The arguments a factory takes, by name; those Flax adds to every module are left out."""
  found = {
    name: argument
    for name, argument in inspect.signature(factory).parameters.items()
    if not name.startswith("_")
  }
  if inspect.isclass(factory):
    found.pop("parent", None)
    found.pop("name", None)
  return found


def plain(section: Any) -> Any:
  """A section as a plain dict; anything else as it is."""
  return section.to_dict() if isinstance(section, ml_collections.ConfigDict) else section


def _value(value, where):
  value = plain(value)
  if isinstance(value, Mapping):
    if "factory" in value:
      return build(value, where=where)
    return {key: _value(item, f"{where}.{key}") for key, item in value.items()}
  if isinstance(value, (list, tuple)):  # JSON knows no tuples; modules need hashable attributes
    return tuple(_value(item, f"{where}[{index}]") for index, item in enumerate(value))
  return value


def build(
  section: Mapping[str, Any],
  *positional: Any,
  where: str = "config",
  without: Iterable[str] = (),
  **given: Any,
) -> Any:
  """Calls the factory a section names with the section's other keys; nested sections are built first.

  Args:
    section: a mapping with a `factory` and that factory's arguments.
    *positional: leading arguments that no config can hold (a process, a network).
    where: the section's name in messages, such as `config.loss`.
    without: keys of the section that are not the factory's.
    **given: further keyword arguments, for the factory alone.

  Raises UserError if the factory or an argument does not exist, if one is missing, or if the factory
  refuses a value (ValueError).

  >>> build(dict(factory="fractions.Fraction", denominator=4), 3)
  Fraction(3, 4)
  >>> build(dict(factory="fractions.Fraction", denomimator=4), 3)
  Traceback (most recent call last):
  ...
  diffusion.config.errors.UserError: config: 'fractions.Fraction' has no argument 'denomimator' (did you mean
  'denominator'?); it takes numerator, denominator
  """
  section = plain(section)
  if not isinstance(section, Mapping) or not isinstance(section.get("factory"), str):
    raise UserError(
      f"{where} must be a section with a factory, such as dict(factory='processes.edm'); it is {section!r}"
    )
  name = section["factory"]
  factory = resolve(name, where)
  if inspect.ismodule(factory):
    own = [
      key
      for key, item in vars(factory).items()
      if getattr(item, "__module__", None) == factory.__name__ and not key.startswith("_")
    ]
    raise UserError(
      f"{where}.factory: '{name}' is a module; name a function or a class in it: {', '.join(own)}"
    )
  if not callable(factory):
    raise UserError(f"{where}.factory: '{name}' is not a function or a class")
  taken = arguments(factory)
  keywords = {key: value for key, value in section.items() if key != "factory" and key not in without}
  free = any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken.values())
  for key in keywords:
    if key not in taken and not free:
      raise UserError(
        f"{where}: '{name}' has no argument '{key}'{closest(key, taken)}; it takes "
        f"{', '.join(taken) or 'none'}"
      )
  keywords = {key: _value(value, f"{where}.{key}") for key, value in keywords.items()} | given
  try:
    inspect.signature(factory).bind(*positional, **keywords)
  except TypeError as error:
    raise UserError(f"{where}: '{name}': {error}; it takes {', '.join(taken) or 'none'}") from None
  try:
    return factory(*positional, **keywords)
  except ValueError as error:
    raise UserError(f"{where}: '{name}': {error}") from error
