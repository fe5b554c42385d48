"""A sentence that a process leaves behind, said for it if it does not end by itself."""

import os
import subprocess


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
