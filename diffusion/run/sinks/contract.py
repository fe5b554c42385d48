"""The contract of a sink, and what several of them need of the metrics."""

from collections.abc import Mapping
from typing import Any, Protocol


class Sink(Protocol):
  """A place that a run writes to.

  A factory named in `config.training.sinks` makes it from the section's other keys. It is made before
  anything is compiled, so the factory refuses what it cannot work with (`config.errors.UserError` or
  ValueError), and writes nothing: that begins with `open`. Of several processes only the first opens its
  sinks.

  What a method raises ends no run: it is said once, and that sink gets nothing more. Only a full disk (the
  OSError of it) stops the run, with its checkpoints kept.
  """

  def open(self, workdir: str, step: int | None) -> None:
    """Called once, before anything is written.

    Args:
      workdir: folder of the run; it has `config.json` by now.
      step: the step that training starts or goes on from. Whatever an earlier part of the run wrote for later
        steps is written again, and has to go or to be replaced. None for an evaluation, which calls `metrics`
        and `picture` alone and drops nothing.
    """
    ...

  def log(self, step: int, scalars: Mapping[str, float]) -> None:
    """One log line of training: numbers by name, such as loss and images_per_second."""
    ...

  def metrics(self, step: int, found: Mapping[str, Any]) -> None:
    """What an evaluation of this step's model found, as in metrics.json: JSON types, some of them nested."""
    ...

  def picture(self, step: int, name: str, path: str) -> None:
    """A PNG file that an evaluation of this step's model drew; `name` is that of the file without '.png'."""
    ...

  def close(self) -> None:
    """Nothing comes after it."""
    ...


def numbers(found: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
  """The numbers among metrics, nested ones by 'outer/inner'; what is no number is left out.

  >>> numbers({"nfe": 8, "own": {"centre": 0.5}, "name": "x", "pixels": True})
  {'nfe': 8.0, 'own/centre': 0.5}
  """
  flat: dict[str, float] = {}
  for name, value in found.items():
    if isinstance(value, Mapping):
      flat |= numbers(value, f"{prefix}{name}/")
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
      flat[prefix + name] = float(value)
  return flat
