"""Whether a solver's coefficients belong to a process: by its name, and by a few of its numbers, which no
name tells."""

import functools
from typing import Any

import jax
import numpy as np

from diffusion.processes.comparison import readable


def name_of(process: Any) -> str:
  """The name of a process, '' for None."""
  return "" if process is None else process.name


def levels(process: Any) -> tuple[tuple[float, float, float], ...]:
  """((t, alpha, sigma), ...) where a process ends, in the middle and where it starts; () where its numbers
  are traced, where it has no such numbers, and for None.

  >>> from diffusion import processes
  >>> levels(processes.edm())
  ((0.002, 1.0, 0.002), (40.001, 1.0, 40.001), (80.0, 1.0, 80.0))
  """
  if process is None or not hasattr(process, "marginal") or not readable(process):
    return ()
  times = np.array([process.t_min, 0.5 * (process.t_min + process.t_max), process.t_max], np.float64)
  return tuple(zip(times.tolist(), *_alpha_sigma(process, times.tolist())))


def mismatch(about: Any, process: Any) -> str:
  """What keeps a solver from a process, in words, or '' if nothing does; one that names no process belongs to
  any.

  Args:
    about: `About` of the solver, or None.
    process: the denoiser's, or None.
  """
  if about is None or not about.process_name or not name_of(process):
    return ""
  name = name_of(process)
  if about.process_name != name:
    return f"was built for the process {about.process_name!r} and the denoiser belongs to {name!r}"
  if not about.levels or not readable(process):
    return ""
  times, *expected = zip(*about.levels)
  # A denoiser may carry its process in float32.
  for what, given, wanted in zip(("alpha", "sigma"), _alpha_sigma(process, times), expected):
    off = [i for i, (a, b) in enumerate(zip(given, wanted)) if not abs(a - b) <= 1e-4 * abs(b) + 1e-6]
    if off:
      i = off[0]
      return (
        f"was built for a process {name!r} with {what} = {wanted[i]:.6g} at t = {times[i]:.6g}, and the "
        f"denoiser's own {name!r} has {given[i]:.6g} there"
      )
  return ""


def _alpha_sigma(process: Any, times: Any) -> tuple:
  """Two tuples, in float64 on the host wherever the process lives; what was asked last is remembered, for
  `sample` asks at each call."""
  leaves, tree = jax.tree.flatten(process)
  arrays = [np.asarray(leaf) for leaf in leaves]
  return _cached(tree, tuple((a.tobytes(), a.dtype.str, a.shape) for a in arrays), tuple(times))


@functools.lru_cache(maxsize=64)
def _cached(tree: Any, leaves: tuple, times: tuple) -> tuple:
  process = jax.tree.unflatten(tree, [np.frombuffer(*one[:2]).reshape(one[2]) for one in leaves])
  m = process.marginal(np.array(times))
  return tuple(
    tuple(np.broadcast_to(np.asarray(part, np.float64), len(times)).tolist()) for part in (m.alpha, m.sigma)
  )
