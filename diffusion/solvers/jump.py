"""Jumps between categories: from masks to whole numbers, where each coordinate is masked by itself."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from diffusion.solvers import randomness
from diffusion.solvers.about import About
from diffusion.solvers.contract import OnGrid, PostStep, finished, row_at

UNMASK, CATEGORY = 0, 1  # purposes of a step's keys


@struct.dataclass
class MaskedAncestral(OnGrid):
  """See `masked_ancestral`. [...] is () or [B].

  Attributes:
    t: [..., N+1] times.
    unmask: [..., N] probability that a masked coordinate is unmasked in each step.
    mask: [] the value that stands for masked.
    about: name, order and process.
  """

  t: Any
  unmask: Any
  mask: Any
  about: About = struct.field(pytree_node=False)

  stochastic = True
  views = ("logits",)
  acts_on = np.integer

  def begin(self, x: jax.Array, keys: jax.Array | None) -> jax.Array:
    """x: [B, ...] whole numbers, masked everywhere or in part."""
    del keys
    return x

  def ask(self, state: jax.Array, i: Any) -> tuple[jax.Array, jax.Array, tuple[str, ...]]:
    """x at node i."""
    return state, self.time(i, state), self.views

  def tell(
    self, state: jax.Array, i: Any, prediction: Any, keys: jax.Array, post_step: PostStep | None = None
  ) -> jax.Array:
    """Each masked coordinate jumps to a category or stays, independently; the others stay."""
    x, logits = state, prediction.logits.astype(jnp.float32)
    mask = jnp.asarray(self.mask, x.dtype)
    # Where the mask is one of the categories, it is not one of the data's.
    logits = jnp.where(jnp.arange(logits.shape[-1]) == mask.astype(jnp.int32), -jnp.inf, logits)
    draw = lambda key, logits: jax.random.categorical(key, logits, mode="high")
    category = jax.vmap(draw)(randomness.fold(keys, i + 1, CATEGORY), logits).astype(x.dtype)
    uniform = jax.vmap(lambda key: jax.random.uniform(key, x.shape[1:], jnp.float32))
    probability = row_at(self.unmask, i, 0, jnp.float32)
    probability = probability.reshape(probability.shape + (1,) * (x.ndim - probability.ndim))
    jumps = (x == mask) & (uniform(randomness.fold(keys, i + 1, UNMASK)) < probability)
    return finished(post_step, jnp.where(jumps, category, x), self.time(i + 1, x), keys, i + 1, prediction)

  def end(self, state: jax.Array) -> jax.Array:
    """The newest x: [B, ...]."""
    return state

  def __str__(self) -> str:
    return f"{self.name}: order {self.order}, {self.cost} evaluations, asks for logits"


def masked_ancestral(process: Any, grid: Any, *, dtype: Any = np.float32) -> MaskedAncestral:
  """Ancestral sampling of masked whole numbers: from t to s each masked coordinate is unmasked with
  probability (alpha_s - alpha_t) / (1 - alpha_t), to a category of the posterior softmax(logits)
  (arXiv:2406.07524, eq. 7).

  That is the reverse of masking with probability 1 - alpha_t, given the posterior of each coordinate. It is
  exact for one coordinate, whatever the grid. Several that are unmasked in one step are drawn independently
  of one another, an error in law of order 1 in the length of the step. Coordinates that are not masked stay,
  so an x that is masked in part is filled in.

  Args:
    process: one that ends in masks, such as `processes.masked(16, (64,))`; 1 - alpha is its level.
    grid: [N+1] or [B, N+1] decreasing times, such as `process.default_grid(N)`. Where the last is t = 0,
      nothing stays masked.
    dtype: precision of the times.

  Returns:
    A solver of N evaluations of the view "logits": [B, ..., K] over categories 0 to K - 1. A category equal
    to the mask is left out.

  Raises:
    ValueError: a process without masks, a grid that does not decrease, or along which the probability of the
      mask does not fall from above 0.

  >>> from diffusion import processes
  >>> solver = masked_ancestral(processes.masked(3, (4,)), [1.0, 0.5, 0.0])
  >>> solver.unmask.tolist(), solver.cost, str(solver)
  ([0.5, 1.0], 2, 'masked_ancestral: order 1, 2 evaluations, asks for logits')
  """
  if process.ends[1] != "mask":
    raise ValueError(
      f"masked_ancestral takes out masks, and '{process.name}' ends in '{process.ends[1]}': it needs a "
      "process that ends in masks, such as processes.masked(16, (64,))"
    )
  t = np.asarray(grid, dtype)
  if t.ndim not in (1, 2) or t.shape[-1] < 2 or not np.all(np.diff(t, axis=-1) < 0):
    raise ValueError(
      f"a grid is [N+1] or [B, N+1] times that strictly decrease, N at least 1, got {t.tolist()}"
    )
  noised = np.broadcast_to(np.asarray(process.level(t.astype(np.float64)), np.float64), t.shape)
  falls = np.all(np.diff(noised, axis=-1) <= 0) and np.all(noised >= 0) and np.all(noised <= 1)
  if not falls or not np.all(noised[..., :-1] > 0):
    raise ValueError(
      "the level of a process with masks is the probability that a coordinate is masked: along the grid it "
      f"falls from at most 1 and is above 0 before the last time, got {noised.tolist()}"
    )
  unmask = 1.0 - noised[..., 1:] / noised[..., :-1]
  about = About("masked_ancestral", 1, process)
  return MaskedAncestral(t, unmask.astype(np.float32), np.int32(process.mask), about)
