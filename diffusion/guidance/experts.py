"""Experts: functions of x_t that change with the noise level.

There is one expert a range of sigma/alpha (PPAP, arXiv:2212.05973).
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct


# Compared as the functions that they stand for, by identity: as a transform's function it is part of the
# program, and arrays have no one equality.
@functools.partial(struct.dataclass, eq=False)
class Experts:
  """fn with the parameters of the expert whose range the noise level of each row lies in; see `experts`."""

  process: Any
  boundaries: Any  # [N - 1] ascending noise levels
  fn: Callable[..., jax.Array] = struct.field(pytree_node=False)

  def __call__(self, params: Any, x: jax.Array, t: jax.Array, cond: Any = None) -> jax.Array:
    """(params, x [B, ...], t [B], cond) -> [B, ...], params with a leading axis of N experts."""
    count = self.boundaries.shape[0] + 1
    leading = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(params)}
    if leading - {(count,)}:
      raise ValueError(
        f"{count} experts need parameters with {count} in front, got {sorted(leading)}: stack them with "
        "jax.tree.map(jnp.stack, ...)"
      )
    level = self.process.marginal(t).noise_to_signal
    which = jnp.sum(level[:, None] >= jnp.asarray(self.boundaries, level.dtype)[None, :], axis=1)

    def one(number):
      own = jax.tree.map(lambda leaf: leaf[number], params)
      value = lambda: self.fn(own, x, t, cond)
      # An expert that no row asks for is not evaluated: all rows of a sampler's step share their noise level.
      return jax.lax.cond(
        jnp.any(which == number), value, lambda: jax.tree.map(jnp.zeros_like, jax.eval_shape(value))
      )

    values = [one(number) for number in range(count)]
    total = values[0]
    for number, value in enumerate(values[1:], 1):
      total = jnp.where((which == number).reshape((-1,) + (1,) * (value.ndim - 1)), value, total)
    return total


def experts(process: Any, boundaries: Any, fn: Callable[..., jax.Array]) -> Experts:
  """A function of (params, x, t, cond) out of N experts, one a range of noise levels.

  The experts are of the same shape, and noise levels are sigma/alpha.

  As `log_prob` of `guidance.classifier` this is multi-expert guidance: each classifier has to be good in its
  own range only. As the function of `denoisers.from_function` it is a multi-expert denoiser. Build it once,
  as any function: a new one recompiles.

  Args:
    process: the Gaussian process.
    boundaries: N - 1 ascending noise levels between the ranges; a level on a boundary belongs to the noisier
      range.
    fn: pure function (params, x, t, cond) -> [B, ...] of one expert.

  Raises:
    ValueError: boundaries that do not ascend.

  >>> from diffusion import guidance, processes
  >>> add = lambda params, x, t, cond: x[:, 0] + params
  >>> expert = guidance.experts(processes.edm(), [1.0], add)
  >>> expert(jnp.array([10.0, 20.0]), jnp.zeros((2, 1)), jnp.array([0.5, 2.0])).tolist()
  [10.0, 20.0]
  """
  boundaries = np.asarray(boundaries, np.float32)
  if boundaries.ndim != 1 or not np.all(boundaries > 0) or not np.all(np.diff(boundaries) > 0):
    raise ValueError(f"boundaries are ascending noise levels sigma/alpha above 0, got {boundaries.tolist()}")
  return Experts(process, boundaries, fn)  # pyright: ignore[reportCallIssue] (a partial dataclass)
