"""Formats of weight files, one module a format, each with its layout.

What a file says becomes names, arrays that are not yet read, and plain data.
"""

from types import ModuleType

from diffusion import lazy


def __getattr__(name: str) -> ModuleType:
  return lazy.load(__name__, name)


def __dir__() -> list[str]:
  return sorted({*globals(), *lazy.names(__name__)})
