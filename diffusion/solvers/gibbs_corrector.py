"""Gibbs correctors of masked processes: after each step some coordinates are masked and drawn again."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from diffusion.solvers import randomness, unmasking
from diffusion.solvers.about import About
from diffusion.solvers.contract import Described, PostStep, finished, layout, row_at

UNMASK, CATEGORY, CHOICE = 0, 1, 4  # purposes of a step's keys


@struct.dataclass
class Corrected:
  """What is known between evaluations, each of D coordinates one after another.

  Attributes:
    x: [B, ...].
    hidden: [B, D] which coordinates the next evaluation is not shown.
    given: [B, D] which were not masked at the start.
    sure: [B, D] log p of each value when it was drawn.
  """

  x: Any
  hidden: Any
  given: Any
  sure: Any


@struct.dataclass
class GibbsCorrector(Described):
  """See `gibbs_corrector`.

  Attributes:
    t: [..., N (1 + M) + 1] the time of each evaluation, and the last.
    unmask: [..., N] probability that a mask is taken out in each step.
    mask: [] the value that stands for masked.
    temperature: [] of the choice of what is drawn again.
    moves: M corrector moves a step; count: coordinates that each draws again.
    informed: whether values that were less sure are drawn again sooner.
    about: name, order and process.
  """

  t: Any
  unmask: Any
  mask: Any
  temperature: Any
  moves: int = struct.field(pytree_node=False)
  count: int = struct.field(pytree_node=False)
  informed: bool = struct.field(pytree_node=False)
  about: About = struct.field(pytree_node=False)

  stochastic: ClassVar[bool] = True
  views: ClassVar[tuple[str, ...]] = ("logits",)
  acts_on: ClassVar[type] = np.integer

  @property
  def num_steps(self) -> int:
    """Evaluations: N (1 + M)."""
    return self.t.shape[-1] - 1

  @property
  def times(self) -> Any:
    """The time of each evaluation, and the last."""
    return self.t

  def begin(self, x: jax.Array, keys: jax.Array | None) -> Corrected:
    """x: [B, ...] whole numbers, masked everywhere or in part; what is not masked stays."""
    del keys
    given = ~unmasking.is_masked(x, self.mask)
    return Corrected(x, jnp.zeros_like(given), given, jnp.zeros(given.shape, jnp.float32))

  def ask(self, state: Corrected, i: Any) -> tuple[jax.Array, jax.Array, tuple[str, ...]]:
    """x, masked where the move draws again, at the time of evaluation i."""
    rows, dtype = layout(state.x)
    return self._shown(state), jnp.broadcast_to(row_at(self.t, i, 0, dtype), (rows,)), self.views

  def tell(
    self, state: Corrected, i: Any, prediction: Any, keys: jax.Array, post_step: PostStep | None = None
  ) -> Corrected:
    """Masks are taken out in a step, and what is hidden in a move; then the next move's are chosen."""
    log_p = unmasking.log_values(prediction.logits, self.mask)
    step, stage = i // (1 + self.moves), i % (1 + self.moves)
    shown = self._shown(state).reshape(log_p.shape[:2])
    drawn = unmasking.draw(randomness.fold(keys, i + 1, CATEGORY), log_p).astype(shown.dtype)
    uniform = jax.vmap(lambda key: jax.random.uniform(key, shown.shape[1:], jnp.float32))
    share = row_at(self.unmask, step, 0, jnp.float32)
    share = share if share.ndim == 0 else share[:, None]
    out = unmasking.is_masked(shown, self.mask) & (uniform(randomness.fold(keys, i + 1, UNMASK)) < share)
    jumps = jnp.where(stage == 0, out, state.hidden)
    flat = jnp.where(jumps, drawn, shown)
    sure = jnp.where(jumps, unmasking.of_value(log_p, drawn), state.sure)
    rows, dtype = layout(state.x)
    t = jnp.broadcast_to(row_at(self.t, i + 1, 0, dtype), (rows,))
    x = finished(post_step, flat.reshape(state.x.shape), t, keys, i + 1, prediction)
    among = ~unmasking.is_masked(x, self.mask) & ~state.given & (stage < self.moves)
    gumbel = jax.vmap(lambda key: jax.random.gumbel(key, among.shape[1:], jnp.float32, mode="high"))
    score = jnp.asarray(self.temperature, jnp.float32) * gumbel(randomness.fold(keys, i + 1, CHOICE))
    score = score - sure if self.informed else score
    hidden = unmasking.first(score, among, jnp.full(rows, self.count, jnp.int32))
    return Corrected(x, hidden, state.given, sure)

  def end(self, state: Corrected) -> jax.Array:
    """The newest x: [B, ...]."""
    return state.x

  def _shown(self, state):
    hidden = state.hidden.reshape(state.x.shape)
    return jnp.where(hidden, jnp.asarray(self.mask, state.x.dtype), state.x)

  def __str__(self) -> str:
    claim = "no order claimed" if self.order is None else f"order {self.order}"
    return f"{self.name}: {claim}, {self.cost} evaluations, asks for logits"


