"""Several sinks as one: made from a config, and kept from ending a run."""

import contextlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from diffusion.config import factories
from diffusion.config.errors import UserError
from diffusion.config.factories import plain
from diffusion.run.saved import checkpoints
from diffusion.run.sinks.contract import Sink

DEFAULT = ({"factory": "run.sinks.jsonl"}, {"factory": "run.sinks.tensorboard"})
"""The sinks of a config that names none."""

METHODS = ("open", "log", "metrics", "picture", "close")


def _warn(text: str) -> None:
  print(text, file=sys.stderr)


class Several:
  """Sinks that are written to one after the other; itself a `Sink`.

  One that raises is said once and left out from then on. A full disk is raised.

  Args:
    sinks: (name for messages, sink) each.
    say: gets a sentence for the person watching; stderr by default.
  """

  def __init__(self, sinks: Sequence[tuple[str, Sink]], say: Callable[[str], None] = _warn):
    self.say, self._sinks = say, list(sinks)

  def open(self, workdir: str, step: int | None) -> None:
    """Opens each of them. Raises UserError for one that cannot be opened, with the others closed."""
    for number, (name, sink) in enumerate(self._sinks):
      try:
        sink.open(workdir, step)
      except Exception as error:
        for _, other in self._sinks[:number]:
          with contextlib.suppress(Exception):
            other.close()
        if isinstance(error, UserError) or checkpoints.disk_full(error):
          raise
        raise UserError(
          f"{name} cannot be opened ({_words(error)}): mend that, or leave it out of config.training.sinks"
        ) from error

  def log(self, step: int, scalars: Mapping[str, float]) -> None:
    """One log line, to each."""
    self._each(lambda sink: sink.log(step, scalars))

  def metrics(self, step: int, found: Mapping[str, Any]) -> None:
    """What an evaluation found, to each."""
    self._each(lambda sink: sink.metrics(step, found))

  def picture(self, step: int, name: str, path: str) -> None:
    """One picture, to each."""
    self._each(lambda sink: sink.picture(step, name, path))

  def close(self) -> None:
    """Closes each; those that failed before are closed already."""
    self._each(lambda sink: sink.close())
    self._sinks = []

  def _each(self, call: Callable[[Sink], None]) -> None:
    full = None
    for entry in list(self._sinks):
      name, sink = entry
      try:
        call(sink)
      except Exception as error:
        self._sinks.remove(entry)
        with contextlib.suppress(Exception):
          sink.close()
        if checkpoints.disk_full(error):
          full = full or error
        else:
          self.say(f"{name} failed ({_words(error)}): it gets nothing more; the run goes on without it")
    if full is not None and sys.exc_info()[0] is None:  # else what is on its way says more
      raise full


def _words(error: Exception) -> str:
  return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def build(sections: Any) -> Several:
  """The sinks of `config.training.sinks`; None stands for `DEFAULT`. Nothing is written yet.

  Raises UserError naming the section for one that does not fit.

  >>> build(None).open
  <bound method Several.open of ...>
  >>> build([dict(factory="run.sinks.tensorbord")])
  Traceback (most recent call last):
  ...
  diffusion.config.errors.UserError: config.training.sinks[0].factory: 'run.sinks.tensorbord' has no
  'tensorbord' in 'diffusion.run.sinks' (did you mean 'tensorboard'?); it offers ...
  """
  return Several([_build(number, section) for number, section in enumerate(_sections(sections))])


def _sections(sections: Any) -> Sequence[Any]:
  if sections is None:
    return DEFAULT
  if not isinstance(sections, (list, tuple)):
    raise UserError(
      "config.training.sinks must be a list of sections, such as (dict(factory='run.sinks.jsonl'),); it "
      f"is {plain(sections)!r}"
    )
  return sections


def _build(number: int, section: Any) -> tuple[str, Sink]:
  where = f"config.training.sinks[{number}]"
  sink = factories.build(section, where=where)
  name = f"{where} ({plain(section)['factory']})"
  missing = [method for method in METHODS if not callable(getattr(sink, method, None))]
  if missing:
    raise UserError(
      f"{name} made a {type(sink).__name__}, which is no sink: it has no {', '.join(missing)}; see "
      "diffusion.run.sinks.Sink"
    )
  return name, sink


def of_evaluation(
  config: Mapping[str, Any], workdir: str, say: Callable[[str], None] = _warn
) -> Callable[[int, Mapping[str, Any]], None]:
  """What an evaluation calls with (step, metrics) when all is written; to be made before it writes anything.

  The metrics go to the run's sinks, and so does each PNG in its folder that is new or was written anew. A
  sink that cannot be made or opened is said and left out: an evaluation does not fail for it.

  Args:
    config: of the run.
    workdir: its folder.
    say: gets a sentence for the person watching; stderr by default.
  """
  before = _pictures(workdir)

  def tell(step: int, found: Mapping[str, Any]) -> None:
    opened: list[tuple[str, Sink]] = []
    for number, section in enumerate(_sections(config["training"].get("sinks"))):
      try:
        entry = _build(number, section)
        Several([entry]).open(workdir, None)
        opened.append(entry)
      except UserError as error:
        say(f"an evaluation without one of its sinks: {error}")
    several = Several(opened, say)
    try:
      several.metrics(step, found)
      for name, stamp in sorted(_pictures(workdir).items()):
        if before.get(name) != stamp:
          several.picture(step, name.removesuffix(".png"), os.path.join(workdir, name))
    finally:
      several.close()

  return tell


def _pictures(workdir: str) -> dict[str, tuple[int, int, int]]:
  """What tells a PNG of the folder from one written anew, by name."""
  found = {}
  for entry in os.scandir(workdir):
    if entry.name.endswith(".png"):
      status = entry.stat()
      found[entry.name] = status.st_mtime_ns, status.st_ino, status.st_size
  return found
