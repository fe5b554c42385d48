"""A scan whose gradient computes its steps again, so that it stores few of them."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def checkpointed_scan(step: Callable[..., Any], state: Any, num_steps: int) -> tuple[Any, Any]:
  """A `lax.scan` that stores few states for its gradient (arXiv:1604.06174, section 4.1).

  It is `lax.scan(step, state, arange(num_steps))`, with the same values and another way back. The steps are
  cut into chunks of c = ceil(sqrt(num_steps)). On the way forward the state before each chunk is stored: at
  most c of them. On the way back one chunk at a time is computed again and the state before each of its steps
  stored: c more. Then each step is computed once more, with whatever its own gradient needs. So what is
  stored is 2 c states and the inside of one step, and a step is made three times.

  Args:
    step: (state, i) -> (state, output or None).
    state: before the first step.
    num_steps: how many, static.

  Returns:
    (the last state, outputs stacked [num_steps, ...] or None).

  >>> double = lambda x, i: (2.0 * x, None)
  >>> float(jax.grad(lambda x: checkpointed_scan(double, x, 10)[0])(1.0))
  1024.0
  """
  size = max(1, math.isqrt(max(num_steps - 1, 0)) + 1)
  chunks = -(-num_steps // size)
  once = jax.checkpoint(step, prevent_cse=False)

  def within(state, i):
    if num_steps == chunks * size:
      return once(state, i)
    # The last chunk is filled up with steps that are not made.
    output = jax.eval_shape(step, state, i)[1]
    nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), output)
    return jax.lax.cond(i < num_steps, once, lambda state, i: (state, nothing), state, i)

  @jax.checkpoint
  def chunk(state, first):
    return jax.lax.scan(within, state, first + jnp.arange(size))

  state, outputs = jax.lax.scan(chunk, state, size * jnp.arange(chunks))
  join = lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[:num_steps]
  return state, jax.tree.map(join, outputs)
