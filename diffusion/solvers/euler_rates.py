"""Euler's rule for jumps: rates that are held for a step."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from diffusion.solvers.about import About
from diffusion.solvers.coordinate_step import CoordinateStep, bounded, discrete_grid


@struct.dataclass
class EulerRates(CoordinateStep):
  """See `euler_rates`."""

  def chances(self, state: jax.Array, i: Any, prediction: Any) -> jax.Array:
    """To stay with probability exp(-dt sum of rates), else to go where the rates say: [B, ..., S]."""
    return self.at_data(i, jumped(state, bounded(prediction.rates), self.length(i, state)), prediction)


def jumped(x: jax.Array, rates: jax.Array, dt: jax.Array) -> jax.Array:
  """The law of each coordinate that jumps at most once in dt at rates [B, ..., S]: [B, ..., S].

  It jumps with probability 1 - exp(-dt sum of rates), to each state in proportion to its rate.
  """
  total = jnp.sum(rates, axis=-1, keepdims=True)
  share = rates / jnp.where(total > 0, total, 1.0)
  own = jax.nn.one_hot(x, rates.shape[-1], dtype=rates.dtype)
  return jnp.exp(-dt * total) * own - jnp.expm1(-dt * total) * share


def euler_rates(process: Any, grid: Any, *, dtype: Any = np.float32) -> EulerRates:
  """Euler's method on the reverse jump rates (arXiv:2310.16834, section 4.2; 2407.15595, eq. 11).

  In a step of dt each coordinate jumps with probability 1 - exp(-dt sum of its rates), to each state in
  proportion to its rate. Of order 1. A last step to the data at t = 0 draws from p(x_0 | x_t), so that
  nothing of the noise is left. Where noise forgets all at t_max, rates have no bound there: a grid that
  starts a little below, or a schedule such as `processes.log_linear_keep()`, spends no step on it.

  Args:
    process: a discrete process with jump rates.
    grid: [N+1] or [B, N+1] decreasing times.
    dtype: precision of the times.

  Returns:
    A solver of N evaluations of the view 'rates' (and 'probabilities', where it ends at t = 0).

  Raises:
    ValueError: a process without jump rates, a grid that does not decrease.

  >>> from diffusion import processes
  >>> str(euler_rates(processes.uniform_resample(3, (4,)), [0.9, 0.5, 0.1]))
  'euler_rates: order 1, 2 evaluations, asks for rates'
  """
  t, to_data = discrete_grid("euler_rates", process, grid, dtype, "jumps")
  views = ("rates", "probabilities") if to_data else ("rates",)
  return EulerRates(t, process, About("euler_rates", 1, process), views, to_data)
