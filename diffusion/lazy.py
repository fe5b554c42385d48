"""Modules of a package that load when they are first asked for as its attributes."""

import importlib
from types import ModuleType


def names(package: str) -> list[str]:
  """The public modules and sub-packages in a package's folder, sorted; none of them is loaded.

  >>> names("diffusion.pictures")[:3]
  ['curves', 'grids', 'sheets']
  """
  import pkgutil

  path = importlib.import_module(package).__path__
  return sorted(module.name for module in pkgutil.iter_modules(path) if not module.name.startswith("_"))


def load(package: str, name: str) -> ModuleType:
  """The module `name` of a package, for the package's own `__getattr__`.

  Raises AttributeError, with the names that there are, if it has no such module.

  >>> load("diffusion", "pictures").__name__
  'diffusion.pictures'
  """
  if name.startswith("_") or name not in names(package):
    raise AttributeError(
      f"module '{package}' has no attribute {name!r}"
      + ("" if name.startswith("_") else f": its modules are {', '.join(names(package))}")
    )
  return importlib.import_module(f"{package}.{name}")
