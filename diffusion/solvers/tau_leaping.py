"""Tau-leaping: rates that are held for a step, in which all jumps count at once."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from diffusion.solvers import randomness
from diffusion.solvers.about import About
from diffusion.solvers.coordinate_step import STATE, CoordinateStep, bounded, discrete_grid

MOST = 1e4  # jumps of one kind in a step that are told apart


@struct.dataclass
class TauLeaping(CoordinateStep):
  """See `tau_leaping`. ordinal: whether jumps add up as steps of ordered values."""

  ordinal: bool = struct.field(pytree_node=False, default=False)

  def chances(self, state: jax.Array, i: Any, prediction: Any) -> jax.Array:
    """Of values without an order: to jump where exactly one Poisson count is 1, else to stay: [B, ..., S]."""
    rates, dt = bounded(prediction.rates), self.length(i, state)
    total = jnp.sum(rates, axis=-1, keepdims=True)
    once = dt * rates * jnp.exp(-dt * total)
    own = jax.nn.one_hot(state, rates.shape[-1], dtype=rates.dtype)
    return self.at_data(i, once + own * (1.0 - jnp.sum(once, axis=-1, keepdims=True)), prediction)

  def drawn(self, state: jax.Array, i: Any, prediction: Any, keys: jax.Array) -> jax.Array:
    """A draw of each coordinate after step i: [B, ...]."""
    if not self.ordinal:
      return CoordinateStep.drawn(self, state, i, prediction, keys)
    mean = jnp.minimum(self.length(i, state) * bounded(prediction.rates), MOST)
    own = randomness.fold(keys, i + 1, STATE)
    counts = jax.vmap(lambda key, mean: jax.random.poisson(key, mean, dtype=jnp.int32))(own, mean)
    values = jnp.arange(mean.shape[-1], dtype=jnp.int32).reshape((1,) * state.ndim + (-1,))
    moved = state + jnp.sum(counts * (values - state[..., None].astype(jnp.int32)), axis=-1).astype(
      state.dtype
    )
    sizes = np.reshape(self.process.value_counts(), (1, *self.process.shape))
    moved = jnp.clip(moved, 0, jnp.asarray(sizes - 1, state.dtype))
    if not self.to_data:
      return moved
    clean = CoordinateStep.drawn(self, state, i, prediction, keys)
    return jnp.where(jnp.asarray(i) == self.num_steps - 1, clean, moved)


def tau_leaping(process: Any, grid: Any, *, ordinal: bool = False, dtype: Any = np.float32) -> TauLeaping:
  """Tau-leaping of the reverse chain (arXiv:2205.14987, section 4.3 and appendix on categorical data).

  For a step of dt the number of jumps of each coordinate to each value is Poisson with the mean rate dt. Of
  ordered values all jumps add up, x + sum (k - x) count, cut off at the ends. Values without an order jump
  where there is exactly one jump; two or more have no meaning and are refused. Of order 1. A last step to the
  data at t = 0 draws from p(x_0 | x_t). The analytic leap over a step, by the posterior, is
  `d3pm_ancestral`.

  Args:
    process: a discrete process with jump rates.
    grid: [N+1] or [B, N+1] decreasing times, along which dt times the rates is below one or so.
    ordinal: whether the values have an order, without a mask.
    dtype: precision of the times.

  Returns:
    A solver of N evaluations of the view 'rates' (and 'probabilities', where it ends at t = 0).

  Raises:
    ValueError: a process without jump rates, a grid that does not decrease, an order of values and a mask.

  >>> from diffusion import processes
  >>> tau_leaping(processes.uniform_resample(3, (4,)), [0.9, 0.5, 0.1], ordinal=True).name
  'tau_leaping(ordinal)'
  """
  t, to_data = discrete_grid("tau_leaping", process, grid, dtype, "jumps")
  if ordinal and process.mask is not None:
    raise ValueError(
      f"tau_leaping adds up jumps of ordered values, and the mask of '{process.name}' has no place among "
      "them: leave ordinal out"
    )
  views = ("rates", "probabilities") if to_data else ("rates",)
  about = About("tau_leaping(ordinal)" if ordinal else "tau_leaping", 1, process)
  return TauLeaping(t, process, about, views, to_data, ordinal)
