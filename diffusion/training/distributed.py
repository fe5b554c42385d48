"""Many processes as one program: JAX's own runtime, started from flags, from the environment or from what the cluster says.

Every process runs the same command. They hold one mesh over all their devices, each reads its own part of every batch, all write the
checkpoints, and the first one alone writes what is not an array: the config, the log, the pictures.
"""

import os

import jax

from diffusion.errors import UserError

HEARTBEAT = 30
"""Seconds without a sign of life after which the others give a process up and stop."""


def add_flags(parser) -> None:
  """Adds --distributed and its details to a command line."""
  parser.add_argument("--distributed", action="store_true",
                      help="this is one of several processes; found from the cluster (TPU, Slurm, ...) unless said by the flags below")
  parser.add_argument("--coordinator", metavar="HOST:PORT", help="where the first process listens (or JAX_COORDINATOR_ADDRESS)")
  parser.add_argument("--processes", type=int, metavar="N", help="how many processes there are (or JAX_NUM_PROCESSES)")
  parser.add_argument("--process", type=int, metavar="I", help="which of them this is, from 0 (or JAX_PROCESS_ID)")


def start(flags) -> None:
  """Joins the other processes, before anything is computed; does nothing without --distributed.

  Raises:
    UserError: flags that do not go together, or processes that do not find each other.
  """
  given = {"--coordinator": flags.coordinator, "--processes": flags.processes, "--process": flags.process}
  if not flags.distributed:
    alone = [name for name, value in given.items() if value is not None]
    if alone:
      raise UserError(f"{', '.join(alone)} only mean something together with --distributed: add it, or leave them out")
    return
  number = lambda flag, name: flag if flag is not None else int(os.environ[name]) if name in os.environ else None
  processes, process = number(flags.processes, "JAX_NUM_PROCESSES"), number(flags.process, "JAX_PROCESS_ID")
  coordinator = flags.coordinator or os.environ.get("JAX_COORDINATOR_ADDRESS")
  known = [value is not None for value in (coordinator, processes, process)]
  if any(known) and not all(known):
    missing = [name for name, there in zip(given, known) if not there]
    raise UserError(f"--distributed needs {' and '.join(missing)} as well: give all three, or none and let the cluster say")
  if all(known) and not 0 <= process < processes:
    raise UserError(f"--process={process} of --processes={processes}: they are counted from 0")
  try:
    jax.distributed.initialize(coordinator, processes, process, heartbeat_timeout_seconds=HEARTBEAT)
  except (RuntimeError, ValueError) as error:
    raise UserError(
        f"the processes did not find each other ({str(error).splitlines()[0]}): check that all run the same command with --process from 0,"
        " that the first one's address can be reached, or leave out --distributed") from error


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
  """Whether some process got SIGTERM and this is the step at which all stop; to be asked at every step, by all."""
  if jax.process_count() == 1:
    return False
  from jax.experimental import multihost_utils

  return multihost_utils.reached_preemption_sync_point(step)


