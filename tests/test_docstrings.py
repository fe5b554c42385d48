"""Every example in a docstring runs, and the first line of a docstring of the package stands by itself."""

import ast
import doctest
import importlib
import pathlib
import pkgutil

import pytest

import diffusion
import experiments

MODULES = [
  name
  for package in (diffusion, experiments)
  for name in (
    package.__name__,
    *(module.name for module in pkgutil.walk_packages(package.__path__, package.__name__ + ".")),
  )
]
PACKAGE = pathlib.Path(diffusion.__path__[0])
FILES = sorted(path.relative_to(PACKAGE.parent).as_posix() for path in PACKAGE.rglob("*.py"))

# Modules whose examples train or compile for more than a second.
SLOW = {
  f"diffusion.{name}"
  for name in (
    "autoregressive.likelihood",
    "autoregressive.table",
    "export",
    "guidance.by_condition",
    "guidance.composition",
    "guidance.temperature",
    "likelihood.categorical",
    "losses.closing",
    "networks.concrete_score",
    "networks.energy",
    "networks.made",
    "networks.potential",
    "networks.second_order",
    "networks.token_mlp",
    "solvers.brownian",
    "solvers.fit",
    "solvers.svdd",
    "tasks.editing",
    "tasks.operators",
    "tasks.posterior_covariance",
  )
}


@pytest.mark.standard_promotion
@pytest.mark.parametrize(
  "name", [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in MODULES]
)
def test_examples_in_docstrings(name):
  module = importlib.import_module(name)
  failed, _ = doctest.testmod(module, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
  assert failed == 0


@pytest.mark.parametrize("file", FILES)
def test_first_line_of_docstrings_stands_by_itself(file):
  tree = ast.parse((PACKAGE.parent / file).read_text(encoding="utf-8"))
  documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
  running_on = []
  for node in ast.walk(tree):
    text = ast.get_docstring(node) if isinstance(node, documented) else None
    if text and any(line.strip() for line in text.split("\n")[1:2]):
      running_on.append(f"line {node.body[0].lineno}: {text.splitlines()[0]}")
  assert not running_on, "the first line runs on: end it, and put what it says besides below a blank line"
