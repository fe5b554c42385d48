"""How a command ends: a mistake of the caller is one sentence on stderr and a status, never a traceback."""

import argparse
import sys
from collections.abc import Callable

from diffusion import configuration
from diffusion.errors import UserError
from diffusion.training import checkpoints, interruption


class Parser(argparse.ArgumentParser):
  """An argument parser whose mistakes are UserErrors with the closest flag named."""

  def error(self, message):
    flags = [flag for action in self._actions for flag in action.option_strings]
    unknown = message.removeprefix("unrecognized arguments: ").split()[0].split("=")[0] if message.startswith("unrecognized") else ""
    raise UserError(f"{message}{configuration.closest(unknown, flags)}; see --help")


def run(main: Callable[[list[str]], None], argv=None) -> int:
  """Calls main(argv) and returns the exit status.

  0: done; 2: the caller can mend it (UserError, full disk); 143 or 130: stopped by SIGTERM or Ctrl-C after saving.
  Anything else is a bug here or in the caller's code and keeps its traceback.

  >>> def main(argv):
  ...   raise UserError("no such file")
  >>> run(main, [])
  2
  """
  try:
    main(sys.argv[1:] if argv is None else argv)
    return 0
  except UserError as error:
    print("error: " + " ".join(str(error).split()), file=sys.stderr)
    return 2
  except interruption.Stopped as stopped:
    print(" ".join(str(stopped).split()), file=sys.stderr)
    return stopped.status
  except OSError as error:
    if not checkpoints.disk_full(error):
      raise
    print(f"error: the disk is full ({error}); what was saved is kept; free some space and run the same command again", file=sys.stderr)
    return 2
