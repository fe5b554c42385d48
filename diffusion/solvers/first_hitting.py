"""First-hitting: masks are taken out at the very times at which the process does, one a call."""

import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from diffusion.solvers import randomness
from diffusion.solvers.about import About
from diffusion.solvers.contract import Described, PostStep, finished
from diffusion.solvers.unmasking import (
  check_masks,
  check_shape,
  check_temperature,
  draw,
  is_masked,
  level_at_start,
  without_mask,
)

TIME, WHERE, CATEGORY = 0, 1, 4  # purposes of a call's keys


@struct.dataclass
class Hitting:
  """Of B samples.

  Attributes:
    x: [B, ...].
    noised: [B] the probability of the mask at the time of the next call.
    evaluations: [B] int32 so far.
  """

  x: Any
  noised: Any
  evaluations: Any


@struct.dataclass
class FirstHitting(Described):
  """See `first_hitting`.

  Attributes:
    process: with masks.
    temperature: of the draws, [].
    tokens_per_call: of a sample.
    about: name, order and process.
  """

  process: Any
  temperature: Any
  tokens_per_call: int = struct.field(pytree_node=False)
  about: About = struct.field(pytree_node=False)

  stochastic: ClassVar[bool] = True
  views: ClassVar[tuple[str, ...]] = ("logits",)
  acts_on: ClassVar[type] = np.integer
  loop: ClassVar[str] = "until_done"

  @property
  def num_steps(self) -> int:
    """Calls at most."""
    return -(-math.prod(self.process.shape) // self.tokens_per_call)

  @property
  def max_steps(self) -> int:
    """Calls at most."""
    return self.num_steps

  @property
  def cost(self) -> None:
    """As many calls as there are masks."""

  def begin(self, x: jax.Array, keys: jax.Array) -> Hitting:
    """x: [B, ...] whole numbers, masked everywhere or in part."""
    check_shape(self.name, self.process, x)
    start = level_at_start(self.process)
    noised = jnp.broadcast_to(start, x.shape[:1])
    masks = jnp.sum(is_masked(x, self.process.mask), axis=1)
    return Hitting(x, self._hit(masks, 1, noised, keys, 0), jnp.zeros(x.shape[0], jnp.int32))

  def ask(self, state: Hitting, i: Any) -> tuple[jax.Array, jax.Array, tuple[str, ...]]:
    """x at the time at which the next mask is taken out."""
    return state.x, self._time(state.noised), self.views

  def tell(
    self, state: Hitting, i: Any, prediction: Any, keys: jax.Array, post_step: PostStep | None = None
  ) -> Hitting:
    """Masks at uniform places become values of the posterior; samples without masks stay."""
    x, mask = state.x, self.process.mask
    rows, masked = x.shape[0], is_masked(x, mask)
    going = jnp.any(masked, axis=1)
    uniform = jax.vmap(lambda key: jax.random.uniform(key, masked.shape[1:], jnp.float32))
    score = jnp.where(masked, uniform(randomness.fold(keys, i + 1, WHERE)), -1.0)
    _, where = jax.lax.top_k(score, min(self.tokens_per_call, masked.shape[1]))  # [B, k]
    logits = prediction.logits.reshape(rows, masked.shape[1], -1)
    # Only the places that were chosen need a draw.
    log_p = without_mask(jnp.take_along_axis(logits, where[..., None], axis=1), mask)
    value = draw(randomness.fold(keys, i + 1, CATEGORY), log_p, self.temperature).astype(x.dtype)
    flat = x.reshape(rows, -1)
    value = jnp.where(
      jnp.take_along_axis(masked, where, axis=1), value, jnp.take_along_axis(flat, where, axis=1)
    )
    new = jax.vmap(lambda x, where, value: x.at[where].set(value))(flat, where, value).reshape(x.shape)
    hooked = finished(post_step, new, self._time(state.noised), keys, i + 1, prediction)
    new = jnp.where(going.reshape((rows,) + (1,) * (x.ndim - 1)), hooked, x)
    # The first of the k masks went at the time of this call; the others, and the next, go after it.
    masks = jnp.sum(masked, axis=1) - 1
    noised = self._hit(masks, self.tokens_per_call, state.noised, keys, i + 1)
    return Hitting(new, noised, state.evaluations + going.astype(jnp.int32))

  def end(self, state: Hitting) -> jax.Array:
    """The newest x: [B, ...]."""
    return state.x

  def done(self, state: Hitting) -> jax.Array:
    """Whether a sample has no masks: [B]."""
    return ~jnp.any(is_masked(state.x, self.process.mask), axis=1)

  def evaluations(self, state: Hitting) -> jax.Array:
    """Calls that each sample needed: [B] int32."""
    return state.evaluations

  def _hit(self, masks, hits, noised, keys, step):
    """The probability of the mask [B] after so many hits of `masks` [B] masks, one mask less after each.

    Each hit is the largest of as many uniform numbers below the one before.
    """
    draw = lambda key: jax.random.exponential(key, (hits,), jnp.float32)
    waits = jax.vmap(draw)(randomness.fold(keys, step, TIME))
    left = masks[:, None] - jnp.arange(hits, dtype=masks.dtype)[None]
    return noised * jnp.exp(-jnp.sum(waits / jnp.maximum(left, 1).astype(jnp.float32), axis=1))

  def _time(self, noised):
    return jnp.asarray(self.process.t_of_level(noised), jnp.float32)


def first_hitting(process: Any, *, tokens_per_call: int = 1, temperature: Any = 1.0) -> FirstHitting:
  """First-hitting sampling of masked whole numbers, without a step error (arXiv:2409.02908, section 3).

  With n masks at a time where a coordinate is masked with probability m, the next mask goes where that
  probability is m u^(1/n), u uniform in [0, 1]: the largest of n uniform numbers. It is at a place uniform
  among the masks, and its value is one of the posterior softmax(logits). Given the exact posterior, samples
  have the law of the data, whatever the schedule, after as many calls as there are masks. A sample that is
  masked in part needs fewer calls, and what is given stays.

  With k tokens a call, the k next masks are drawn of one posterior, independently of one another: D / k
  calls, and an error in law as of any solver that takes out several at once.

  Args:
    process: one that ends in masks, such as `processes.masked(16, (64,))`.
    tokens_per_call: k.
    temperature: of the draws; below 1 for more probable values, 0 for the most probable.

  Returns:
    A solver of at most D / k calls, rounded up, for D coordinates; `sample(..., evaluations=True)` says how
    many each sample needed.

  Raises:
    ValueError: a process without masks, tokens_per_call below 1, a temperature below 0.

  >>> from diffusion import oracles, processes, solvers
  >>> process = processes.masked(2, (2,), t_min=0.0)
  >>> equal = oracles.masked_categorical(process, 0.5 * np.eye(2))      # two coordinates that are equal
  >>> x, keys = jnp.array([[2, 2], [1, 2]]), jax.random.split(jax.random.key(0), 2)
  >>> out, calls = solvers.sample(equal, first_hitting(process), x, keys=keys, evaluations=True)
  >>> bool((out[:, 0] == out[:, 1]).all()), calls.tolist()
  (True, [2, 1])
  """
  check_masks("first_hitting", process)
  if int(tokens_per_call) != tokens_per_call or tokens_per_call < 1:
    raise ValueError(f"tokens_per_call is a whole number of at least 1, got {tokens_per_call}")
  check_temperature(temperature)
  name = "first_hitting" if tokens_per_call == 1 else f"first_hitting(tokens_per_call={tokens_per_call})"
  return FirstHitting(process, np.float32(temperature), int(tokens_per_call), About(name, None, process))
