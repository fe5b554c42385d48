"""A network that knows the steps it was trained at and nothing between them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from diffusion.denoisers import Parameterization


@struct.dataclass
class NearestLevel(Parameterization):
  """A network that was trained at whole steps alone and is told the one whose noise level is nearest.

  Between levels, it is the nearest sigma, not the nearest time. (The original takes distances by a matrix
  product in float32: up to a twentieth of the way from a middle between two levels it may say the other.)

  >>> from diffusion import processes
  >>> ladder = processes.vp_ladder([0.1, 0.2, 0.4, 0.6])
  >>> told = NearestLevel(1.0, 1.0, -1.0, "eps", "t", ladder.level(np.arange(5) / 4))
  >>> told.clock(ladder, jnp.array([0.26, 0.74])).tolist(), told.snap(ladder, [0.98, 0.26]).round(6).tolist()
  ([0.0, 2.0], [1.0, 0.25])

  Attributes:
    levels: sigma_i / alpha_i of the steps i = 0, 1, ..., ascending; the network is told i - 1.
  """

  levels: Any

  def clock(self, process: Any, t: jax.Array) -> jax.Array:
    """The step that is nearest, less one: [B]."""
    nearest = self._nearest(process.level(t), jnp).astype(t.dtype)
    return self.time_scale * nearest + self.time_shift

  def snap(self, process: Any, grid: Any) -> np.ndarray:
    """The times at which the network was trained that are nearest to those of a grid, float64.

    EDM's sampler visits these alone.
    """
    levels = np.asarray(process.level(np.asarray(grid, np.float64)))
    return np.asarray(process.t_of_level(np.asarray(self.levels, np.float64)[self._nearest(levels, np)]))

  def _nearest(self, level, xp):
    return xp.argmin(xp.abs(level[:, None] - xp.asarray(self.levels, level.dtype)[None, :]), axis=1)
