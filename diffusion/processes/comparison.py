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


def numbers(process: Any, times: np.ndarray) -> dict[str, np.ndarray]:
  """Every number of `process.rates` at times [n], by its name: each [n], in float64 on the host wherever the
  process lives.

  >>> from diffusion import processes
  >>> numbers(processes.linear(), np.array([0.25, 0.75]))["second"].tolist()
  [0.25, 0.75]
  """
  found = jax.tree.map(np.asarray, process).rates(times)
  return {
    name: np.broadcast_to(np.asarray(rate.value, np.float64), times.shape) for name, rate in found.items()
  }


def difference(first: Any, second: Any, tolerance: float = 1e-4) -> str:
  """Where two processes differ, in words: their end, or a number of their `rates` at one of 64 times; '' if
  nowhere, or if their numbers are traced.

  >>> from diffusion import processes
  >>> difference(processes.vp_linear(), processes.vp_linear())
  ''
  >>> difference(processes.vp_linear(), processes.vp_linear(beta_max=5.0))
  "one lives on 'vp_linear' and the other on 'vp_linear', with alpha = 0.9977 and alpha = 0.9988
  at t = 0.01686"
  """
  said = f"one lives on '{first.name}' and the other on '{second.name}'"
  if first.kind != second.kind:
    return f"{said}, of which one is {first.kind} and the other {second.kind}"
  if not readable(first) or not readable(second):
    return ""
  if abs(float(first.t_max) - float(second.t_max)) > tolerance * float(first.t_max):
    return f"{said}, up to t = {float(first.t_max):g} and up to t = {float(second.t_max):g}"
  times = np.linspace(float(first.t_min), float(first.t_max), 64)
  these, those = numbers(first, times), numbers(second, times)
  if these.keys() != those.keys():
    return f"{said}, which are told by {', '.join(these)} and by {', '.join(those)}"
  for name, mine in these.items():
    other = those[name]
    off = np.flatnonzero(~(np.abs(mine - other) <= tolerance * (1.0 + np.abs(other))))
    if off.size:
      at = off[0]
      return f"{said}, with {name} = {mine[at]:.4g} and {name} = {other[at]:.4g} at t = {times[at]:.4g}"
  return ""
