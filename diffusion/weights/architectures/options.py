"""The options of a published config, read into a frozen dataclass; what is not known is refused."""

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any, TypeVar

from diffusion.config.errors import UserError

Options = TypeVar("Options")


def written(options: Any, who: str) -> dict[str, Any]:
  """The config.json of a dataclass of options, which `read` takes back: plain values, tuples as lists.

  >>> @dataclasses.dataclass(frozen=True)
  ... class Small:
  ...   widths: tuple[int, ...] = (3, 4)
  >>> written(Small(), "Net")
  {'_class_name': 'Net', 'widths': [3, 4]}
  """
  plain = lambda value: list(value) if isinstance(value, tuple) else value
  return {"_class_name": who} | {name: plain(value) for name, value in dataclasses.asdict(options).items()}


def read(
  config: Mapping[str, Any],
  options: type[Options],
  who: str,
  choices: Mapping[str, tuple[Any, ...]],
  without_effect: tuple[str, ...] = (),
) -> Options:
  """A config.json as an instance of the dataclass `options`, whose defaults stand for what is left out.

  Args:
    config: the contents of the file; names that begin with an underscore are the library's own notes.
    options: a dataclass of the options and their defaults; a list becomes a tuple.
    who: name of the class that the config is of.
    choices: {option: the values that are known here}.
    without_effect: options that published configs carry and that change no number.

  Raises:
    UserError: for an option or a value that is not known, or a config of another class.

  >>> @dataclasses.dataclass(frozen=True)
  ... class Small:
  ...   width: int = 3
  ...   act: str = "silu"
  >>> read({"_class_name": "Net", "width": 4}, Small, "Net", {"act": ("silu",)})
  Small(width=4, act='silu')
  >>> read({"widht": 4}, Small, "Net", {})
  Traceback (most recent call last):
  ...
  diffusion.config.errors.UserError: the config of this Net has an option 'widht', did you mean 'width'? its \
options are width, act
  """
  named = config.get("_class_name", who)
  if named != who:
    raise UserError(f"this config is of the class {named!r} and was taken for one of {who}: give its own")
  known = [field.name for field in dataclasses.fields(options)]  # pyright: ignore[reportArgumentType]
  given = {
    name: tuple(value) if isinstance(value, list) else value
    for name, value in config.items()
    if not name.startswith("_") and name not in without_effect
  }
  for name in given:
    if name not in known:
      close = difflib.get_close_matches(name, known, 1, 0.6)
      raise UserError(
        f"the config of this {who} has an option {name!r}{f', did you mean {close[0]!r}?' if close else ':'} "
        f"its options are {', '.join(known)}"
      )
  found = options(**given)
  for name, allowed in choices.items():
    value = getattr(found, name)
    if value not in allowed:
      raise UserError(
        f"a {who} with {name}={value!r} is not known here: {name} is one of {', '.join(map(repr, allowed))}"
      )
  return found
