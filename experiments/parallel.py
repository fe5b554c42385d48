"""Measures several claims at a time, each in a process of its own on its own share of the cores."""

import concurrent.futures
import itertools
import multiprocessing
import os
import queue
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from diffusion.config.errors import UserError


def shares(jobs: int, cores: Iterable[int]) -> list[tuple[int, ...]]:
  """The cores of each of so many jobs: as even as they go, none in two shares.

  Raises UserError for more jobs than cores, or less than one.

  >>> shares(2, [0, 1, 2, 3, 4])
  [(0, 1, 2), (3, 4)]
  """
  cores = sorted(cores)
  if not 1 <= jobs <= len(cores):
    raise UserError(f"--jobs={jobs}: from 1 to {len(cores)} at a time, as many as there are cores to run on")
  few, more = divmod(len(cores), jobs)
  ends = [0, *(few * (i + 1) + min(i + 1, more) for i in range(jobs))]
  return [tuple(cores[a:b]) for a, b in itertools.pairwise(ends)]


def available_cores() -> list[int]:
  """The cores that this process may run on."""
  return (
    sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
  )


def run_each(
  function: Callable[..., Any], items: Iterable[str], jobs: int, say: Callable[[str], Any]
) -> Iterator[tuple[str, Any]]:
  """Yields (item, function(item, say)) of every item as each is done, `jobs` at a time, in fresh processes.

  A process keeps to its share of the cores from before it computes anything, and XLA makes a thread for each,
  so that what is timed beside another job is hardly slowed by it. What an item says comes out line by line,
  with the item before it.

  Args:
    function: at a module's top level, of (item, say), of arguments and results that can be pickled.
    items: strings.
    jobs: how many at a time.
    say: called with a line of text.

  Raises what function raised, and RuntimeError for a process that ended without a result, after stopping the
  others.
  """
  context, free = multiprocessing.get_context("spawn"), queue.SimpleQueue()
  for share in shares(jobs, available_cores()):
    free.put(share)
  running = set()

  def one(item):
    share = free.get()
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(function, item, share, theirs), daemon=True)
    process.start()
    running.add(process)
    theirs.close()
    try:
      while True:
        kind, value = ours.recv()
        if kind == "said":
          say(f"  {item}: {value.strip()}")
        elif kind == "raised":
          raise value
        else:
          return item, value
    except EOFError:
      process.join()
      raise RuntimeError(f"{item}: its process ended with status {process.exitcode} and no result") from None
    finally:
      running.discard(process)
      process.join(timeout=10)
      free.put(share)

  pool = concurrent.futures.ThreadPoolExecutor(jobs)
  try:
    for future in concurrent.futures.as_completed([pool.submit(one, item) for item in items]):
      yield future.result()
  finally:
    pool.shutdown(wait=False, cancel_futures=True)
    for process in list(running):
      process.terminate()


def _child(function, item, share, connection):
  if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, share)
  try:
    result = ("done", function(item, lambda text: connection.send(("said", text))))
  except Exception as error:  # the parent raises it
    result = ("raised", error)
  connection.send(result)
