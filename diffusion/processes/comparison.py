"""Comparison of processes by their numbers, which no name tells.

The numbers are what two models must share to be mixed, and what a solver and a denoiser must share for the
coefficients of the one to hold for the other.
"""

from typing import Any

import jax
import numpy as np
from jax.core import Tracer


def readable(process: Any) -> bool:
  """Whether a process's numbers can be looked at here.

  They can where the process is a pytree of them, not traced, and not on other hosts only.
  """
  known = lambda leaf: (
    not isinstance(leaf, jax.Array) or (not isinstance(leaf, Tracer) and leaf.is_fully_addressable)
  )
  return not jax.tree_util.all_leaves([process]) and all(map(known, jax.tree.leaves(process)))


def numbers(process: Any, times: np.ndarray) -> dict[str, np.ndarray]:
  """Every number of `process.rates` at times [n], by its name.

  Each is [n], in float64 on the host wherever the process lives.

  >>> from diffusion import processes
  >>> numbers(processes.linear(), np.array([0.25, 0.75]))["second"].tolist()
  [0.25, 0.75]
  """
  found = jax.tree.map(np.asarray, process).rates(times)
  return {
    name: np.broadcast_to(np.asarray(rate.value, np.float64), times.shape) for name, rate in found.items()
  }


def difference(first: Any, second: Any, tolerance: float = 1e-4) -> str:
  """Where two processes differ, in words; '' if nowhere, or if their numbers are traced.

  They differ in their end, or in a number of their `rates` at one of 64 times.

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


def levels(process: Any) -> dict[str, tuple[float, ...]]:
  """Numbers of `process.rates`, each where the process ends, in the middle and where it starts.

  Those times are under 't'. The dict is {} where the numbers are traced, and for None.

  >>> from diffusion import processes
  >>> levels(processes.masked(4, (2,), t_min=0.0))
  {'t': (0.0, 0.5, 1.0), 'alpha': (1.0, 0.5, 0.0), 'noised': (0.0, 0.5, 1.0)}
  """
  if process is None or not readable(process):
    return {}
  times = np.array([process.t_min, 0.5 * (process.t_min + process.t_max), process.t_max], np.float64)
  found = {"t": times} | numbers(process, times)
  return {name: tuple(values.tolist()) for name, values in found.items()}


def mismatch(about: Any, process: Any) -> str:
  """What keeps a solver from a process, in words, or '' if nothing does.

  A solver that names no process belongs to any.

  Args:
    about: `About` of the solver, or None.
    process: the denoiser's, or None.
  """
  if about is None or process is None or not about.process_name or not process.name:
    return ""
  name = process.name
  if about.process_name != name:
    return f"was built for the process {about.process_name!r} and the denoiser belongs to {name!r}"
  if not about.levels or not readable(process):
    return ""
  expected = dict(about.levels)
  times = expected.pop("t")
  given = numbers(process, np.array(times))
  for what, wanted in expected.items():
    if what not in given:
      return (
        f"was built for a process {name!r} with {what}, and the denoiser's own {name!r} is told by "
        f"{', '.join(given)}"
      )
    # A denoiser may carry its process in float32.
    off = np.flatnonzero(~(np.abs(given[what] - wanted) <= 1e-4 * np.abs(wanted) + 1e-6))
    if off.size:
      i = off[0]
      return (
        f"was built for a process {name!r} with {what} = {wanted[i]:.6g} at t = {times[i]:.6g}, and the "
        f"denoiser's own {name!r} has {given[what][i]:.6g} there"
      )
  return ""
