"""Checkpoints: written by Orbax in the background, made visible whole, checked before they are read.

    checkpoints/00000200/state/        the train state (Orbax)
                         meta.json     step, examples drawn (the data position), log lines not yet written
                         config.json   the config of the run
                         digests.json  SHA-256 of each file above

A save goes to `00000200.tmp` and is renamed when all of it, digests included, is on the disk: a folder
with a plain name is complete. Restoring takes the newest whose files are as they were written.
"""

import contextlib
import errno
import json
import os
import shutil
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

from diffusion.config.errors import UserError
from diffusion.run import distributed, state as states
from diffusion.run.saved import digests

PATIENCE = 10**9
"""Seconds that a save may take: Orbax measures them by the wall clock, and one that is set forward should end
no save."""


def steps(folder: str) -> list[int]:
  """Steps of the complete checkpoints in `folder`, ascending."""
  if not os.path.isdir(folder):
    return []
  return sorted(int(name) for name in os.listdir(folder) if name.isdigit())


def path_of(folder: str, step: int) -> str:
  """The folder of one checkpoint."""
  return os.path.join(os.path.abspath(folder), f"{step:08d}")


def disk_full(error: BaseException | None) -> bool:
  """True if an error, or one it came from, says that the disk (or the quota) is full."""
  while error is not None:
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
      return True
    if any(words in str(error) for words in ("No space left on device", "Disk quota exceeded", "ENOSPC")):
      return True
    error = error.__cause__ or error.__context__
  return False


class Writer:
  """A writer of checkpoints that does not hold up training.

  It keeps the last few, and never touches an older one before a newer is complete.

  Args:
    folder: where the checkpoints go.
    keep: how many of the newest to keep; None for all.
    keep_every: keep each checkpoint whose step this divides, too.
    kind: what is written, in messages: 'checkpoint', or 'snapshot' of less than the whole state.
  """

  def __init__(
    self, folder: str, keep: int | None = 3, keep_every: int | None = None, kind: str = "checkpoint"
  ):
    if keep is not None and keep < 1:
      raise UserError(f"config.training.keep={keep}: keep at least 1 checkpoint")
    self.folder, self.keep, self.keep_every = os.path.abspath(folder), keep, keep_every
    self.kind = kind
    os.makedirs(self.folder, exist_ok=True)
    if distributed.first():
      for name in os.listdir(self.folder):
        if name.endswith(".tmp"):  # what a killed run left half-written
          shutil.rmtree(os.path.join(self.folder, name), ignore_errors=True)
    self._orbax = _orbax_writer()
    self._worker = ThreadPoolExecutor(1)
    self._pending: tuple[int, Future] | None = None

  def save(self, state: Any, meta: dict[str, Any], config_json: str) -> None:
    """Starts saving; returns when the arrays are copied, so that the caller may donate them.

    Raises UserError here or at the next call if the disk is full; what was saved before stays.
    """
    self.wait()
    # Now: the caller may change what it gave.
    step, meta_json = int(meta["step"]), json.dumps({"format": states.FORMAT, **meta})
    try:
      place = path_of(self.folder, step) + ".tmp"
      if distributed.first():
        shutil.rmtree(place, ignore_errors=True)
        os.makedirs(place, exist_ok=True)
      distributed.together(f"{self.kind} of step {step}")
      self._orbax.save(os.path.join(place, "state"), state)
      self._pending = step, self._worker.submit(self._finish, place, step, meta_json, config_json)
    except Exception as error:
      self._refuse(step, error)

  def _finish(self, place, number, meta_json, config_json):
    self._orbax.wait_until_finished()
    if not distributed.first():
      return
    for name, text in (("meta.json", meta_json), ("config.json", config_json)):
      with open(os.path.join(place, name), "w") as file:
        file.write(text)
    digests.write(place)
    final = place.removesuffix(".tmp")
    if os.path.exists(final):  # a damaged one of the same step, or a repeated save
      _discard(final)
    os.rename(place, final)
    if self.keep is None:
      return
    before = [step for step in steps(self.folder) if step <= number]
    for step in before[: -self.keep]:
      if not (self.keep_every and step % self.keep_every == 0):
        _discard(path_of(self.folder, step))

  def _refuse(self, step, error):
    shutil.rmtree(path_of(self.folder, step) + ".tmp", ignore_errors=True)
    if disk_full(error):
      kept = ", ".join(str(kept) for kept in steps(self.folder)) or "none yet"
      raise UserError(
        f"the disk is full: the {self.kind} of step {step} could not be written to {self.folder}; those of "
        "earlier "
        f"steps are kept ({kept}); free some space and run the same command again to go on"
      ) from error
    raise error

  def wait(self) -> bool:
    """Returns when the save under way is complete, and whether it is; raises what went wrong with it.

    It is not, and that is only said, if Orbax gave it up by the wall clock, which something set forward: the
    next one will be.
    """
    if self._pending is not None:
      (step, future), self._pending = self._pending, None
      try:
        future.result()
      except TimeoutError as error:
        if jax.process_count() > 1:  # then it may well be another process
          self._refuse(step, error)
        shutil.rmtree(path_of(self.folder, step) + ".tmp", ignore_errors=True)
        with contextlib.suppress(Exception):
          self._orbax.close()
        self._orbax = _orbax_writer()
        print(
          f"the {self.kind} of step {step} is left out, for its time was over at once: was the clock set? "
          f"({error})",
          file=sys.stderr,
        )
        return False
      except Exception as error:
        self._refuse(step, error)
    return True

  def close(self) -> None:
    """Waits for the save under way and ends the background thread."""
    try:
      self.wait()
    finally:
      self._worker.shutdown()
      self._orbax.close()


