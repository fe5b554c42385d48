"""The Python in the README and in docs/ runs, block after block."""

import os
import pathlib
import re
import socket
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


LONG = (
  "discrete.md",
  "estimators.md",
  "uses.md",
  "likelihood.md",
)  # two train, two compile a dozen programs; CI runs them by name
RUN = [
  pytest.param(page, marks=pytest.mark.slow if page.name in LONG else (), id=page.name) for page in PAGES
]


@pytest.mark.standard_promotion
@pytest.mark.parametrize("page", RUN)
def test_python_blocks_run(page):
  names = {}
  for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.S):
    exec(compile(block, str(page), "exec"), names)


@pytest.mark.slow
@pytest.mark.parametrize(
  "page, commands",
  [
    pytest.param(page, block, id=page.name)
    for page in PAGES
    for block in re.findall(r"<!-- run by the tests -->\n```bash\n(.*?)```", page.read_text(), re.S)
  ],
)
def test_marked_commands_run(page, commands, tmp_path):
  """Commands for one machine, with $RUN for the folder of the runs and $PORT for a free port."""
  with socket.socket() as free:
    free.bind(("localhost", 0))
    port = str(free.getsockname()[1])
  env = os.environ | dict(
    RUN=str(tmp_path),
    PORT=port,
    JAX_PLATFORMS="cpu",
    JAX_NUM_CPU_DEVICES="1",
    PATH=f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}",
  )
  done = subprocess.run(
    ["bash", "-euo", "pipefail", "-c", commands],
    cwd=ROOT,
    env=env,
    capture_output=True,
    text=True,
    timeout=280,
  )
  assert done.returncode == 0, done.stdout + done.stderr
  assert done.stdout.split()[-5:] == [
    *(f"{first:09d}-{min(first + 255, 999):09d}.npz" for first in range(0, 1000, 256)),
    "manifest.json",
  ]


@pytest.mark.parametrize(
  "page", [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"], ids=lambda p: p.name
)
def test_pages_name_files_that_exist(page):
  """Every path in back-ticks exists, from the root, in the package, or beside the page."""
  roots = (ROOT, ROOT / "diffusion", page.parent)
  for name in re.findall(r"`([\w./-]+\.(?:py|md|txt|cfg))(?::\w+)?`", page.read_text()):
    assert any((root / name).exists() for root in roots), name
