"""A trace of a few steps, for TensorBoard's profiler or Perfetto."""

import os
from typing import Any

import jax

BEGIN, END = 10, 15
"""Steps after a start between which it records: compiled and warm, and few enough for a file that opens."""


class Profile:
  """Records steps BEGIN to END - 1 of this start of a run into `folder`; with no folder, nothing.

  Args:
    folder: gets `plugins/profile/...`.
    first: step that the run starts from.
  """

  def __init__(self, folder: str | None, first: int):
    self._folder, self._first, self._on = folder, first, False

  def step(self, done: int, state: Any) -> str | None:
    """Called before every step: steps done and the state -> what to say once the record is complete."""
    if self._folder is None:
      return None
    if done - self._first == BEGIN:
      jax.block_until_ready(state)  # what came before is not in the record
      jax.profiler.start_trace(self._folder)
      self._on = True
    elif done - self._first == END and self._on:
      jax.block_until_ready(state)
      self.close()
      return (
        f"recorded {END - BEGIN} steps in {self._folder}: open them with TensorBoard's profile plugin or "
        "ui.perfetto.dev"
      )
    return None

  def close(self) -> None:
    """Ends the record, if it runs."""
    if self._on:
      self._on = False
      jax.profiler.stop_trace()


def folder_of(workdir: str) -> str:
  """Where a run keeps its records."""
  return os.path.join(workdir, "profile")
