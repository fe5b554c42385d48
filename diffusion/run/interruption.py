"""SIGTERM and Ctrl-C as a question that the loop asks between steps."""

import signal
import threading
from typing import Any, Self

import jax

from diffusion.run import distributed


class Stopped(Exception):
  """A run that saved and left because it was told to.

  Attributes:
    status: the exit status, 128 + the signal (143 for SIGTERM, 130 for Ctrl-C): not zero, so that a script
      does not take the half-trained model for a finished one.
    alone: whether it stopped without the other processes of its run.
  """

  def __init__(self, message: str, status: int, alone: bool = False):
    super().__init__(message)
    self.status = status
    self.alone = alone


class Watch:
  """Context in which the first SIGTERM or SIGINT is only noted in `signal`; a second one acts as usual.

  With several processes the runtime takes SIGTERM and tells all of them; `ask` then finds one step for all.

  Args:
    alone: whether this process may stop without the others; the runtime is then not asked.

  >>> import os
  >>> with Watch() as watch:
  ...   os.kill(os.getpid(), signal.SIGTERM)
  ...   watch.signal is signal.SIGTERM
  True
  """

  def __init__(self, alone: bool = False):
    self.signal: signal.Signals | None = None
    self._alone = alone
    self._before: dict[signal.Signals, Any] = {}

  def __enter__(self) -> Self:
    # Python allows handlers only in the main thread.
    if (self._alone or jax.process_count() == 1) and threading.current_thread() is threading.main_thread():
      for number in (signal.SIGTERM, signal.SIGINT):
        self._before[number] = signal.signal(number, self._note)
    return self

  def ask(self, step: int) -> signal.Signals | None:
    """The signal to stop for before the next step, or None; every process asks at every step."""
    if self.signal is None and distributed.told_to_stop(step):
      self.signal = signal.SIGTERM
    return self.signal

  def _note(self, number, frame):
    self.signal = signal.Signals(number)
    self._restore()

  def _restore(self):
    for number, handler in self._before.items():
      signal.signal(number, handler)
    self._before = {}

  def __exit__(self, *error: object) -> None:
    self._restore()