def gibbs_corrector(
  process: Any, grid: Any, *, moves: int = 1, count: int = 1, dtype: Any = np.float32
) -> GibbsCorrector:
  """Ancestral sampling of masks with Gibbs moves after each step (arXiv:2205.14987, section 4.4).

  A move masks one of the coordinates that have a value, uniform among them, and draws it from its posterior
  given all others: a Gibbs step, which keeps the law p_t whatever the length of the steps. More than one at
  once (`count`) are drawn independently, for fewer evaluations. Of order 1, as the steps are; many moves take
  their error away. Coordinates that were not masked at the start stay.

  Args:
    process: one that ends in masks, such as `processes.masked(16, (64,))`.
    grid: [N+1] or [B, N+1] decreasing times.
    moves: M after each step, each one evaluation.
    count: coordinates that a move draws again.
    dtype: precision of the times.

  Returns:
    A solver of N (1 + M) evaluations of the view 'logits'.

  Raises:
    ValueError: a process without masks, a grid that does not decrease, no moves or coordinates.

  >>> from diffusion import processes
  >>> str(gibbs_corrector(processes.masked(3, (4,)), [1.0, 0.5, 0.0], moves=2))
  'gibbs_corrector: order 1, 6 evaluations, asks for logits'
  """
  return _built("gibbs_corrector", 1, process, grid, moves, count, False, 1.0, dtype)


def informed_corrector(
  process: Any,
  grid: Any,
  *,
  moves: int = 1,
  count: int = 1,
  temperature: float = 0.1,
  dtype: Any = np.float32,
) -> GibbsCorrector:
  """Gibbs moves on the values that the denoiser was least sure of when it drew them.

  As `gibbs_corrector`, but a move takes the coordinates with the smallest log p of their value when it was
  drawn, with Gumbel noise of this temperature. Such a choice looks at the values, so that a move does not
  keep the law p_t exactly: no order is claimed. It is after informed correctors (arXiv:2407.21243), but not
  theirs: those score each value given all others, which takes a network that does not see the value itself.

  Args:
    process, grid, moves, count, dtype: as in `gibbs_corrector`.
    temperature: of the noise of the choice, 0 for none.

  Returns:
    A solver of N (1 + M) evaluations of the view 'logits'.

  Raises:
    ValueError: a process without masks, a grid that does not decrease, no moves or coordinates, a temperature
      below 0.

  >>> from diffusion import processes
  >>> informed_corrector(processes.masked(3, (4,)), [1.0, 0.5, 0.0]).cost
  4
  """
  unmasking.check_temperature(temperature)
  return _built("informed_corrector", None, process, grid, moves, count, True, temperature, dtype)


def _built(name, order, process, grid, moves, count, informed, temperature, dtype):
  t, noised = unmasking.check_grid(name, process, grid, dtype)
  if int(moves) != moves or moves < 1 or int(count) != count or count < 1:
    raise ValueError(
      f"{name} makes one or more moves a step, each of one or more coordinates, got moves={moves} and "
      f"count={count}"
    )
  unmask = (1.0 - noised[..., 1:] / noised[..., :-1]).astype(np.float32)
  # Each step is evaluated at its start, and its moves at its end.
  asked = np.concatenate([t[..., :-1, None], np.repeat(t[..., 1:, None], moves, axis=-1)], axis=-1)
  asked = np.concatenate([asked.reshape(*t.shape[:-1], -1), t[..., -1:]], axis=-1)
  return GibbsCorrector(
    asked,
    unmask,
    np.int32(process.mask),
    np.float32(temperature),
    int(moves),
    int(count),
    informed,
    About(name, order, process),
  )
