"""What the command line chose for a task: the class it is conditional on, the grid of times, the solver."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from diffusion import solvers
from diffusion.config.errors import UserError
from diffusion.config.factories import closest
from diffusion.data.dataset import Dataset
from diffusion.run.opened import Opened
from diffusion.run.opening import class_of, make_sampler


def given_label(label: str | int | None, dataset: Dataset) -> int | None:
  """The class that --label names, -1 (no class) without it, None for data without classes."""
  if label is not None:
    return class_of(dataset, label)
  return -1 if dataset.num_classes else None


def condition(label: ArrayLike | None, position: jax.Array) -> dict[str, jax.Array] | None:
  """The condition {'label': [B]} of images that are told their class.

  The label is one class for all or one an image [N], taken at the images' positions [B]. None for None.
  """
  if label is None:
    return None
  label = jnp.asarray(label, jnp.int32)
  return {"label": label[position] if label.ndim else jnp.full(position.shape, label)}


def guided(run: Opened, sampler: dict[str, Any]) -> Any:
  """A run's denoiser, guided if that was asked for: not by the config, whose guidance is for samples."""
  return make_sampler(
    run, solver="ddim", steps=2, guidance=sampler["guidance"] or 0.0, interval=sampler["interval"]
  )[0]


def check_grid(name: str | None) -> None:
  """Raises UserError for the name of no spacing; None is the solver's own."""
  if name not in (None, *solvers.GRIDS):
    raise UserError(
      f"--grid={name} is not known{closest(name, solvers.GRIDS)}: choose one of {', '.join(solvers.GRIDS)}"
    )


def check_table(solver: Any, name: str, task: str) -> None:
  """Raises UserError for a solver that is not a table of a fixed number of steps from noise to data."""
  if not isinstance(solver, solvers.Table):
    raise UserError(
      f"--task={task} needs a solver that is one table, such as dpmpp_2m_sde, ancestral or heun, and {name} "
      "is none: choose one of these"
    )
