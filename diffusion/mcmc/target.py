"""What a chain is told of its target: functions of x alone, as data of the program where they can be."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

Partial = jax.tree_util.Partial


def as_data(function: Callable[..., Any], who: str = "a kernel") -> Any:
  """A callable as a pytree, so that arrays in it are arguments of the program and not constants.

  A callable pytree (a `jax.tree_util.Partial`, a denoiser) stays what it is; a method of a pytree keeps that
  as data; a plain function becomes part of the program, so build it once. Raises TypeError for what can not
  be called.

  >>> len(jax.tree.leaves(as_data(Partial(jnp.add, jnp.ones(3)))))
  1
  """
  if not callable(function):
    raise TypeError(f"{who} takes a function of x [C, ...], got {type(function).__name__}")
  if not jax.tree_util.all_leaves([function]):
    return function
  owner = getattr(function, "__self__", None)
  if owner is not None and not jax.tree_util.all_leaves([owner]):
    return Partial(function.__func__, owner)  # a bound method
  return Partial(function)


def at_time(function: Callable[..., Any], t: Any, cond: Any = None) -> Callable[..., Any]:
  """A target at one time for all chains: x -> function(x, t, cond).

  It is made of a score, Hessian or log-density that takes times [C].

  >>> from diffusion import oracles, processes
  >>> oracle = oracles.gaussian(processes.edm(), jnp.zeros(2), 1.0)
  >>> at_time(oracle.score, 1.0)(jnp.ones((1, 2))).tolist()
  [[-0.5, -0.5]]
  """
  return Partial(_at, as_data(function, "at_time"), jnp.asarray(t, jnp.result_type(float)), cond)


def _at(function, t, cond, x):
  return function(x, jnp.broadcast_to(t, x.shape[:1]), cond)


def check_step_size(step_size: Any, who: str) -> jax.Array:
  """The step size as an array. Raises ValueError where it is known and not positive."""
  if not isinstance(step_size, Tracer) and not np.all(np.asarray(step_size) > 0):
    raise ValueError(
      f"{who} takes a positive step_size, got {step_size}: a tenth of the target's smallest variance is a "
      "start"
    )
  return jnp.asarray(step_size, jnp.result_type(float))
