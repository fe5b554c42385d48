"""`sample.py --task=...`: images restored, edited, translated or classified.

Images go in and come out, by the parts of `diffusion.tasks`.
"""

from types import ModuleType

from diffusion import lazy


def __getattr__(name: str) -> ModuleType:
  return lazy.load(__name__, name)


def __dir__() -> list[str]:
  return sorted({*globals(), *lazy.names(__name__)})
