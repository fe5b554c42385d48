"""SIGTERM and Ctrl-C as a question that the loop asks between steps."""

import signal
import threading


class Stopped(Exception):
  """A run that saved and left because it was told to.

  Attributes:
    status: the exit status, 128 + the signal (143 for SIGTERM, 130 for Ctrl-C): not zero, so that a script
      does not take the half-trained model for a finished one.
  """

  def __init__(self, message: str, status: int):
    super().__init__(message)
    self.status = status


class Watch:
  """Context in which the first SIGTERM or SIGINT is only noted in `signal`; a second one acts as usual.

  >>> import os
  >>> with Watch() as watch:
  ...   os.kill(os.getpid(), signal.SIGTERM)
  ...   watch.signal is signal.SIGTERM
  True
  """

  def __init__(self):
    self.signal = None
    self._before = {}

  def __enter__(self):
    if threading.current_thread() is threading.main_thread():  # Python allows handlers only there
      for number in (signal.SIGTERM, signal.SIGINT):
        self._before[number] = signal.signal(number, self._note)
    return self

  def _note(self, number, frame):
    self.signal = signal.Signals(number)
    self._restore()

  def _restore(self):
    for number, handler in self._before.items():
      signal.signal(number, handler)
    self._before = {}

  def __exit__(self, *error):
    self._restore()
