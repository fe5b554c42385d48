"""Every example in a docstring of the package and of the experiments runs."""

import doctest
import importlib
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


@pytest.mark.standard_promotion
@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name):
  module = importlib.import_module(name)
  failed, _ = doctest.testmod(module, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
  assert failed == 0
