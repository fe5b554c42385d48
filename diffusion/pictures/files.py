"""Writing a picture: whole or not at all."""

import os
import pathlib
import tempfile
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from diffusion.errors import UserError

if TYPE_CHECKING:
  from matplotlib.figure import Figure


def write(path: str | os.PathLike[str], save: Callable[[str], Any]) -> None:
  """Calls save(temporary path), then moves the file to `path` in one step, so that no reader ever sees half a
  picture.

  Raises UserError where the directory is missing or the file cannot be written; a picture that was there
  before then stays.

  >>> write("/no/such/folder/a.png", lambda temporary: None)
  Traceback (most recent call last):
  ...
  diffusion.errors.UserError: cannot write /no/such/folder/a.png: the directory /no/such/folder does
  not exist; create it or name another path
  """
  path = pathlib.Path(path)
  if not path.parent.is_dir():
    raise UserError(
      f"cannot write {path}: the directory {path.parent} does not exist; create it or name another path"
    )
  try:
    handle, temporary = tempfile.mkstemp(
      dir=path.parent, prefix=f".{path.stem}.", suffix=path.suffix or ".png"
    )
    os.close(handle)
    try:
      save(temporary)
      os.chmod(temporary, 0o644)  # mkstemp's files are private, pictures are not
      os.replace(temporary, path)
    except BaseException:
      os.unlink(temporary)
      raise
  except OSError as error:
    raise UserError(
      f"cannot write {path}: {error.strerror or error}; free some space or name another path"
    ) from error


def write_figure(path: str | os.PathLike[str], figure: "Figure") -> None:
  """Writes a matplotlib Figure as PNG."""
  write(path, lambda temporary: figure.savefig(temporary, format="png", facecolor="white"))
