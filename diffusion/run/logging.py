"""The log of a run: its records on the disk, and one writer for its sinks and the progress bar."""

import json
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from diffusion.run.sinks import Several

TIMED = ("seconds", "images_per_second", "data_wait")
"""Fields that depend on the clock.

All others are the same in a run that was interrupted and one that was not.
The last is the share of the time that went into waiting for data.
"""

STARVED = 0.02
"""Share of the time from which on the bar says that the data, not the device, is what takes long."""


def read(path: str) -> list[dict[str, Any]]:
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

  def write(self, record: dict[str, Any]) -> None:
    """Nothing."""

  def say(self, text: str) -> None:
    """Nothing."""

  def close(self) -> None:
    """Nothing."""


class RunLog:
  """Writes one record at a time to the sinks and the progress bar.

  Made at the step that a run starts or goes on from.

  Args:
    workdir: folder of the run.
    step: the step already done; the sinks are opened there.
    total: steps of the whole run.
    sinks: of `config.training.sinks`, not opened yet; what they have to say goes above the bar.
    quiet: no progress bar.

  Raises UserError for a sink that can not be opened.
  """

  def __init__(self, workdir: str, step: int, total: int, sinks: "Several", quiet: bool = False):
    from tqdm import tqdm

    self._sinks = sinks
    sinks.say = self.say
    sinks.open(workdir, step)
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

  def write(self, record: dict[str, Any]) -> None:
    """One line of the log; `record` has `step`, `loss`, `images_per_second` and any other numbers."""
    self._sinks.log(record["step"], {name: value for name, value in record.items() if name != "step"})
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
    from tqdm import tqdm

    tqdm.write(text, file=sys.stderr)

  def close(self) -> None:
    """Ends the bar and the sinks."""
    self._bar.close()
    self._sinks.close()
