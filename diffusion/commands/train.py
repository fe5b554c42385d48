"""How a command ends: a mistake of the caller is one sentence on stderr and a status, never a traceback."""

import argparse
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn

from diffusion.config import factories
from diffusion.config.errors import UserError
from diffusion.run import distributed, interruption
from diffusion.run.saved import checkpoints


class Parser(argparse.ArgumentParser):
  """An argument parser whose mistakes are UserErrors with the closest flag named."""

  def error(self, message: str) -> NoReturn:
    """Raises the UserError of a mistake in the flags."""
    flags = [flag for action in self._actions for flag in action.option_strings]
    unknown = (
      message.removeprefix("unrecognized arguments: ").split()[0].split("=")[0]
      if message.startswith("unrecognized")
      else ""
    )
    raise UserError(f"{message}{factories.closest(unknown, flags)}; see --help")


def run(main: Callable[[list[str]], None], argv: list[str] | None = None) -> int:
  """Calls main(argv) and returns the exit status.

  0: done; 2: the caller can mend it (UserError, full disk); 143 or 130: stopped by SIGTERM or Ctrl-C after
  saving; 75: another process of the run is gone.
  Anything else is a bug here or in the caller's code and keeps its traceback.

  >>> def main(argv):
  ...   raise UserError("no such file")
  >>> run(main, [])
  2
  """
  status, with_all = 0, True
  try:
    main(sys.argv[1:] if argv is None else argv)
  except interruption.Stopped as stopped:
    print(" ".join(str(stopped).split()), file=sys.stderr)
    status, with_all = stopped.status, not stopped.alone
  except Exception as error:
    status, with_all = _failure(error), False
  return distributed.leave(status, with_all)


def _failure(error):
  """Says what went wrong; the exit status. A bug keeps its traceback."""
  if isinstance(error, UserError):
    print("error: " + " ".join(str(error).split()), file=sys.stderr)
  elif distributed.joined() and distributed.lost_another(error):
    return distributed.LOST
  elif isinstance(error, OSError) and checkpoints.disk_full(error):
    print(
      f"error: the disk is full ({error}); what was saved is kept; free some space and run the same command "
      "again",
      file=sys.stderr,
    )
  elif distributed.joined():  # the others must not wait for this one
    traceback.print_exception(error)
    return 1
  else:
    raise error
  return 2
