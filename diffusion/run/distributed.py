"""Many processes as one program.

JAX's own runtime, started from flags, from the environment or from what the cluster says.

Every process runs the same command. They hold one mesh over all their devices, each reads its own part of
every batch, all write the checkpoints, and the first one alone writes what is not an array: the config, the
log, the pictures.
"""

import argparse
import os
import subprocess
import sys

import jax

from diffusion.config.errors import UserError

HEARTBEAT = 30
"""Seconds without a sign of life after which the others give a process up and stop."""

PATIENCE = 24 * 3600
"""Seconds for which a process that is done waits for the others: a dead one is noticed by its heartbeat, a
slow one has its time."""

LOST = 75
"""Exit status of a process that stops because another one is gone ("try again"); 134 where the runtime itself
aborts it."""

BROKEN = (
  "Gloo",
  "NCCL",
  "Connection reset",
  "Connection closed",
  "Socket closed",
  "coordination",
  "heartbeat",
  "UNAVAILABLE",
  "DEADLINE_EXCEEDED",
)
"""Words of errors that mean that another process does not answer."""


class LastWords:
  """Has `text` printed as the last line on stderr unless `take_back` is called first.

  JAX's runtime ends a process whose peers are gone by aborting it, which no handler in Python sees; nor does
  one see SIGKILL. So a shell waits at the other end of a pipe and speaks when the pipe closes without a word.
  """

  def __init__(self, text: str):
    end, self._pipe = os.pipe()
    says = 'read -r word; test "$word" = done || printf "%s\\n" "$1" >&2'
    # In a session of its own, so that Ctrl-C does not reach it.
    self._shell = subprocess.Popen(
      ["/bin/sh", "-c", says, "sh", text], stdin=end, stdout=subprocess.DEVNULL, start_new_session=True
    )
    os.close(end)

  def take_back(self) -> None:
    """The process has said itself how it ends."""
    if self._pipe is not None:
      os.write(self._pipe, b"done\n")
      os.close(self._pipe)
      self._pipe = None
      self._shell.wait()


_words: LastWords | None = None  # what is said for this process if it is aborted


def add_flags(parser: argparse.ArgumentParser) -> None:
  """Adds --distributed and its details to a command line."""
  parser.add_argument(
    "--distributed",
    action="store_true",
    help="this is one of several processes; found from the cluster (TPU, Slurm, ...) unless said by the "
    "flags below",
  )
  parser.add_argument(
    "--coordinator", metavar="HOST:PORT", help="where the first process listens (or JAX_COORDINATOR_ADDRESS)"
  )
  parser.add_argument(
    "--processes", type=int, metavar="N", help="how many processes there are (or JAX_NUM_PROCESSES)"
  )
  parser.add_argument(
    "--process", type=int, metavar="I", help="which of them this is, from 0 (or JAX_PROCESS_ID)"
  )


def start(flags: argparse.Namespace) -> None:
  """Joins the other processes, before anything is computed; does nothing without --distributed.

  Raises:
    UserError: flags that do not go together, or processes that do not find each other.
  """
  given = {"--coordinator": flags.coordinator, "--processes": flags.processes, "--process": flags.process}
  if not flags.distributed:
    alone = [name for name, value in given.items() if value is not None]
    if alone:
      raise UserError(
        f"{', '.join(alone)} only mean something together with --distributed: add it, or leave them out"
      )
    return
  number = lambda flag, name: (
    flag if flag is not None else int(os.environ[name]) if name in os.environ else None
  )
  processes, process = number(flags.processes, "JAX_NUM_PROCESSES"), number(flags.process, "JAX_PROCESS_ID")
  coordinator = flags.coordinator or os.environ.get("JAX_COORDINATOR_ADDRESS")
  known = [value is not None for value in (coordinator, processes, process)]
  if any(known) and not all(known):
    missing = [name for name, there in zip(given, known) if not there]
    raise UserError(
      f"--distributed needs {' and '.join(missing)} as well: give all three, or none and let the cluster say"
    )
  if processes is not None and process is not None and not 0 <= process < processes:
    raise UserError(f"--process={process} of --processes={processes}: they are counted from 0")
  try:
    jax.distributed.initialize(
      coordinator, processes, process, heartbeat_timeout_seconds=HEARTBEAT, shutdown_timeout_seconds=PATIENCE
    )
  except (RuntimeError, ValueError) as error:
    raise UserError(
      f"the processes did not find each other ({str(error).splitlines()[0]}): check that all run the same "
      "command with --process from 0,"
      " that the first one's address can be reached, or leave out --distributed"
    ) from error
  if jax.process_count() > 1:
    global _words
    _words = LastWords(
      f"process {jax.process_index()} of {jax.process_count()} ended before its work was done: it was "
      "killed, or another process of this run"
      " died or could not be reached (the output of the first to end says why). What was saved is whole: "
      "start all of them again with the"
      " same command, and they go on from there"
    )


