"""Unmasking of the coordinates that the denoiser is surest of, so many a call."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from diffusion.solvers import randomness
from diffusion.solvers.about import About
from diffusion.solvers.contract import OnGrid, PostStep, finished, row_at
from diffusion.solvers.unmasking import (
  check_confidence,
  check_grid,
  check_temperature,
  confidence,
  draw,
  first,
  is_masked,
  left,
  log_values,
)

CATEGORY, SCORE, NOISE = 0, 1, 4  # purposes of a step's keys


@struct.dataclass
class Unmasked:
  """Of B samples: x [B, ...] and how many masks each began with [B] int32."""

  x: Any
  masks: Any


@struct.dataclass
class ConfidenceUnmasking(OnGrid):
  """See `confidence_unmasking`. [...] is () or [B].

  Attributes:
    t: [..., N+1] times.
    share: [..., N] of the masks at the start that are left after each step.
    temperature: of the draws, [].
    noise: factor of the Gumbel noise in the confidence, [].
    mask: [] the value that stands for masked.
    rule: of the confidence.
    about: name, order and process.
  """

  t: Any
  share: Any
  temperature: Any
  noise: Any
  mask: Any
  rule: str = struct.field(pytree_node=False)
  about: About = struct.field(pytree_node=False)

  stochastic: ClassVar[bool] = True
  views: ClassVar[tuple[str, ...]] = ("logits",)
  acts_on: ClassVar[type] = np.integer

  def begin(self, x: jax.Array, keys: jax.Array | None) -> Unmasked:
    """x: [B, ...] whole numbers, masked everywhere or in part."""
    del keys
    return Unmasked(x, jnp.sum(is_masked(x, self.mask), axis=1).astype(jnp.int32))

  def ask(self, state: Unmasked, i: Any) -> tuple[jax.Array, jax.Array, tuple[str, ...]]:
    """x at node i."""
    return state.x, self.time(i, state.x), self.views

  def tell(
    self, state: Unmasked, i: Any, prediction: Any, keys: jax.Array, post_step: PostStep | None = None
  ) -> Unmasked:
    """The surest of the masked coordinates become values of the posterior; the others stay."""
    x, masked = state.x, is_masked(state.x, self.mask)
    log_p = log_values(prediction.logits, self.mask)
    value = draw(randomness.fold(keys, i + 1, CATEGORY), log_p, self.temperature)
    score = confidence(self.rule, log_p, value, randomness.fold(keys, i + 1, SCORE))
    share = jnp.broadcast_to(row_at(self.share, i, 0, jnp.float32), state.masks.shape)
    gumbel = jax.vmap(lambda key: jax.random.gumbel(key, score.shape[1:], jnp.float32, mode="high"))
    noise = jnp.asarray(self.noise, jnp.float32) * share
    score = score + noise[:, None] * gumbel(randomness.fold(keys, i + 1, NOISE))
    now = jnp.sum(masked, axis=1).astype(jnp.int32)
    chosen = first(score, masked, now - left(state.masks, share))
    new = jnp.where(chosen, value.astype(x.dtype), x.reshape(chosen.shape)).reshape(x.shape)
    new = finished(post_step, new, self.time(i + 1, x), keys, i + 1, prediction)
    return Unmasked(new, state.masks)

  def end(self, state: Unmasked) -> jax.Array:
    """The newest x: [B, ...]."""
    return state.x


def confidence_unmasking(
  process: Any,
  grid: Any,
  *,
  confidence: str = "drawn",
  temperature: Any = 1.0,
  noise: Any = 0.0,
  dtype: Any = np.float32,
) -> ConfidenceUnmasking:
  """Unmasking of the surest coordinates (MaskGIT, arXiv:2202.04200; LLaDA, arXiv:2502.09992).

  A value is drawn for each masked coordinate, and the surest are kept, so many that the share of the masks at
  the start that is left follows the level of the grid, rounded down: a linear schedule takes out as many at
  each step, a cosine few at first. More steps than masks spend calls that change nothing.

  The confidences of 'highest', 'margin', 'entropy' and 'random' know nothing of what was drawn: with them,
  one mask a step, temperature 1 and the exact posterior, samples have the law of the data, in whatever order.
  'drawn', as MaskGIT and LLaDA take it, prefers probable values, and its samples are less various than the
  data however many steps are taken. Several masks a step are drawn independently of one another, an error of
  every rule.

  Args:
    process: one that ends in masks, such as `processes.masked(16, (64,))`.
    grid: [N+1] or [B, N+1] decreasing times, such as `process.default_grid(N)`. Where the last is t = 0,
      nothing stays masked.
    confidence: 'drawn', 'highest', 'margin', 'entropy' or 'random'; see `unmasking.confidence`.
    temperature: of the draws; 0 takes the most probable value.
    noise: factor of Gumbel noise in the confidence, times the share of masks that is left: MaskGIT's choice
      temperature. 0 for none.
    dtype: precision of the times.

  Returns:
    A solver of N evaluations of the view "logits".

  Raises:
    ValueError: a process without masks, a grid that does not decrease, a confidence that is none, a
      temperature or a factor of noise below 0.

  >>> from diffusion import processes
  >>> solver = confidence_unmasking(processes.masked(3, (4,)), [1.0, 0.5, 0.0], confidence="margin")
  >>> solver.share.tolist(), solver.cost, solver.name
  ([0.5, 0.0], 2, 'confidence_unmasking(margin)')
  """
  t, noised = check_grid("confidence_unmasking", process, grid, dtype)
  check_confidence(confidence)
  check_temperature(temperature)
  if not np.all(np.asarray(noise) >= 0):
    raise ValueError(f"the factor of noise in the confidence is at least 0, got {noise}")
  share = (noised[..., 1:] / noised[..., :1]).astype(np.float32)
  about = About(f"confidence_unmasking({confidence})", None, process)
  return ConfidenceUnmasking(
    t, share, np.float32(temperature), np.float32(noise), np.int32(process.mask), confidence, about
  )
