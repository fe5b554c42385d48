"""Pictures of samples, trajectories and losses.

Matplotlib is imported when one is drawn; no global state (pyplot) is touched.
"""

from diffusion.pictures.curves import loss_curve, scatter2d
from diffusion.pictures.grids import image_grid, sample_grid, trajectory
from diffusion.pictures.show import as_items, plain_sheet, show
from diffusion.pictures.side_by_side import Column, class_bars, heat, side_by_side, unmeasured
from diffusion.pictures.vectors import histogram, pairs

__all__ = [
  "Column",
  "as_items",
  "class_bars",
  "heat",
  "histogram",
  "image_grid",
  "loss_curve",
  "pairs",
  "plain_sheet",
  "sample_grid",
  "scatter2d",
  "show",
  "side_by_side",
  "trajectory",
  "unmeasured",
]