def discard_after(folder: str, step: int) -> None:
  """Deletes what `folder` holds of later steps than `step`: what a run wrote that is to go on from there."""
  for later in steps(folder):
    if later > step:
      _discard(path_of(folder, later))


def _orbax_writer():
  import orbax.checkpoint as ocp  # heavy, and only training and sampling need it

  return ocp.StandardCheckpointer(async_options=ocp.options.AsyncOptions(timeout_secs=PATIENCE))


def _discard(path):
  """Renames before deleting, so that a kill in between leaves no half checkpoint under a plain name."""
  shutil.rmtree(path + ".old.tmp", ignore_errors=True)
  os.rename(path, path + ".old.tmp")
  shutil.rmtree(path + ".old.tmp", ignore_errors=True)


def choose(folder: str, step: int | None = None, say: Callable[[str], None] = print) -> str | None:
  """The newest undamaged checkpoint (or the one of `step`); None if there is no checkpoint at all.

  Raises UserError if the one asked for is missing or damaged, or if all are damaged.
  """
  found = steps(folder)
  if step is not None:
    if step not in found:
      raise UserError(
        f"no checkpoint of step {step} in {folder}; there are {', '.join(map(str, found)) or 'none'}"
      )
    wrong = digests.problem(path_of(folder, step))
    if wrong:
      raise UserError(
        f"the checkpoint {path_of(folder, step)} is damaged ({wrong}); name another of "
        f"{', '.join(map(str, found))}"
      )
    return path_of(folder, step)
  for candidate in reversed(found):
    wrong = digests.problem(path_of(folder, candidate))
    if not wrong:
      return path_of(folder, candidate)
    say(f"checkpoint {path_of(folder, candidate)} is damaged ({wrong}); trying the one before it")
  if found:
    raise UserError(
      f"every checkpoint in {folder} is damaged ({', '.join(map(str, found))}): put one back from a backup, "
      "or delete that folder to start from the beginning"
    )
  return None


def read_meta(path: str) -> dict[str, Any]:
  """The `meta.json` of one checkpoint."""
  with open(os.path.join(path, "meta.json")) as file:
    return json.load(file)


def read_state(path: str, template: Any) -> Any:
  """The train state of one checkpoint, placed as `template` says.

  Args:
    path: from `choose`.
    template: a pytree of `jax.ShapeDtypeStruct` with shardings; the devices need not be those it was saved
      from.
  """
  import orbax.checkpoint as ocp

  old = read_meta(path).get("format", 1) < states.FORMAT
  wanted = states.before_players(template) if old else template
  with ocp.StandardCheckpointer() as reader:
    try:
      state = reader.restore(os.path.join(path, "state"), wanted)
    except (ValueError, KeyError, TypeError) as error:
      first = str(error).strip().splitlines()[0][:200]
      raise UserError(
        f"the checkpoint {path} does not fit the state this config makes ({first}); use the config.json "
        "beside it"
      ) from error
  state = states.upgraded(state) if old else state
  for (key, want), (_, got) in zip(
    jax.tree_util.tree_leaves_with_path(template), jax.tree_util.tree_leaves_with_path(state)
  ):
    if want.shape != got.shape or want.dtype != got.dtype:
      raise UserError(
        f"the checkpoint {path} does not fit the state this config makes: {jax.tree_util.keystr(key)} is "
        f"{got.dtype}{list(got.shape)} "
        f"there and {want.dtype}{list(want.shape)} here; use the config.json beside it"
      )
  return state


def read_arrays(path: str) -> Any:
  """Everything in one checkpoint as nested dicts of NumPy arrays, whatever config or devices it came from."""
  import orbax.checkpoint as ocp

  with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
    place = os.path.join(path, "state")
    tree = reader.metadata(place).item_metadata.tree
    kinds = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
    return reader.restore(place, args=ocp.args.PyTreeRestore(restore_args=kinds))
