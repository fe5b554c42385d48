"""Block by block: masks are taken out of one block of a sequence after another, from left to right."""

import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from diffusion.solvers import randomness
from diffusion.solvers.about import About
from diffusion.solvers.contract import Described, PostStep
from diffusion.solvers.first_hitting import first_hitting
from diffusion.solvers.unmasking import check_masks, check_shape, is_masked, time_of_masks

BLOCK = 1 << 20  # purpose of the keys that begin a block, far from those of the inner solver


@struct.dataclass
class InBlock:
  """Of B samples of D coordinates.

  Attributes:
    inner: the inner solver's state, which sees the masks of the block alone.
    waiting: [B, D] bool, which coordinates are masked in later blocks.
    evaluations: [B] int32 so far.
  """

  inner: Any
  waiting: Any
  evaluations: Any


@struct.dataclass
class BlockByBlock(Described):
  """See `block_by_block`.

  Attributes:
    inner: a solver that takes out masks.
    process: with masks.
    block: coordinates of a block.
    about: name, order and process.
  """

  inner: Any
  process: Any
  block: int = struct.field(pytree_node=False)
  about: About = struct.field(pytree_node=False)

  stochastic: ClassVar[bool] = True
  acts_on: ClassVar[type] = np.integer

  @property
  def loop(self) -> str:
    """The inner solver's."""
    return self.inner.loop

  @property
  def views(self) -> tuple[str, ...]:
    """The inner solver's."""
    return self.inner.views

  @property
  def blocks(self) -> int:
    """How many blocks."""
    return -(-math.prod(self.process.shape) // self.block)

  @property
  def num_steps(self) -> int:
    """Evaluations, at most where the inner solver paces itself."""
    return self.blocks * self.inner.num_steps

  @property
  def max_steps(self) -> int:
    """Evaluations at most."""
    return self.num_steps

  @property
  def cost(self) -> int | None:
    """Evaluations, or None where the inner solver paces itself."""
    return self.num_steps if self.loop == "scan" else None

  def begin(self, x: jax.Array, keys: jax.Array) -> InBlock:
    """x: [B, ...] whole numbers, masked everywhere or in part."""
    check_shape(self.name, self.process, x)
    return self._begin(x, keys, 0, jnp.zeros(x.shape[0], jnp.int32))

  def ask(self, state: InBlock, i: Any) -> tuple[jax.Array, jax.Array, tuple[str, ...]]:
    """The whole x, later blocks masked, at the time at which so many masks are left on average."""
    x = self.end(state)
    return x, time_of_masks(self.process, x), self.views

  def tell(
    self, state: InBlock, i: Any, prediction: Any, keys: jax.Array, post_step: PostStep | None = None
  ) -> InBlock:
    """The inner solver's step in the block, and the next block where it has finished."""
    steps = self.inner.num_steps
    going = ~self._finished(self.end(state))
    evaluations = state.evaluations + going.astype(jnp.int32)

    def whole_step(x, t, keys, prediction):
      assert post_step is not None
      new = post_step(self._shown(x, state.waiting), t, keys, prediction)
      return self._hidden(new.astype(x.dtype), state.waiting)

    hook = None if post_step is None else whole_step
    if self.loop == "scan":
      own = randomness.fold(keys, i // steps, BLOCK)
      inner = self.inner.tell(state.inner, i % steps, prediction, own, hook)
      last = jnp.broadcast_to((i + 1) % steps == 0, going.shape)
    else:
      inner = self.inner.tell(state.inner, i, prediction, keys, hook)
      last = self.inner.done(inner)
    state = InBlock(inner, state.waiting, evaluations)
    later = self._begin(self.end(state), keys, i + 1, evaluations)
    row = lambda new, old: jnp.where(last.reshape(last.shape + (1,) * (old.ndim - 1)), new, old)
    return jax.tree.map(row, later, state)

  def end(self, state: InBlock) -> jax.Array:
    """The newest x: [B, ...]."""
    return self._shown(self.inner.end(state.inner), state.waiting)

  def done(self, state: InBlock) -> jax.Array:
    """Whether a sample has no masks: [B]."""
    return self._finished(self.end(state))

  def evaluations(self, state: InBlock) -> jax.Array:
    """Calls that each sample needed: [B] int32."""
    return state.evaluations

  def _begin(self, x, keys, step, evaluations):
    """The state at the start of a block: of a scan the one of this step, else the first with a mask."""
    masked = is_masked(x, self.process.mask)
    if self.loop == "scan":
      block = step // self.inner.num_steps
      own = randomness.fold(keys, block, BLOCK)
    else:
      block = (jnp.argmax(masked, axis=1) // self.block)[:, None]
      own = randomness.fold(keys, step, BLOCK)
    waiting = masked & (jnp.arange(masked.shape[1])[None] // self.block > block)
    return InBlock(self.inner.begin(self._hidden(x, waiting), own), waiting, evaluations)

  def _hidden(self, x, waiting):
    """x without the masks of later blocks, in whose place is a value that the inner solver leaves alone."""
    return jnp.where(waiting.reshape(x.shape), jnp.zeros((), x.dtype), x)

  def _shown(self, x, waiting):
    """x with them."""
    return jnp.where(waiting.reshape(x.shape), jnp.asarray(self.process.mask, x.dtype), x)

  def _finished(self, x):
    return ~jnp.any(is_masked(x, self.process.mask), axis=1)


def block_by_block(process: Any, inner: Any = None, *, block: int = 32) -> BlockByBlock:
  """Semi-autoregressive sampling: one block of tokens after another (BD3-LM, arXiv:2503.09573, section 3).

  Coordinates are cut into blocks from left to right. In each block the inner solver takes out the masks, as
  if nothing else were masked for it, while the denoiser sees the later blocks masked. With a block of one it
  is autoregressive sampling; with one block it is the inner solver. Given the exact posterior it has the law
  of the data where the inner solver has.

  What is finished is not changed, nor evaluated for its own sake: with an inner solver that paces itself,
  such as `first_hitting`, a sample goes on to the next block that has masks as soon as it has finished one,
  and no call is made for blocks that were given. With one on a fixed number of steps, each block takes them
  all; `cached` around this solver leaves out the calls that would say nothing new. A network that keeps keys
  and values of finished blocks would save more: nothing here does.

  Args:
    process: one that ends in masks, such as `processes.masked(16, (64,))`.
    inner: a solver of that process that takes out masks; `first_hitting` by default.
    block: coordinates of a block.

  Returns:
    A solver of (evaluations of the inner one) x (number of blocks), at most.

  Raises:
    ValueError: a process without masks, a block below 1.

  >>> from diffusion import processes, solvers
  >>> process = processes.masked(3, (8,))
  >>> block_by_block(process, solvers.masked_ancestral(process, process.default_grid(5)), block=4).cost
  10
  """
  check_masks("block_by_block", process)
  if int(block) != block or block < 1:
    raise ValueError(f"a block has a whole number of coordinates of at least 1, got {block}")
  inner = first_hitting(process) if inner is None else inner
  about = About(f"block_by_block({block}, {inner.name})", inner.order, process)
  return BlockByBlock(inner, process, int(block), about)
