"""Score-based and diffusion models in JAX and Flax, as pure functions.

Sub-packages and modules load on first use, so that `import diffusion` costs nothing:

>>> import diffusion
>>> float(diffusion.processes.edm().marginal(2.0).sigma)
2.0
"""

from types import ModuleType

from diffusion import lazy

__version__ = "0.1.0"


def __getattr__(name: str) -> ModuleType:
  return lazy.load(__name__, name)


def __dir__() -> list[str]:
  return sorted({*globals(), *lazy.names(__name__)})
