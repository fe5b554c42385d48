"""The predictor-corrector of discrete flow matching: backward and forward jumps in one step."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from diffusion.solvers.about import About
from diffusion.solvers.contract import PostStep, finished, row_at
from diffusion.solvers.coordinate_step import CoordinateStep, bounded, check_states, discrete_grid
from diffusion.solvers.euler_rates import jumped


@struct.dataclass
class Given:
  """x [B, ...] and which coordinates were given at the start and stay: [B, ...] bool."""

  x: Any
  given: Any


@struct.dataclass
class FlowCorrector(CoordinateStep):
  """See `flow_predictor_corrector`. noise: [..., N] how much of the forward rates is put in at each step."""

  noise: Any

  def begin(self, x: jax.Array, keys: jax.Array | None) -> Given:
    """x: [B, ...] whole numbers; those that are not masked, where there is a mask, are given."""
    del keys
    check_states(self.name, self.process, x)
    if self.process.mask is None:
      return Given(x, jnp.zeros(x.shape, bool))
    return Given(x, x != jnp.asarray(self.process.mask, x.dtype))

  def chances(self, state: Given, i: Any, prediction: Any) -> jax.Array:
    """Euler's step by (1 + noise) times the reverse rates and noise times the forward ones: [B, ..., S]."""
    x, share = state.x, row_at(self.noise, i, 0, jnp.float32)
    share = jnp.broadcast_to(share, x.shape[:1]).reshape((-1,) + (1,) * x.ndim)
    forth = bounded(self.process.outflow(x, self.time(i, x)))
    forth = jnp.where(state.given[..., None] | (share == 0), 0.0, share * forth)
    rates = (1.0 + share) * bounded(prediction.rates) + forth
    return self.at_data(i, jumped(x, rates, self.length(i, x)), prediction)

  def tell(
    self, state: Given, i: Any, prediction: Any, keys: jax.Array, post_step: PostStep | None = None
  ) -> Given:
    """Every coordinate is drawn from its chances, independently."""
    x = self.drawn(state, i, prediction, keys)
    return Given(finished(post_step, x, self.time(i + 1, x), keys, i + 1, prediction), state.given)

  def end(self, state: Given) -> jax.Array:
    """The newest x: [B, ...]."""
    return state.x


def flow_predictor_corrector(
  process: Any, grid: Any, *, stochasticity: float = 1.0, dtype: Any = np.float32
) -> FlowCorrector:
  """Euler's method on reverse rates with forward jumps put in (arXiv:2407.15595, eq. 22 to 24).

  For any noise >= 0, jumps at (1 + noise) times the reverse rates and at noise times the forward ones have
  the law p_t: a coordinate that was wrong may leave again. noise is stochasticity * 2 sqrt(u (1 - u)) at the
  share u of the way from t_max, so that none is put in at both ends. Of order 1; with stochasticity 0 it is
  `euler_rates`. Coordinates that were not masked at the start, where there are masks, stay.

  Args:
    process: a discrete process with jump rates.
    grid: [N+1] or [B, N+1] decreasing times.
    stochasticity: the largest noise, on the middle of the way.
    dtype: precision of the times.

  Returns:
    A solver of N evaluations of the view 'rates' (and 'probabilities', where it ends at t = 0).

  Raises:
    ValueError: a process without jump rates, a grid that does not decrease, a stochasticity below 0.

  >>> from diffusion import processes
  >>> process = processes.masked(3, (4,))
  >>> flow_predictor_corrector(process, [1.0, 0.5, 0.0], stochasticity=2.0).noise.tolist()
  [0.0, 2.0]
  """
  t, to_data = discrete_grid("flow_predictor_corrector", process, grid, dtype, "jumps")
  if not stochasticity >= 0:
    raise ValueError(f"flow_predictor_corrector takes a stochasticity of 0 or above, got {stochasticity}")
  share = np.clip(np.asarray(t, np.float64)[..., :-1] / float(process.t_max), 0.0, 1.0)
  noise = (2.0 * stochasticity * np.sqrt(share * (1.0 - share))).astype(np.float32)
  views = ("rates", "probabilities") if to_data else ("rates",)
  about = About(f"flow_predictor_corrector({stochasticity:g})", 1, process)
  return FlowCorrector(t, process, about, views, to_data, noise)
