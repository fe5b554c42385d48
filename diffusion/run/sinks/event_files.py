"""TensorBoard's event files, written at once and in the calling thread."""

import os
import struct
import time
from collections.abc import Mapping
from typing import Any

from diffusion.run.sinks.contract import Sink, numbers


class Events:
  """TensorBoard's file of scalars and images.

  tensorboardX's own writer has a thread that a full disk or a clock set back by weeks ends, after which the
  run waits for it forever.

  Args:
    folder: gets a file of its own.
    purge: the step from which TensorBoard hides what older files say; None for a run that starts.
    part: told apart by the file's name: two parts may begin in one second.
  """

  def __init__(self, folder: str, purge: int | None = None, part: str = "training"):
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto import event_pb2

    os.makedirs(folder, exist_ok=True)
    self._pb: Any = event_pb2  # its classes are made at run time
    self._file = EventsWriter(os.path.join(folder, "events"), f".{os.getpid()}.{part}.{purge or 0}")
    if purge is not None:
      start = self._pb.SessionLog(status=self._pb.SessionLog.START)
      self._file.write_event(self._pb.Event(step=purge, wall_time=time.time(), session_log=start))

  def write(self, step: int, scalars: Mapping[str, float]) -> None:
    """All scalars of one step."""
    from tensorboardX import summary

    for name, value in scalars.items():
      self._add(step, summary.scalar(name, value))
    self._file.flush()

  def write_png(self, step: int, tag: str, png: bytes) -> None:
    """One image, from the content of a PNG file.

    Raises ValueError if it is none.
    """
    from tensorboardX.proto import summary_pb2

    if png[:8] != b"\x89PNG\r\n\x1a\n" or png[12:16] != b"IHDR":
      raise ValueError(f"the picture for {tag} is no PNG file")
    width, height = struct.unpack(">II", png[16:24])
    pb: Any = summary_pb2
    image = pb.Summary.Image(height=height, width=width, colorspace=4, encoded_image_string=png)
    self._add(step, pb.Summary(value=[pb.Summary.Value(tag=tag, image=image)]))
    self._file.flush()

  def _add(self, step: int, summary: Any) -> None:
    self._file.write_event(self._pb.Event(step=step, wall_time=time.time(), summary=summary))

  def close(self) -> None:
    """Ends the file."""
    self._file.close()


class _TensorBoard:
  """See `tensorboard`."""

  def __init__(self, folder: str):
    self._folder = folder
    self._events: Events | None = None

  def open(self, workdir: str, step: int | None) -> None:
    purge = step + 1 if step else None
    part = "evaluation" if step is None else "training"
    self._events = Events(os.path.join(workdir, self._folder), purge, part)

  @property
  def _opened(self) -> Events:
    assert self._events is not None, "a sink that was not opened"
    return self._events

  def log(self, step: int, scalars: Mapping[str, float]) -> None:
    self._opened.write(step, scalars)

  def metrics(self, step: int, found: Mapping[str, Any]) -> None:
    self._opened.write(step, {f"evaluation/{name}": value for name, value in numbers(found).items()})

  def picture(self, step: int, name: str, path: str) -> None:
    with open(path, "rb") as file:
      self._opened.write_png(step, f"evaluation/{name}", file.read())

  def close(self) -> None:
    if self._events is not None:
      self._events.close()


def tensorboard(folder: str = "tensorboard") -> Sink:
  """TensorBoard event files: log lines, the numbers of an evaluation as `evaluation/...`, and its pictures.

  Each part of a run has a file of its own; what an earlier part wrote after the step that a run goes on from
  is hidden by TensorBoard.

  Args:
    folder: inside the run's folder.

  Raises ValueError for a folder outside of it.
  """
  if os.path.isabs(folder) or ".." in folder.split("/"):
    raise ValueError(f"folder='{folder}' must lie inside the run's folder: give a name such as 'tensorboard'")
  return _TensorBoard(folder)
