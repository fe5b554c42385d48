"""The averages by power functions at regular steps, so that other lengths can be made of them afterwards.

    snapshots/00004096/state/        the averages after that step, as in a checkpoint
                       meta.json, config.json, digests.json

A snapshot is written as a checkpoint is, whole or not at all, and stays; only those after the step from which
a run goes on are deleted, for it will write them again. On the disk each takes the bytes of the parameters
once for each average.
"""

from typing import Any

from diffusion.config import loading
from diffusion.run import distributed, ema
from diffusion.run.saved import checkpoints, workdir as workdirs


class Snapshots:
  """What a run writes every config.training.ema_snapshot_every steps; nothing if that is not given.

  Args:
    workdir, config: of the run.
    done: the step from which it goes on.
  """

  def __init__(self, workdir: str, config: Any, done: int):
    self.config, self.every = config, config.training.get("ema_snapshot_every")
    self._names, self._writer = list(ema.lengths(config.training)), None
    if self.every is not None:
      folder = workdirs.snapshots(workdir)
      self._writer = checkpoints.Writer(folder, keep=None, kind="snapshot")
      if distributed.first():
        checkpoints.discard_after(folder, done)

  def due(self, step: int) -> bool:
    """Whether one is to be written after `step` steps."""
    return self.every is not None and step % self.every == 0

  def save(self, state: Any, step: int) -> None:
    """Starts writing the averages of a train state; returns when they are copied.

    Raises UserError here or at the next call if the disk is full.
    """
    if self._writer is not None:
      kept = {"emas": {name: state.emas[name] for name in self._names}}
      self._writer.save(kept, {"step": step}, loading.to_json(self.config))

  def wait(self) -> None:
    """Returns when the one under way is complete; raises what went wrong with it."""
    if self._writer is not None:
      self._writer.wait()

  def close(self) -> None:
    """Waits for the one under way and ends the background thread."""
    if self._writer is not None:
      self._writer.close()
