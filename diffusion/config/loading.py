"""A config is data: loaded from a Python file, changed on the command line, saved as JSON and compared.

A config file defines `get_config()` (or `get_config(variant)`) and returns an
`ml_collections.ConfigDict`. A section that has a `factory` is built by `factories.build`.
"""

import ast
import importlib.util
import inspect
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn

import ml_collections

from diffusion.config.errors import UserError
from diffusion.config.factories import arguments, closest, plain, resolve

# ---- files and the command line ---------------------------------------------------------------


def load(path: str, overrides: Iterable[tuple[str, str]] = ()) -> ml_collections.ConfigDict:
  """The config that a file makes, with overrides applied.

  Args:
    path: `configs/digits.py`, or `configs/toy2d.py:moons` to call `get_config('moons')`.
    overrides: pairs `("training.steps", "100")`, as text.
  """
  file, _, variant = path.partition(":")
  if not os.path.isfile(file):
    folder = os.path.dirname(file) or "."
    others = (
      sorted(name for name in os.listdir(folder) if name.endswith(".py")) if os.path.isdir(folder) else []
    )
    listed = f"; {folder} has {', '.join(others)}" if others else ""
    raise UserError(f"--config={path}: no such file{closest(os.path.basename(file), others)}{listed}")
  spec = importlib.util.spec_from_file_location("config_file", file)
  if spec is None or spec.loader is None:
    raise UserError(f"--config={path}: a config is a Python file, so give one whose name ends in .py")
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  if not hasattr(module, "get_config"):
    raise UserError(
      f"--config={path}: the file defines no get_config(); it must return an ml_collections.ConfigDict"
    )
  takes = inspect.signature(module.get_config).parameters
  if variant and not takes:
    raise UserError(f"--config={path}: this config has no variants; leave out ':{variant}'")
  try:
    config = module.get_config(variant) if variant else module.get_config()
  except (ValueError, TypeError) as error:
    if isinstance(error, TypeError) and not takes:
      raise
    raise UserError(f"--config={path}: {error}") from error
  for key, text in overrides:
    override(config, key, text)
  return config


def _literal(text: str):
  try:
    return ast.literal_eval(text)
  except (ValueError, SyntaxError):
    return text


def _convert(key: str, text: str, old, kind: type):
  """`text` as the type the config has now; UserError if it is not one."""
  problem = UserError(f"--config.{key} must be {kind.__name__}, as in the config ({old!r}); {text!r} is not")
  if text == "None" and kind is not str:
    return None
  if kind is bool:
    table = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if text.lower() not in table:
      raise UserError(f"--config.{key} must be true or false; {text!r} is neither")
    return table[text.lower()]
  if kind in (int, float):
    try:
      number = float(text)
      if kind is float:
        return number
      if not number.is_integer():
        raise problem
      return int(text) if text.lstrip("+-").replace("_", "").isdigit() else int(number)
    except (ValueError, OverflowError):
      raise problem from None
  if kind is str:
    return text
  value = _literal(text)
  if kind in (list, tuple):
    if not isinstance(value, (list, tuple)):
      value = (
        (value,)
        if "," not in text and not isinstance(value, str)
        else tuple(_literal(part.strip()) for part in text.split(","))
      )
    return kind(value)
  if kind is ml_collections.ConfigDict:
    if not isinstance(value, dict):
      raise UserError(
        f"--config.{key} is a section with {', '.join(old)}; set one of these, or the whole as a dict"
      )
    return ml_collections.ConfigDict(value)
  return value


def override(config: ml_collections.ConfigDict, key: str, text: str) -> None:
  """Sets `config.<key>` from text, keeping the type it has; an argument of a section's factory may be added.

  >>> config = ml_collections.ConfigDict(dict(training=dict(steps=10)))
  >>> override(config, "training.steps", "2e3"); config.training.steps
  2000
  """
  *folders, last = key.split(".")
  section: Any = config
  for depth, name in enumerate(folders):
    if not isinstance(section, ml_collections.ConfigDict) or name not in section:
      _unknown(key, section, name, folders[:depth])
    section = section[name]
  if not isinstance(section, ml_collections.ConfigDict):
    _unknown(key, section, last, folders)
  if last in section:
    old = section[last]
    kind = section.get_type(last)
    value = _literal(text) if kind is type(None) else _convert(key, text, old, kind)
    if isinstance(value, dict) and not isinstance(value, ml_collections.ConfigDict):
      value = ml_collections.ConfigDict(value)
    with section.ignore_type():
      section[last] = value
    return
  known = (
    arguments(resolve(str(section["factory"]), "config." + ".".join(folders))) if "factory" in section else {}
  )
  if last not in known:
    _unknown(key, section, last, folders, known)
  with section.unlocked():
    section[last] = _literal(text)


