"""What a task returns, and the words and ranges in which it says so."""

from collections.abc import Callable
from typing import Any, NamedTuple

from diffusion.commands.tasks.flags import MOST_ROWS, MOST_SAMPLES


class Outcome(NamedTuple):
  """What a task returns: words, arrays and a picture.

  words: what was done and what it cost; arrays: for the NPZ; draw: path -> None, writes the picture; shown:
  what of all that it holds, or nothing.
  """

  words: str
  arrays: dict[str, Any]
  draw: Callable[[str], None]
  shown: str = ""


def shown(
  images: int,
  results: int = 1,
  kind: str = "results",
  most_images: int = MOST_ROWS,
  most_results: int = MOST_SAMPLES,
) -> str:
  """In words, how many of the images and of the results for each a picture shows; nothing where it shows all.

  >>> shown(100, 64), shown(3, 64, "samples"), shown(3)
  ('the first 12 of 100 images, 6 of 64 results each', '6 of 64 samples each', '')
  """
  first = f"the first {most_images} of {images} images" if images > most_images else ""
  return ", ".join(
    filter(None, [first, f"{most_results} of {results} {kind} each" if results > most_results else ""])
  )


def counted(results: int, nfe: int, passes: float) -> str:
  """Denoiser calls of each result and of all of them, network evaluations where those are more."""
  more = f" ({passes:,} network evaluations with guidance)" if passes != nfe else ""
  return f"{nfe:,} denoiser calls a result{more}, {results * passes:,} network evaluations in all"
