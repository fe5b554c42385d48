"""The log as a file of JSON lines, `log.jsonl`."""

import json
import os
from collections.abc import Mapping
from typing import IO, Any

from diffusion.run import logging
from diffusion.run.sinks.contract import Sink


class _JSONLines:
  """See `jsonl`."""

  def __init__(self) -> None:
    self._file: IO[str] | None = None

  def open(self, workdir: str, step: int | None) -> None:
    if step is None:
      return
    path = os.path.join(workdir, "log.jsonl")
    logging.cut(path, step)
    self._file = open(path, "a")  # noqa: SIM115 (closed by `close`)

  def log(self, step: int, scalars: Mapping[str, float]) -> None:
    assert self._file is not None, "log() of a sink that was not opened at a step"
    self._file.write(json.dumps({"step": step, **scalars}) + "\n")
    self._file.flush()
    os.fsync(self._file.fileno())

  def metrics(self, step: int, found: Mapping[str, Any]) -> None:
    """Nothing: they are in metrics.json."""

  def picture(self, step: int, name: str, path: str) -> None:
    """Nothing: they are in the folder."""

  def close(self) -> None:
    if self._file is not None:
      self._file.close()


def jsonl() -> Sink:
  """Log lines in `log.jsonl` in the run's folder, each on the disk before training goes on.

  A run that goes on from step s keeps the lines up to s and writes the later ones again: bit for bit those of
  a run that was not interrupted, but for the fields that depend on the clock (`logging.TIMED`). The
  evaluation reads this file for loss.png and the costs of training; metrics.json and the pictures lie beside
  it anyway.
  """
  return _JSONLines()
