"""Unmasking of as many coordinates at once as a bound on what it costs allows."""

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
  entropy,
  first,
  is_masked,
  log_values,
  time_of_masks,
)

CATEGORY = 0  # purpose of a call's keys


@struct.dataclass
class Committed:
  """Of B samples: x [B, ...] and the calls so far [B] int32."""

  x: Any
  evaluations: Any


@struct.dataclass
class Committing(Described):
  """See `entropy_bound` and `confidence_threshold`.

  Attributes:
    process: with masks.
    bound: in nats, or a probability; [] or [B].
    temperature: of the draws, [].
    by: 'entropy' or 'probability'.
    about: name, order and process.
  """

  process: Any
  bound: Any
  temperature: Any
  by: str = struct.field(pytree_node=False)
  about: About = struct.field(pytree_node=False)

  stochastic: ClassVar[bool] = True
  views: ClassVar[tuple[str, ...]] = ("logits",)
  acts_on: ClassVar[type] = np.integer
  loop: ClassVar[str] = "until_done"

  @property
  def num_steps(self) -> int:
    """Calls at most: one a coordinate."""
    return math.prod(self.process.shape)

  @property
  def max_steps(self) -> int:
    """Calls at most."""
    return self.num_steps

  @property
  def cost(self) -> None:
    """As many calls as the bound asks for."""

  def begin(self, x: jax.Array, keys: jax.Array | None) -> Committed:
    """x: [B, ...] whole numbers, masked everywhere or in part."""
    del keys
    check_shape(self.name, self.process, x)
    return Committed(x, jnp.zeros(x.shape[0], jnp.int32))

  def ask(self, state: Committed, i: Any) -> tuple[jax.Array, jax.Array, tuple[str, ...]]:
    """x at the time at which that share of it is masked on average."""
    return state.x, time_of_masks(self.process, state.x), self.views

  def tell(
    self, state: Committed, i: Any, prediction: Any, keys: jax.Array, post_step: PostStep | None = None
  ) -> Committed:
    """The coordinates within the bound, at least one, become values of the posterior."""
    x = state.x
    masked = is_masked(x, self.process.mask)
    going = jnp.any(masked, axis=1)
    log_p = log_values(prediction.logits, self.process.mask)
    value = draw(randomness.fold(keys, i + 1, CATEGORY), log_p, self.temperature).astype(x.dtype)
    bound = jnp.broadcast_to(jnp.asarray(self.bound, jnp.float32), going.shape)[:, None]
    if self.by == "entropy":
      unsure = jnp.where(masked, entropy(log_p), jnp.inf)
      ascending = jnp.sort(unsure, axis=1)
      # The sum of those before each, which is the sum up to it less the largest.
      before = jnp.cumsum(jnp.where(jnp.isinf(ascending), 0.0, ascending), axis=1)
      before = jnp.concatenate([jnp.zeros_like(before[:, :1]), before[:, :-1]], axis=1)
      count = jnp.sum((before <= bound) & ~jnp.isinf(ascending), axis=1)
      chosen = first(-unsure, masked, count)
    else:
      highest = jnp.max(log_p, axis=-1)
      count = jnp.sum(masked & (highest >= jnp.log(bound)), axis=1)
      chosen = first(highest, masked, jnp.maximum(count, 1))
    new = jnp.where(chosen, value, x.reshape(chosen.shape)).reshape(x.shape)
    hooked = finished(post_step, new, time_of_masks(self.process, new), keys, i + 1, prediction)
    new = jnp.where(going.reshape(going.shape + (1,) * (x.ndim - 1)), hooked, x)
    return Committed(new, state.evaluations + going.astype(jnp.int32))

  def end(self, state: Committed) -> jax.Array:
    """The newest x: [B, ...]."""
    return state.x

  def done(self, state: Committed) -> jax.Array:
    """Whether a sample has no masks: [B]."""
    return ~jnp.any(is_masked(state.x, self.process.mask), axis=1)

  def evaluations(self, state: Committed) -> jax.Array:
    """Calls that each sample needed: [B] int32."""
    return state.evaluations


def entropy_bound(process: Any, *, bound: Any = 0.1, temperature: Any = 1.0) -> Committing:
  """Entropy-bounded unmasking: at each call, what is nearly known (EB-Sampler, arXiv:2505.24857).

  The masked coordinates are sorted by the entropy of their posterior, and the most certain are drawn at once,
  as many as keep the sum of their entropies less the largest within the bound. That is at least the total
  correlation of what is drawn, so the Kullback-Leibler divergence of the samples from the data is at most the
  bound times the mean number of calls, given the exact posterior at temperature 1. With bound 0 one is drawn
  a call, with all that are known for certain, and samples have the law of the data.

  Args:
    process: one that ends in masks, such as `processes.masked(16, (64,))`.
    bound: in nats, a number or [B]; 0 or more. Changing it does not recompile.
    temperature: of the draws; 0 takes the most probable value.

  Returns:
    A solver of at most D calls for D coordinates; `sample(..., evaluations=True)` says how many each needed.

  Raises:
    ValueError: a process without masks, a bound or a temperature below 0.

  >>> from diffusion import oracles, processes, solvers
  >>> process = processes.masked(2, (2,), t_min=0.0)
  >>> equal = oracles.masked_categorical(process, 0.5 * np.eye(2))      # two coordinates that are equal
  >>> x, keys = jnp.full((2, 2), 2), jax.random.split(jax.random.key(0), 2)
  >>> solvers.sample(equal, entropy_bound(process, bound=0.5), x, keys=keys, evaluations=True)[1].tolist()
  [2, 2]
  >>> solvers.sample(equal, entropy_bound(process, bound=0.7), x, keys=keys, evaluations=True)[1].tolist()
  [1, 1]
  """
  check_masks("entropy_bound", process)
  check_temperature(temperature)
  if not np.all(np.asarray(bound) >= 0):
    raise ValueError(f"the bound on entropy is in nats and at least 0, got {bound}")
  about = About("entropy_bound", None, process)
  return Committing(process, np.asarray(bound, np.float32), np.float32(temperature), "entropy", about)


def confidence_threshold(process: Any, *, threshold: Any = 0.9, temperature: Any = 1.0) -> Committing:
  """Unmasking above a confidence: at each call, all coordinates that are sure enough (arXiv:2505.22618, 3.3).

  A masked coordinate is drawn where the probability of its most probable value is at least the threshold, and
  the surest of them in any case. With a threshold of 1 that is one a call, with all that are known for
  certain, and samples have the law of the data, given the exact posterior at temperature 1.

  Args:
    process: one that ends in masks, such as `processes.masked(16, (64,))`.
    threshold: a probability above 0, a number or [B]. Changing it does not recompile.
    temperature: of the draws; 0 takes the most probable value.

  Returns:
    A solver of at most D calls for D coordinates.

  Raises:
    ValueError: a process without masks, a threshold that is no probability above 0, a temperature below 0.

  >>> from diffusion import processes
  >>> str(confidence_threshold(processes.masked(2, (16,))).name)
  'confidence_threshold'
  """
  check_masks("confidence_threshold", process)
  check_temperature(temperature)
  if not np.all((np.asarray(threshold) > 0) & (np.asarray(threshold) <= 1)):
    raise ValueError(f"the threshold is a probability above 0 and at most 1, got {threshold}")
  about = About("confidence_threshold", None, process)
  return Committing(process, np.asarray(threshold, np.float32), np.float32(temperature), "probability", about)
