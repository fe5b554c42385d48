"""What `sample.py --task=...` does: images in, restored, edited, translated or classified images out, by the
parts of `diffusion.tasks`."""

from types import ModuleType

from diffusion import lazy


def __getattr__(name: str) -> ModuleType:
  return lazy.load(__name__, name)


def __dir__() -> list[str]:
  return sorted({*globals(), *lazy.names(__name__)})