def _unknown(key: str, section: Any, name: str, folders: list[str], more: Iterable[str] = ()) -> NoReturn:
  if not isinstance(section, ml_collections.ConfigDict):
    raise UserError(
      f"unknown config key --config.{key}: config.{'.'.join(folders)} is a value, not a section"
    )
  options = sorted({*section.keys(), *more})
  inside = ".".join(["config", *folders])
  raise UserError(
    f"unknown config key --config.{key}{closest(name, options)}; {inside} has {', '.join(options)}"
  )


def split_overrides(argv: Iterable[str]) -> tuple[list[tuple[str, str]], list[str]]:
  """The overrides in a command line, and the rest of it.

  `--config.key=value` and `--config.key value` are taken out.

  >>> split_overrides(["--config=a.py", "--config.seed=1", "--config.data.path", "/x"])
  ([('seed', '1'), ('data.path', '/x')], ['--config=a.py'])
  """
  found, rest, argv = [], [], list(argv)
  while argv:
    word = argv.pop(0)
    if not word.startswith("--config."):
      rest.append(word)
      continue
    key, equals, value = word.removeprefix("--config.").partition("=")
    if not equals:
      if not argv or argv[0].startswith("--"):
        raise UserError(f"--config.{key} needs a value: --config.{key}=...")
      value = argv.pop(0)
    found.append((key, value))
  return found, rest


# ---- saving and comparing ---------------------------------------------------------------------


def to_json(config: Any) -> str:
  """The config as JSON text, two spaces deep."""
  return json.dumps(plain(config), indent=2) + "\n"


def from_json(text: str) -> ml_collections.ConfigDict:
  """The config that `to_json` wrote (every list comes back as a tuple).

  >>> from_json(to_json(dict(a=dict(b=(1, 2))))).a.b
  (1, 2)
  """

  def tuples(value):
    if isinstance(value, dict):
      return {key: tuples(item) for key, item in value.items()}
    return tuple(tuples(item) for item in value) if isinstance(value, list) else value

  return ml_collections.ConfigDict(tuples(json.loads(text)))


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
  """Dotted key -> value, as JSON would give it back.

  >>> flatten(dict(a=dict(b=1, c=(2,)), d=None))
  {'a.b': 1, 'a.c': [2], 'd': None}
  """
  found = {}
  for key, value in (config if prefix else json.loads(to_json(config))).items():
    if isinstance(value, dict) and value:
      found |= flatten(value, f"{prefix}{key}.")
    else:
      found[prefix + key] = value
  return found


def differences(old: Any, new: Any, ignore: Iterable[str] = ()) -> list[tuple[str, Any, Any]]:
  """(key, old value, new value) for every key that differs; keys at or under `ignore` may.

  >>> differences(dict(a=1, b=dict(c=2)), dict(a=1, b=dict(c=3)))
  [('b.c', 2, 3)]
  """
  old, new = flatten(old), flatten(new)
  keys = [
    key for key in {**old, **new} if not any(key == free or key.startswith(free + ".") for free in ignore)
  ]
  absent = "(absent)"
  return [
    (key, old.get(key, absent), new.get(key, absent))
    for key in keys
    if old.get(key, absent) != new.get(key, absent)
  ]


def check_keys(section: Mapping, allowed: Sequence[str], where: str) -> None:
  """Raises UserError for a key that a section does not have, with the closest one.

  >>> check_keys(dict(stesp=3), ("steps", "seed"), "config.training")
  Traceback (most recent call last):
  ...
  diffusion.config.errors.UserError: unknown key config.training.stesp (did you mean 'steps'?); it has
  steps, seed
  """
  for key in section:
    if key not in allowed:
      raise UserError(f"unknown key {where}.{key}{closest(key, allowed)}; it has {', '.join(allowed)}")
