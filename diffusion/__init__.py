"""Score-based and diffusion models in JAX and Flax, as pure functions.

Subpackages load on first use, so that `import diffusion` costs nothing:

>>> import diffusion
>>> float(diffusion.processes.edm().marginal(2.0).sigma)
2.0
"""

import importlib

__version__ = "0.1.0"

_PARTS = (
  "data",
  "denoisers",
  "directional",
  "errors",
  "guidance",
  "likelihood",
  "losses",
  "metrics",
  "networks",
  "oracles",
  "processes",
  "solvers",
  "training",
)


def __getattr__(name):
  if name in _PARTS:
    return importlib.import_module(f"diffusion.{name}")
  raise AttributeError(f"module 'diffusion' has no attribute {name!r}: its parts are {', '.join(_PARTS)}")


def __dir__():
  return sorted([*globals(), *_PARTS])
