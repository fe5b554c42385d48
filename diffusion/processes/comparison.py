"""Comparison of two processes, noise for noise.

What two models must share to be mixed, and a latent to mean one thing.
"""

from typing import Any

import jax
import numpy as np
from jax.core import Tracer


def readable(process: Any) -> bool:
  """Whether its numbers can be looked at here: they are not traced, and not on other hosts only."""
  known = lambda leaf: (
    not isinstance(leaf, jax.Array) or (not isinstance(leaf, Tracer) and leaf.is_fully_addressable)
  )
  return all(map(known, jax.tree.leaves(process)))


def difference(first: Any, second: Any, tolerance: float = 1e-4) -> str:
  """Where two processes differ, in words: their end, or a noise level at one of 64 times; '' if nowhere, or
  if their numbers are traced.

  >>> from diffusion import processes
  >>> difference(processes.vp_linear(), processes.vp_linear())
  ''
  >>> difference(processes.vp_linear(), processes.vp_linear(beta_max=5.0))
  "one lives on 'vp_linear' and the other on 'vp_linear', with alpha = 0.9977 and alpha = 0.9988
  at t = 0.01686"
  """
  names = [getattr(process, "name", "?") for process in (first, second)]
  said = f"one lives on '{names[0]}' and the other on '{names[1]}'"
  if not all(hasattr(process, "marginal") for process in (first, second)):
    return "" if names[0] == names[1] else said
  if not readable(first) or not readable(second):
    return ""
  if abs(float(first.t_max) - float(second.t_max)) > tolerance * float(first.t_max):
    return f"{said}, up to t = {float(first.t_max):g} and up to t = {float(second.t_max):g}"
  times = np.linspace(float(first.t_min), float(first.t_max), 64)
  numbers = [
    [np.broadcast_to(np.asarray(part, np.float64), times.shape) for part in (m.alpha, m.sigma)]
    for m in (first.marginal(times), second.marginal(times))
  ]
  for name, mine, other in zip(("alpha", "sigma"), *numbers):
    off = np.flatnonzero(~(np.abs(mine - other) <= tolerance * (1.0 + np.abs(other))))
    if off.size:
      at = off[0]
      return f"{said}, with {name} = {mine[at]:.4g} and {name} = {other[at]:.4g} at t = {times[at]:.4g}"
  return ""