def share(flags: argparse.Namespace) -> tuple[int, int]:
  """The share of the work of this process: (which, of how many).

  It is for work whose parts need nothing of each other. The processes are those of `start`, or told by
  --processes and --process alone.

  Raises:
    UserError: flags that do not go together.
  """
  if flags.distributed:
    start(flags)
    return jax.process_index(), jax.process_count()
  if flags.coordinator:
    raise UserError("--coordinator only means something together with --distributed: add it, or leave it out")
  if (flags.process is None) != (flags.processes is None):
    raise UserError(
      "--processes=N says of how many and --process=I which one this is, from 0: give both, or neither"
    )
  process, processes = flags.process or 0, 1 if flags.processes is None else flags.processes
  if not 0 <= process < processes:
    raise UserError(f"--process={process} of --processes={processes}: they are counted from 0")
  return process, processes


def joined() -> bool:
  """Whether this process is one of several that are in touch with each other."""
  return _words is not None


def lost_another(error: BaseException) -> bool:
  """Whether an error of the runtime, or what it came from, says that another process does not answer.

  >>> lost_another(ValueError("UNKNOWN: Gloo all-reduce failed: Connection reset by peer"))
  True
  >>> lost_another(ValueError("shapes differ"))
  False
  """
  said: BaseException | None = error
  while said is not None:
    if isinstance(said, (RuntimeError, ValueError)) and any(word in str(said) for word in BROKEN):
      return True
    said = said.__cause__ or said.__context__
  return False


def leave(status: int, with_all: bool = True) -> int:
  """The end of a process that joined others; called last, with its exit status.

  Args:
    status: of the command.
    with_all: the others come here too, so it waits for them. Otherwise it ends at once, and they stop within
      the heartbeat; with the status LOST the last words say why.
  """
  if _words is None:
    return status
  sys.stdout.flush()
  if with_all:
    jax.distributed.shutdown()
  if status != LOST:
    _words.take_back()
  if not with_all:
    sys.stderr.flush()
    os._exit(status)  # the runtime's own end would wait for the others
  return status


def first() -> bool:
  """Whether this process writes what is not an array."""
  return jax.process_index() == 0


def together(name: str) -> None:
  """Returns when every process has come here.

  >>> together("nothing to wait for with one process")
  """
  if jax.process_count() > 1:
    from jax.experimental import multihost_utils

    multihost_utils.sync_global_devices(name)


def agreed(number: int) -> int:
  """The first process's number, for all.

  >>> agreed(3)
  3
  """
  if jax.process_count() == 1:
    return number
  from jax.experimental import multihost_utils

  return int(multihost_utils.broadcast_one_to_all(number))


def told_to_stop(step: int) -> bool:
  """Whether some process got SIGTERM and this is the step at which all stop.

  To be asked at every step, by all.
  """
  if jax.process_count() == 1:
    return False
  from jax.experimental import multihost_utils

  return multihost_utils.reached_preemption_sync_point(step)
