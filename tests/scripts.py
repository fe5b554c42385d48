"""The commands at the root, called as a shell would call them."""

import contextlib
import importlib.util
import io
import pathlib
from types import ModuleType

from diffusion.commands import train as command

ROOT = pathlib.Path(__file__).parents[1]


def module(name: str) -> ModuleType:
  """train.py, sample.py or another script at the root, as a module."""
  spec = importlib.util.spec_from_file_location(name, ROOT / f"{name}.py")
  found = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(found)
  return found


def sample(*flags: object) -> tuple[int, str, str]:
  """(exit status, stdout, stderr) of sample.py, without a bar."""
  out, err = io.StringIO(), io.StringIO()
  with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
    status = command.run(module("sample").main, [*map(str, flags), "--quiet"])
  return status, out.getvalue(), err.getvalue()
