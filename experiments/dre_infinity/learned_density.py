"""The density that a time score trained by `train.py` implies: log p_1 = log N(0, I) + log ratio, checked by
its mass and drawn."""

import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffusion import denoisers, density_ratio
from diffusion.data import load


def in_the_plane(
  run: Any, workdir: str, *, nodes: int = 32, points: int = 81, reach: float = 3.0
) -> dict[str, float]:
  """Mass on a grid of points^2 points in [-reach, reach]^2 (1 for a true density) and nats of held-out data;
  draws density.png.

  Args:
    run: of `opening.open_run`, with a field `time_score` on two-dimensional data and a path from N(0, I) to
      the data.
    workdir: the folder that gets the picture.
    nodes: of Gauss-Legendre quadrature in t.
    points, reach: the grid, in the units that the model sees.
  """
  line = np.linspace(-reach, reach, points)
  grid = np.stack(np.meshgrid(line, line, indexing="ij"), axis=-1).reshape(-1, 2)

  @jax.jit
  def log_density(x):
    ratio = density_ratio.log_ratio(
      denoisers.function_of(run.denoiser, "time_score"), run.parts.process, x, nodes=nodes
    )
    return ratio - 0.5 * jnp.sum(x**2, axis=1) - np.log(2.0 * np.pi).astype(np.float32)

  density = np.exp(np.asarray(log_density(jnp.asarray(grid, jnp.float32)), np.float64)).reshape(
    points, points
  )
  held = run.parts.dataset.scaling.to_model(np.asarray(load(run.parts.dataset.held_out, 2000)["x"]))
  draw(os.path.join(workdir, "density.png"), density, held, reach)
  return {
    "mass": float(density.sum() * (line[1] - line[0]) ** 2),
    "nats": float(-np.mean(np.asarray(log_density(jnp.asarray(held))))),
  }


def draw(path: str, density: np.ndarray, points: np.ndarray, reach: float) -> None:
  """The density beside the held-out points."""
  from matplotlib.figure import Figure

  from diffusion.pictures.sheets import write_figure

  figure = Figure(figsize=(8, 4), layout="constrained")
  left, right = figure.subplots(1, 2)
  left.imshow(density.T, origin="lower", extent=(-reach, reach, -reach, reach), cmap="magma", aspect="equal")
  left.set_title("learned density")
  right.scatter(*points.T, s=2, color="black", linewidths=0)
  right.set(title="held-out data", xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
  write_figure(path, figure)
