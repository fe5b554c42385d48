"""The Python in the README and in docs/ runs, block after block."""

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


LONG = ("estimators.md", "uses.md", "likelihood.md")  # one trains, two compile a dozen programs; CI runs them by name
RUN = [pytest.param(page, marks=pytest.mark.slow if page.name in LONG else (), id=page.name) for page in PAGES]


@pytest.mark.standard_promotion
@pytest.mark.parametrize("page", RUN)
def test_python_blocks_run(page):
  names = {}
  for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.S):
    exec(compile(block, str(page), "exec"), names)  # pylint: disable=exec-used


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_pages_name_files_that_exist(page):
  """Every path in back-ticks exists, from the root, in the package, or beside the page."""
  roots = (ROOT, ROOT / "diffusion", page.parent)
  for name in re.findall(r"`([\w./-]+\.(?:py|md|txt|cfg))(?::\w+)?`", page.read_text()):
    assert any((root / name).exists() for root in roots), name
