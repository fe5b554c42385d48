"""DDIM that asks the network at the time whose noise the state has: the time-shift sampler."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from diffusion.processes import expand
from diffusion.solvers import clock
from diffusion.solvers.about import About
from diffusion.solvers.contract import OnGrid, PostStep, finished, row_at
from diffusion.solvers.grid_nodes import nodes


@struct.dataclass
class State:
  """x: [B, ...] and the time [B] at which it is taken to be."""

  x: Any
  t: Any


@struct.dataclass
class TimeShift(OnGrid):
  """See `time_shift`. [...] is () or [B].

  Attributes:
    process: the process.
    t: [..., N+1] scheduled times.
    alpha, sigma: [..., N] where each step ends.
    window: width of the times searched.
    cutoff: scheduled time below which nothing is shifted.
    data_variance: variance of the data that is added to the noise's.
    candidates: times tried in the window.
    about: name, order and process.
  """

  process: Any
  t: Any
  alpha: Any
  sigma: Any
  window: Any
  cutoff: Any
  data_variance: Any
  candidates: int = struct.field(pytree_node=False)
  about: About = struct.field(pytree_node=False)

  stochastic: ClassVar[bool] = False
  views: ClassVar[tuple[str, ...]] = ("x0", "eps")

  def begin(self, x: jax.Array, keys: jax.Array | None) -> State:
    """The state at the first scheduled time."""
    del keys
    return State(x, clock.rows(x, row_at(self.t, 0, 0, x.dtype)))

  def ask(self, state: State, i: Any) -> tuple[jax.Array, jax.Array, tuple[str, ...]]:
    """x at its shifted time."""
    del i
    return state.x, state.t, self.views

  def tell(
    self, state: State, i: Any, prediction: Any, keys: jax.Array | None, post_step: PostStep | None = None
  ) -> State:
    """DDIM's step from the shifted time to the next scheduled one, which is then shifted."""
    x = state.x
    row = lambda leaf: expand(jnp.broadcast_to(row_at(leaf, i, 0, x.dtype), x.shape[:1]), x)
    x0, eps = prediction.x0.astype(x.dtype), prediction.eps.astype(x.dtype)
    t = self.time(i + 1, x)
    x = row(self.alpha) * x0 + row(self.sigma) * eps
    x = finished(post_step, x, t, keys, i + 1, prediction)
    return State(x, jnp.where(t > jnp.asarray(self.cutoff, x.dtype), self._shift(x, t), t))

  def _shift(self, x: jax.Array, t: jax.Array) -> jax.Array:
    """The time in the window around t whose marginal has the variance of each x: [B]."""
    number = lambda leaf: jnp.asarray(leaf, x.dtype)
    offsets = number(np.linspace(-0.5, 0.5, self.candidates))
    times = jnp.clip(
      t[:, None] + number(self.window) * offsets[None, :],
      number(self.process.t_min),
      number(self.process.t_max),
    )
    m = self.process.marginal(times)
    observed = jnp.var(x.reshape(x.shape[0], -1), axis=-1, ddof=1)[:, None]
    gap = jnp.abs(m.sigma**2 + m.alpha**2 * number(self.data_variance) - observed)
    return jnp.take_along_axis(times, jnp.argmin(gap, axis=-1)[:, None], axis=-1)[:, 0]

  def end(self, state: State) -> jax.Array:
    """The newest x: [B, ...]."""
    return state.x

  def __str__(self) -> str:
    return f"{self.name}: no order claimed, {self.cost} evaluations (process {self.about.process_name})"


def time_shift(
  process: Any,
  grid: Any,
  *,
  window: float,
  cutoff: float,
  data_variance: float = 0.0,
  candidates: int = 41,
  dtype: Any = np.float32,
) -> TimeShift:
  """TS-DDIM: DDIM whose times follow the noise of the state (arXiv:2305.15583, algorithm 2).

  After each step, the state is taken to be at the time near the scheduled one whose noise variance is that of
  its entries. The network is asked at that time, and the next step starts from it. It helps where sampled
  states have more variance than their time says; where they have less it does nothing good. The variance of
  all entries is that of the noise plus alpha^2 that of the data, which the paper leaves out, so it stops at a
  cutoff.

  Args:
    process: the Gaussian process.
    grid: [n+1] or [B, n+1] decreasing times.
    window: width in t of the times tried around the scheduled one; 20 to 80 of 1000 for 10 steps.
    cutoff: time below which the schedule is followed, above 0; 200 to 300 of 1000 for 10 steps.
    data_variance: variance of an example's entries; 0 in the paper.
    candidates: how many times are tried, an odd number to have the scheduled one among them.
    dtype: precision at run time.

  Raises:
    ValueError: a bad grid, a negative window or variance, a cutoff that is not positive, no candidates.

  >>> from diffusion import processes
  >>> print(time_shift(processes.vp_linear(), np.linspace(1, 0, 11), window=0.04, cutoff=0.2))
  time_shift(window=0.04, cutoff=0.2): no order claimed, 10 evaluations (process vp_linear)
  """
  if not window >= 0 or not cutoff > 0 or not data_variance >= 0 or candidates < 1:
    raise ValueError(
      "time_shift needs window >= 0, cutoff > 0, data_variance >= 0 and at least one candidate, got"
      f" window={window}, cutoff={cutoff}, data_variance={data_variance} and candidates={candidates}"
    )
  n = nodes(process, grid, dtype)
  about = About(f"time_shift(window={window:g}, cutoff={cutoff:g})", None, process)
  array = lambda leaf: np.asarray(leaf, dtype)
  return TimeShift(
    process,
    array(n.t),
    array(n.a1),
    array(n.s1),
    array(window),
    array(cutoff),
    array(data_variance),
    int(candidates),
    about,
  )
