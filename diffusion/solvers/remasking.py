"""Remasking: masks are taken out and put back, so that a value may be corrected."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from diffusion.solvers import randomness
from diffusion.solvers.about import About
from diffusion.solvers.contract import OnGrid, PostStep, finished, row_at
from diffusion.solvers.unmasking import check_grid, check_temperature, draw, is_masked, log_values

CATEGORY, JUMP = 0, 1  # purposes of a step's keys


@struct.dataclass
class Remasked:
  """Of B samples: x [B, ...] and which coordinates were given [B, D] bool."""

  x: Any
  given: Any


@struct.dataclass
class Remasking(OnGrid):
  """See `remasking`. [...] is () or [B].

  Attributes:
    t: [..., N+1] times.
    unmask: [..., N] probability that a masked coordinate is unmasked in each step.
    remask: [..., N] probability that another one is masked.
    temperature: of the draws, [].
    mask: [] the value that stands for masked.
    about: name, order and process.
  """

  t: Any
  unmask: Any
  remask: Any
  temperature: Any
  mask: Any
  about: About = struct.field(pytree_node=False)

  stochastic: ClassVar[bool] = True
  views: ClassVar[tuple[str, ...]] = ("logits",)
  acts_on: ClassVar[type] = np.integer

  def begin(self, x: jax.Array, keys: jax.Array | None) -> Remasked:
    """x: [B, ...] whole numbers, masked everywhere or in part; what is not masked is given, and stays."""
    del keys
    return Remasked(x, ~is_masked(x, self.mask))

  def ask(self, state: Remasked, i: Any) -> tuple[jax.Array, jax.Array, tuple[str, ...]]:
    """x at node i."""
    return state.x, self.time(i, state.x), self.views

  def tell(
    self, state: Remasked, i: Any, prediction: Any, keys: jax.Array, post_step: PostStep | None = None
  ) -> Remasked:
    """Masks become values of the posterior or stay, values become masks or stay, each by itself."""
    x, masked = state.x, is_masked(state.x, self.mask)
    log_p = log_values(prediction.logits, self.mask)
    value = draw(randomness.fold(keys, i + 1, CATEGORY), log_p, self.temperature).astype(x.dtype)
    uniform = jax.vmap(lambda key: jax.random.uniform(key, masked.shape[1:], jnp.float32))
    column = lambda leaf: jnp.broadcast_to(row_at(leaf, i, 0, jnp.float32), x.shape[:1])[:, None]
    probability = jnp.where(masked, column(self.unmask), column(self.remask))
    jumps = (uniform(randomness.fold(keys, i + 1, JUMP)) < probability) & ~state.given
    other = jnp.where(masked, value, jnp.asarray(self.mask, x.dtype))
    new = jnp.where(jumps, other, x.reshape(masked.shape)).reshape(x.shape)
    new = finished(post_step, new, self.time(i + 1, x), keys, i + 1, prediction)
    return Remasked(new, state.given)

  def end(self, state: Remasked) -> jax.Array:
    """The newest x: [B, ...]."""
    return state.x


def remasking(
  process: Any,
  grid: Any,
  *,
  rescale: float = 0.1,
  cap: float = 1.0,
  window: tuple[float, float] | None = None,
  hold: tuple[float, int] | None = None,
  temperature: Any = 1.0,
  dtype: Any = np.float32,
) -> Remasking:
  """Ancestral sampling that masks again what was unmasked (ReMDM, arXiv:2503.00307, eqs. 6 to 8).

  From t to s each value becomes a mask with probability sigma <= min(1, (1 - alpha_s) / alpha_t), and each
  mask a value of the posterior with probability (alpha_s - (1 - sigma) alpha_t) / (1 - alpha_t). At every
  node a coordinate is masked with probability 1 - alpha and otherwise has the law of the data, whatever sigma
  is, given the exact posterior; sigma = 0 is `masked_ancestral`. Coordinates that were given stay.

  Several coordinates that are unmasked in one step are drawn independently of one another. Masking again
  forgets such errors, and draws more at once, which makes new ones: of N steps, the error in law is of order
  1 where sigma is as small as a step (a cap of c / N), and of order 1/2 where it is a fixed part of its
  largest value. Of an exact posterior it gained nothing over `masked_ancestral` at equal calls where that was
  measured (`benchmarks/discrete.py`); what remasking corrects is a denoiser's own mistakes.

  Args:
    process: one that ends in masks, such as `processes.masked(16, (64,))`.
    grid: [N+1] or [B, N+1] decreasing times, such as `process.default_grid(N)`.
    rescale: sigma over its largest value (ReMDM-rescale), in [0, 1].
    cap: largest sigma (ReMDM-cap), in [0, 1]; ReMDM-cap alone has rescale=1.
    window: (low, high) times within which steps mask again (ReMDM-switch); None for all.
    hold: (t, M): M more steps that stay at the first node not above t and alone mask again (ReMDM-loop); None
      for none.
    temperature: of the draws; 0 takes the most probable value.
    dtype: precision of the times.

  Returns:
    A solver of N + M evaluations of the view "logits".

  Raises:
    ValueError: a process without masks, a grid that does not decrease, factors outside of [0, 1], an empty
      window, a time to hold at that is not within the grid.

  >>> from diffusion import processes
  >>> solver = remasking(processes.masked(3, (4,)), [1.0, 0.5, 0.25, 0.0], rescale=1.0)
  >>> solver.remask.tolist(), solver.unmask.tolist()
  ([1.0, 0.5, 0.0], [0.5, 1.0, 1.0])
  """
  check_grid("remasking", process, grid, dtype)
  check_temperature(temperature)
  for name, value in (("rescale", rescale), ("cap", cap)):
    if not 0 <= value <= 1:
      raise ValueError(f"{name} is within [0, 1], got {value}")
  if window is not None and not window[0] < window[1]:
    raise ValueError(f"the window of remasking is (low, high) times with low < high, got {tuple(window)}")
  t = np.asarray(grid, np.float64)
  held = np.zeros(t.shape[-1] - 1, bool)
  if hold is not None:
    t, held = _held(t, *hold)
  noised = np.broadcast_to(np.asarray(process.level(t), np.float64), t.shape)
  before, after = noised[..., :-1], noised[..., 1:]
  most = np.minimum(1.0, np.divide(after, 1 - before, out=np.ones_like(after), where=after < 1 - before))
  sigma = np.minimum(rescale * most, cap)
  if hold is not None:
    sigma = np.where(held, sigma, 0.0)
  if window is not None:
    sigma = np.where((t[..., :-1] <= window[1]) & (t[..., 1:] >= window[0]), sigma, 0.0)
  unmask = np.clip((before - after + sigma * (1 - before)) / before, 0.0, 1.0)
  single = lambda array: array.astype(np.float32)
  return Remasking(
    t.astype(dtype),
    single(unmask),
    single(sigma),
    np.float32(temperature),
    np.int32(process.mask),
    About("remasking", None, process),
  )


def _held(t, at, steps):
  """The grid with more steps at one of its nodes, and which steps those are."""
  if t.ndim != 1:
    raise ValueError("remasking holds one grid for all samples: give times [N+1], or leave out hold")
  if int(steps) != steps or steps < 1:
    raise ValueError(f"hold is (time, steps) with a whole number of steps of at least 1, got {(at, steps)}")
  inside = np.flatnonzero(t[1:-1] <= at) + 1
  if not t[0] > at or not len(inside):
    raise ValueError(
      f"the time to hold at lies within the grid, above its last node but one, got {at} for {t.tolist()}"
    )
  node = inside[0]
  t = np.concatenate([t[: node + 1], np.full(int(steps), t[node]), t[node + 1 :]])
  held = np.zeros(len(t) - 1, bool)
  held[node : node + int(steps)] = True
  return t, held
