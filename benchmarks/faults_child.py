"""Training runs as forked processes that can be struck at a chosen moment.

The parent imports everything once and starts no backend of JAX, so a child costs what it compiles or loads,
not the seconds of imports; it then runs train.py's own `main`, to its exit status. A few bytes of shared
memory tell the parent what the child is at.
"""

import contextlib
import importlib.util
import mmap
import os
import pathlib
import random
import signal
import sys
import time
import traceback

ROOT = pathlib.Path(__file__).parents[1]
RESTORING, SAVING, WRITING, STEP = (
  0,
  1,
  2,
  4,
)  # bytes: restoring; saving in the loop and behind it; four bytes of the last step

from diffusion.commands import train as command
from diffusion.run import interruption, loop  # noqa: F401 (imported before the fork)
from diffusion.run.saved import checkpoints


def train_main():
  """`main` of train.py."""
  spec = importlib.util.spec_from_file_location("train", ROOT / "train.py")
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.main


class Child:
  """One process that trains.

  Args:
    argv: the flags of train.py.
    out: file for all that it says.
    clock: a seed, to let the child's clock jump; None for the true one.
  """

  def __init__(self, argv, out, clock=None):
    self._marks = mmap.mmap(-1, 16)
    self.out = pathlib.Path(out)
    self.status = None
    self.ready = train_main()
    sys.stdout.flush()
    sys.stderr.flush()
    self.pid = os.fork()
    if not self.pid:
      self._become(argv, clock)

  def _become(self, argv, clock):
    status = 70
    try:
      file = os.open(self.out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
      os.dup2(file, 1)
      os.dup2(file, 2)
      sys.stdout.reconfigure(line_buffering=True)
      _mark(self._marks)
      if clock is not None:
        _let_the_clock_jump(clock)
      status = command.run(self.ready, argv)
    except BaseException:
      traceback.print_exc()
    finally:
      sys.stdout.flush()
      sys.stderr.flush()
      os._exit(status)

  def over(self):
    """Whether it has ended; then `status` says how: an exit status, or minus the signal that killed it."""
    if self.status is None:
      pid, status = os.waitpid(self.pid, os.WNOHANG)
      if pid:
        self.status = os.waitstatus_to_exitcode(status)
    return self.status is not None

  def until(self, condition, limit=240):
    """Waits until `condition()`; False if the child ended before."""
    end = time.monotonic() + limit
    while not condition():
      if self.over():
        return False
      if time.monotonic() > end:
        os.kill(self.pid, signal.SIGKILL)
        raise SystemExit(f"a child did not come to the awaited moment in {limit} s; it said: {self.said()}")
      time.sleep(0.0004)
    return not self.over()

  def wait(self):
    """Its exit status, when it has ended."""
    self.until(lambda: False)
    return self.status

  def strike(self, number):
    """Sends a signal; what the child was at then."""
    phase = self.phase()
    with contextlib.suppress(ProcessLookupError):
      os.kill(self.pid, number)
    return phase

  def phase(self):
    """'restore', 'save' or 'step', or 'start' while nothing of these has begun."""
    if self._marks[RESTORING]:
      return "restore"
    if self._marks[SAVING] or self._marks[WRITING]:
      return "save"
    return "step" if self.step else "start"

  @property
  def step(self):
    """The last step that was begun."""
    return int.from_bytes(self._marks[STEP : STEP + 4], "little")

  def said(self):
    """Its output so far."""
    return self.out.read_text() if self.out.exists() else ""


def _mark(marks):
  """Lets the training loop say where it is."""

  def at(place, function):
    def call(*args, **kwargs):
      marks[place] = 1
      try:
        return function(*args, **kwargs)
      finally:
        marks[place] = 0

    return call

  checkpoints.choose = at(RESTORING, checkpoints.choose)
  checkpoints.read_state = at(RESTORING, checkpoints.read_state)
  checkpoints.Writer.save = at(SAVING, checkpoints.Writer.save)
  checkpoints.Writer._finish = at(WRITING, checkpoints.Writer._finish)
  ask = interruption.Watch.ask

  def asked(self, step):
    marks[STEP : STEP + 4] = (step + 1).to_bytes(4, "little")
    return ask(self, step)

  interruption.Watch.ask = asked


def _let_the_clock_jump(seed):
  """time.time goes on, but about every half second by up to ten years, forwards or back."""
  chance, true, steady, offset, until = random.Random(seed), time.time, time.monotonic, 0.0, 0.0

  def shifted():
    nonlocal offset, until
    if steady() > until:
      until = steady() + chance.uniform(0.1, 1.0)
      offset = chance.choice((-1, 1)) * 10 ** chance.uniform(0, 8.5)
    return true() + offset

  time.time = shifted
  time.time_ns = lambda: int(shifted() * 1e9)


def isolated(function):
  """The string that `function` returns, computed in a fork, so that the parent starts no backend."""
  read, write = os.pipe()
  sys.stdout.flush()
  pid = os.fork()
  if not pid:
    status = 1
    try:
      os.write(write, function().encode())
      status = 0
    except BaseException:
      traceback.print_exc()
    finally:
      os._exit(status)
  os.close(write)
  with os.fdopen(read) as file:
    text = file.read()
  if os.waitpid(pid, 0)[1]:
    raise SystemExit("a comparison failed; see above")
  return text
