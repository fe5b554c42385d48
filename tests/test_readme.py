"""The Python in the README and in docs/ runs, block after block."""

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.standard_promotion
@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_python_blocks_run(page):
  names = {}
  for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.S):
    exec(compile(block, str(page), "exec"), names)  # pylint: disable=exec-used


def test_readme_names_files_that_exist():
  text = (ROOT / "README.md").read_text()
  for name in re.findall(r"`((?:configs|benchmarks|docs)/[\w/.]+\.(?:py|md))", text):
    assert (ROOT / name).exists(), name
