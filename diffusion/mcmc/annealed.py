"""Chains that follow a target as its noise falls.

They are the discrete counterpart of annealed Langevin dynamics (arXiv:1907.05600).
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from diffusion.mcmc.base import Run, chain_keys, run


def anneal(kernel: Any, x: Any, keys: jax.Array, times: Any, num_steps: int) -> Run:
  """`num_steps` steps of the kernel at each of the times, one after another, in one program.

  Args:
    kernel: with a field `t`, such as those of `metropolis` and `gibbs`.
    x: [C, ...] where the chains start, draws of the noise at the first of the times.
    keys: [C] typed keys, or one of which chain c takes `fold_in(key, c)`; chain c depends on (x[c], keys[c])
      alone.
    times: [L], from the noisiest to the cleanest; data of the program.
    num_steps: at each time.

  Returns:
    A `Run`: the last state, no samples, and the mean info over the steps of each time, [L, C].

  Raises TypeError for a kernel without a time, ValueError for times that are none.

  >>> from diffusion import mcmc, processes
  >>> process, neighbourhood = processes.uniform_resample(4), processes.neighbourhoods.cycle(4)
  >>> uniform = lambda x, t, cond: jnp.zeros((x.shape[0], 1))
  >>> start = process.prior(jax.random.split(jax.random.key(0), 5), process.shape)
  >>> anneal(mcmc.gibbs(uniform, neighbourhood), start, jax.random.key(1), [1.0, 0.1], 2).info["moved"].shape
  (2, 5)
  """
  if not hasattr(kernel, "replace") or not hasattr(kernel, "t"):
    raise TypeError(
      "anneal lowers the time of a kernel with a field t, such as mcmc.gibbs(concrete, neighbourhood); "
      f"{type(kernel).__name__} "
      "has none"
    )
  times = jnp.asarray(times, jnp.result_type(float))
  if times.ndim != 1 or times.size < 1:
    raise ValueError(f"anneal goes through one or more times [L], got shape {times.shape}")
  if not isinstance(num_steps, int) or num_steps < 1:
    raise ValueError(f"anneal makes num_steps=1 or more at each time, got {num_steps!r}")
  x = jnp.asarray(x)
  return _anneal(kernel, x, chain_keys(keys, x), times, num_steps=num_steps)


@functools.partial(jax.jit, static_argnames=("num_steps",))
def _anneal(kernel, x, keys, times, *, num_steps):
  def level(x, inputs):
    number, t = inputs
    done = run(kernel.replace(t=t), x, keys, num_steps, first=number * num_steps)
    return done.x, done.info

  x, info = jax.lax.scan(level, x, (jnp.arange(times.size, dtype=jnp.int32), times))
  return Run(kernel.replace(t=times[-1]).init(x), None, info)
