"""Ancestral sampling of discrete processes by the posterior of an earlier time."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from diffusion.solvers.about import About
from diffusion.solvers.contract import row_at
from diffusion.solvers.coordinate_step import CoordinateStep, discrete_grid


@struct.dataclass
class D3PMAncestral(CoordinateStep):
  """See `d3pm_ancestral`."""

  def chances(self, state: jax.Array, i: Any, prediction: Any) -> jax.Array:
    """p(x_s = k | x_t) of each coordinate: [B, ..., S]."""
    x, t = state, self.time(i, state)
    then = jnp.broadcast_to(row_at(self.t, i + 1, 0, t.dtype), t.shape)
    chances = self.process.posterior(prediction.probabilities.astype(jnp.float32), x, then, t)
    # The law of x_s sums to one where p(x_0 | x_t) does and all of it can have become x_t.
    total = jnp.sum(chances, axis=-1, keepdims=True)
    own = jax.nn.one_hot(x, chances.shape[-1], dtype=chances.dtype)
    return jnp.where(total > 0, chances / jnp.where(total > 0, total, 1.0), own)


def d3pm_ancestral(process: Any, grid: Any, *, dtype: Any = np.float32) -> D3PMAncestral:
  """Ancestral sampling of any discrete Markov chain: draws of p(x_s | x_t) (arXiv:2107.03006, eq. 4).

  Each coordinate is drawn from its posterior at the earlier time, the mean over p(x_0 | x_t) of
  q(x_s | x_t, x_0). That is the analytic step of SEDD ("Tweedie tau-leaping", arXiv:2310.16834, theorem 4.2)
  where the probabilities follow from its ratios, and of masks `masked_ancestral`. Exact for one coordinate on
  any grid; several that jump in one step are drawn independently, an error in law of order 1.

  Args:
    process: a discrete Markov chain, ladders of steps included.
    grid: [N+1] or [B, N+1] decreasing times, such as `process.default_grid(N)`.
    dtype: precision of the times.

  Returns:
    A solver of N evaluations of the view 'probabilities'.

  Raises:
    ValueError: a process that is no Markov chain, a grid that does not decrease.

  >>> from diffusion import processes
  >>> process = processes.uniform_resample(3, (4,))
  >>> str(d3pm_ancestral(process, process.default_grid(2)))
  'd3pm_ancestral: order 1, 2 evaluations, asks for probabilities'
  """
  t, to_data = discrete_grid("d3pm_ancestral", process, grid, dtype, "markov")
  return D3PMAncestral(t, process, About("d3pm_ancestral", 1, process), ("probabilities",), to_data)
