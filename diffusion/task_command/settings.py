"""Settings that all tasks share.

What they return, the class they are conditional on, and the words for what it cost.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from diffusion import solvers
from diffusion.configuration import closest
from diffusion.errors import UserError
from diffusion.saved_run import class_of
from diffusion.task_command.flags import MOST_ROWS, MOST_SAMPLES


class Found(NamedTuple):
  """words: what was done and what it cost; arrays: for the NPZ; draw: path -> None, writes the picture;
  shown: what of all that it holds, or nothing."""

  words: str
  arrays: dict
  draw: Callable
  shown: str = ""


def shown(images, results=1, kind="results", most_images=MOST_ROWS, most_results=MOST_SAMPLES):
  """In words, how many of the images and of the results for each a picture shows; nothing where it shows all.

  >>> shown(100, 64), shown(3, 64, "samples"), shown(3)
  ('the first 12 of 100 images, 6 of 64 results each', '6 of 64 samples each', '')
  """
  images = f"the first {most_images} of {images} images" if images > most_images else ""
  return ", ".join(
    filter(None, [images, f"{most_results} of {results} {kind} each" if results > most_results else ""])
  )


def given_label(label, dataset):
  """The class that --label names, -1 (no class) without it, None for data without classes."""
  if label is not None:
    return class_of(dataset, label)
  return -1 if dataset.num_classes else None


def condition(label, position):
  """{'label': [B]} of one class for all or of one an image [N], at the images' positions [B]; None for
  None."""
  if label is None:
    return None
  label = jnp.asarray(label, jnp.int32)
  return {"label": label[position] if label.ndim else jnp.full(position.shape, label)}


def check_grid(name):
  """Raises UserError for the name of no spacing; None is the solver's own."""
  if name not in (None, *solvers.GRIDS):
    raise UserError(
      f"--grid={name} is not known{closest(name, solvers.GRIDS)}: choose one of {', '.join(solvers.GRIDS)}"
    )


def table_of(solver, name, task):
  """Raises UserError for a solver that is not a table of a fixed number of steps from noise to data."""
  if not isinstance(solver, solvers.Table):
    raise UserError(
      f"--task={task} needs a solver that is one table, such as dpmpp_2m_sde, ancestral or heun, and {name} "
      "is none: choose one of these"
    )


def counted(results, nfe, passes) -> str:
  """Denoiser calls of each result and of all of them, network evaluations where those are more."""
  more = f" ({passes:,} network evaluations with guidance)" if passes != nfe else ""
  return f"{nfe:,} denoiser calls a result{more}, {results * passes:,} network evaluations in all"


def span(dataset, stored):
  """(black, white) in the data's values."""
  levels = getattr(dataset.scaling, "levels", None)
  return (0, levels - 1) if levels is not None else (float(np.min(stored)), float(np.max(stored)))
