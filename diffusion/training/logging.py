"""What a run says: a JSONL log, TensorBoard events, and a progress bar."""

import json
import os
import sys
import time

TIMED = ("seconds", "images_per_second", "data_wait")
"""Fields that depend on the clock (the last is the share of it that went into waiting for data); all others
are the same in a run that was interrupted and one that was not."""

STARVED = 0.02
"""Share of the time from which on the bar says that the data, not the device, is what takes long."""


def read(path: str) -> list[dict]:
  """The records of a JSONL log; a last line cut short by a kill is left out."""
  if not os.path.exists(path):
    return []
  records = []
  with open(path) as file:
    for line in file:
      try:
        records.append(json.loads(line))
      except ValueError:
        break
  return records


def cut(path: str, step: int) -> None:
  """Drops the records after `step`, which a resumed run writes again; the file is replaced whole."""
  if not os.path.exists(path):
    return
  with open(path + ".tmp", "w") as file:
    for record in read(path):
      if record["step"] <= step:
        file.write(json.dumps(record) + "\n")
    file.flush()
    os.fsync(file.fileno())
  os.replace(path + ".tmp", path)


class Silent:
  """The log of a process that is not the first: it says and writes nothing."""

  def write(self, record: dict) -> None:
    """Nothing."""

  def say(self, text: str) -> None:
    """Nothing."""

  def close(self) -> None:
    """Nothing."""


class Events:
  """TensorBoard's file of scalars, written at once and in this thread.

  tensorboardX's own writer has a thread that a full disk or a clock set back by weeks ends, after which the
  run waits for it forever.

  Args:
    folder: gets a file of its own.
    purge: the step from which TensorBoard hides what older files say; None for a run that starts.
  """

  def __init__(self, folder: str, purge: int | None = None):
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto import event_pb2

    os.makedirs(folder, exist_ok=True)
    self._event = event_pb2.Event
    self._file = EventsWriter(os.path.join(folder, "events"), f".{os.getpid()}.{purge or 0}")
    if purge is not None:
      start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
      self._file.write_event(self._event(step=purge, wall_time=time.time(), session_log=start))

  def write(self, step: int, scalars: dict) -> None:
    """All scalars of one step."""
    from tensorboardX import summary

    for name, value in scalars.items():
      self._file.write_event(
        self._event(step=step, wall_time=time.time(), summary=summary.scalar(name, value))
      )
    self._file.flush()

  def close(self) -> None:
    self._file.close()


class RunLog:
  """Writes one record at a time; made at the step a run starts or resumes from.

  Args:
    workdir: gets `log.jsonl` and `tensorboard/`.
    step: the step already done; the log is cut back to it.
    total: steps of the whole run.
    quiet: no progress bar.
  """

  def __init__(self, workdir: str, step: int, total: int, quiet: bool = False):
    from tqdm import tqdm

    path = os.path.join(workdir, "log.jsonl")
    cut(path, step)
    self._file = open(path, "a")  # noqa: SIM115 (closed by `close`)
    self._events = Events(os.path.join(workdir, "tensorboard"), purge=step + 1 if step else None)
    self._bar = tqdm(
      total=total,
      initial=step,
      unit="step",
      disable=quiet,
      dynamic_ncols=True,
      file=sys.stderr,
      bar_format="{desc}{percentage:3.0f}%|{bar}| step {n_fmt}/{total_fmt}{postfix} [{elapsed}, {remaining} "
      "left]",
    )

  def write(self, record: dict) -> None:
    """One line of the log; `record` has `step`, `loss`, `images_per_second` and any other numbers."""
    self._file.write(json.dumps(record) + "\n")
    self._file.flush()
    os.fsync(self._file.fileno())
    self._events.write(record["step"], {name: value for name, value in record.items() if name != "step"})
    starved = record.get("data_wait", 0.0)
    slow = f", waiting for data {starved:.0%} of the time" if starved > STARVED else ""
    self._bar.set_postfix_str(
      f"loss {record.get('loss', float('nan')):.4g}, {record['images_per_second']:.0f} images/s{slow}",
      refresh=False,
    )
    self._bar.update(record["step"] - self._bar.n)
    self._bar.refresh()

  def say(self, text: str) -> None:
    """One line for the person watching, above the bar."""
    self._bar.write(text, file=sys.stderr)

  def close(self) -> None:
    self._bar.close()
    self._events.close()
    self._file.close()
