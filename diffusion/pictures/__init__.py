"""Pictures of samples, trajectories and losses.

Matplotlib is imported when one is drawn; no global state (pyplot) is touched.
"""

from diffusion.pictures.curves import loss_curve, scatter2d
from diffusion.pictures.grids import image_grid, sample_grid, trajectory
from diffusion.pictures.side_by_side import Column, class_bars, heat, side_by_side, unmeasured

__all__ = [
  "Column",
  "class_bars",
  "heat",
  "image_grid",
  "loss_curve",
  "sample_grid",
  "scatter2d",
  "side_by_side",
  "trajectory",
  "unmeasured",
]
