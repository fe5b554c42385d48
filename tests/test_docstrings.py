"""Every example in a docstring of the package runs."""

import doctest
import importlib
import pkgutil

import pytest

import diffusion

MODULES = ["diffusion"] + [module.name for module in pkgutil.walk_packages(diffusion.__path__, "diffusion.")]


@pytest.mark.standard_promotion
@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name):
  module = importlib.import_module(name)
  failed, _ = doctest.testmod(module, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
  assert failed == 0
