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

# Modules whose examples train, or compile for half a second and more.
SLOW = {
  f"diffusion.{name}"
  for name in (
    "autoregressive.langevin",
    "autoregressive.likelihood",
    "autoregressive.sampling",
    "autoregressive.table",
    "denoisers.network",
    "export",
    "guidance.by_condition",
    "guidance.composition",
    "guidance.gradient_free",
    "guidance.temperature",
    "likelihood.categorical",
    "likelihood.dequantization",
    "likelihood.elbo",
    "losses.any_order",
    "losses.chain_bounds",
    "losses.closing",
    "losses.conditioning",
    "mcmc.annealed",
    "mcmc.langevin",
    "networks.attention",
    "networks.auto_encoder",
    "networks.concrete_score",
    "networks.dit",
    "networks.embedded_values",
    "networks.energy",
    "networks.made",
    "networks.mlp",
    "networks.potential",
    "networks.second_order",
    "networks.sequence_transformer",
    "networks.time_score",
    "networks.token_mlp",
    "oracles.categorical",
    "oracles.path_mixture",
    "solvers.brownian",
    "solvers.denoising_mcmc",
    "solvers.dpm_solver_adaptive",
    "solvers.fit",
    "solvers.reference",
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
