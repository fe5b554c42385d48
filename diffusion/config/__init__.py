"""A config as data, what its sections build, and the one error that a user sees."""

from types import ModuleType

from diffusion import lazy


def __getattr__(name: str) -> ModuleType:
  return lazy.load(__name__, name)


def __dir__() -> list[str]:
  return sorted({*globals(), *lazy.names(__name__)})
