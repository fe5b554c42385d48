"""The digits, prepared once for all tests of this folder."""

import subprocess
import sys

import pytest

PROGRAM = """
import sys
from diffusion import data
heavy = {"grain", "tensorflow_datasets", "PIL", "sklearn", "tensorflow"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
stream = data.stream(data.digits(sys.argv[1]), 64, 0)
assert next(stream)["x"].shape == (64, 8, 8, 1)
assert "tensorflow" not in sys.modules
"""


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
  """Prepared by two programs at once, neither of which may import TensorFlow."""
  path = str(tmp_path_factory.mktemp("digits"))
  programs = [
    subprocess.Popen([sys.executable, "-c", PROGRAM, path], stderr=subprocess.PIPE, text=True)
    for _ in range(2)
  ]
  for program in programs:
    _, error = program.communicate(timeout=120)
    assert program.returncode == 0 and "Traceback" not in error, error
  return path
