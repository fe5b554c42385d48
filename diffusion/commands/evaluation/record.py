"""The file metrics.json of a run, written whenever a part is ready, with what was left out and why."""

import json
import os
from collections.abc import Callable, Iterable
from typing import Any

from diffusion.config.errors import UserError

UNREACHED = "the evaluation ended before it"


class Record:
  """Metrics as they are found, and one sentence for each that is left out.

  A part that fails leaves the others alone. What data or model do not allow (UserError, ValueError) is left
  out and that is all; any other exception is a mistake in the program, and `raise_first` raises it when the
  rest is written.

  Args:
    path: of metrics.json; it is replaced in one step each time.
    parts: names of what is to come; until then they stand in `left_out`.

  >>> import tempfile
  >>> record = Record(os.path.join(tempfile.mkdtemp(), "metrics.json"), ("loss", "likelihood"))
  >>> record.measure("loss", lambda: {"loss": 0.5})
  >>> record.measure("likelihood", lambda: 1 / int("none"))
  >>> record.found, record.left_out["likelihood"]
  ({'loss': 0.5}, "invalid literal for int() with base 10: 'none'")
  """

  def __init__(self, path: str, parts: Iterable[str]) -> None:
    self.path = path
    self.found: dict[str, Any] = {}
    self.left_out = dict.fromkeys(parts, UNREACHED)
    self._first: Exception | None = None

  def measure(self, part: str, compute: Callable[[], dict[str, Any]]) -> None:
    """Adds the metrics that `compute` returns; a dict `left_out` among them says what it left out itself."""
    self.left_out.pop(part, None)
    try:
      new = dict(compute())
      self.left_out.update(new.pop("left_out", {}))
      self.found.update(new)
    except (UserError, ValueError) as error:
      self.left_out[part] = in_one_line(error)
    except Exception as error:
      self.left_out[part] = f"{type(error).__name__}: {in_one_line(error)}"
      self._first = self._first or error
    self.write()

  def draw(self, name: str, draw: Callable[[], Any]) -> None:
    """Calls `draw`; a picture that fails, however it does, is left out."""
    self.left_out.pop(name, None)
    try:
      draw()
    except Exception as error:
      self.left_out[name] = f"{type(error).__name__}: {in_one_line(error)}"
    self.write()

  def leave_out(self, part: str, why: str, instead_of: str = "") -> None:
    """Says why a part is not measured; `instead_of` is the name that it had among what is to come."""
    self.left_out.pop(instead_of, None)
    self.left_out[part] = why

  def raise_first(self) -> None:
    """Raises the first exception that no data explain, if there was one."""
    if self._first is not None:
      raise self._first

  def content(self) -> dict[str, Any]:
    """All of it, as the file has it."""
    return {**self.found, "left_out": dict(self.left_out)}

  def write(self) -> None:
    """Replaces the file."""
    with open(self.path + ".tmp", "w") as file:
      json.dump(self.content(), file, indent=2, sort_keys=True)
      file.write("\n")
    os.replace(self.path + ".tmp", self.path)


def in_one_line(error: Exception) -> str:
  """The message of an exception without line breaks."""
  return " ".join(str(error).split())
