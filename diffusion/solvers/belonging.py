"""Which process a sampler's coefficients belong to: its name, and a few of its numbers, which no name
tells."""

import functools

import jax
import numpy as np

from diffusion.processes.comparison import readable


def levels(process) -> tuple:
  """((t, alpha, sigma), ...) where a process ends, in the middle and where it starts; () where its numbers
  are traced.

  >>> from diffusion import processes
  >>> levels(processes.edm())
  ((0.002, 1.0, 0.002), (40.001, 1.0, 40.001), (80.0, 1.0, 80.0))
  """
  if not hasattr(process, "marginal") or not readable(process):
    return ()
  times = np.array([process.t_min, 0.5 * (process.t_min + process.t_max), process.t_max], np.float64)
  return tuple(zip(times.tolist(), *_alpha_sigma(process, times.tolist())))


def difference(about, process) -> str:
  """What keeps a sampler from a process, or '' if nothing does; a sampler or a process without a name belongs
  to any.

  Args:
    about: `About` of the sampler.
    process: the denoiser's, or None.
  """
  built_for, name = getattr(about, "process", ""), getattr(process, "name", "")
  if not built_for or not name:
    return ""
  if built_for != name:
    return f"was built for the process {built_for!r} and the denoiser belongs to {name!r}"
  if not about.numbers or not readable(process):
    return ""
  times, *expected = zip(*about.numbers)
  # A denoiser may carry its process in float32.
  for what, given, wanted in zip(("alpha", "sigma"), _alpha_sigma(process, times), expected):
    off = [i for i, (a, b) in enumerate(zip(given, wanted)) if not abs(a - b) <= 1e-4 * abs(b) + 1e-6]
    if off:
      i = off[0]
      return (
        f"was built for a process {built_for!r} with {what} = {wanted[i]:.6g} at t = {times[i]:.6g}, and the "
        "denoiser's own"
        f" {name!r} has {given[i]:.6g} there"
      )
  return ""


def _alpha_sigma(process, times):
  """Two tuples, in float64 on the host wherever the process lives; what was asked last is remembered, for
  `sample` asks at each call."""
  leaves, tree = jax.tree.flatten(process)
  arrays = [np.asarray(leaf) for leaf in leaves]
  return _cached(tree, tuple((a.tobytes(), a.dtype.str, a.shape) for a in arrays), tuple(times))


@functools.lru_cache(maxsize=64)
def _cached(tree, leaves, times):
  process = jax.tree.unflatten(tree, [np.frombuffer(*one[:2]).reshape(one[2]) for one in leaves])
  m = process.marginal(np.array(times))
  return tuple(
    tuple(np.broadcast_to(np.asarray(part, np.float64), len(times)).tolist()) for part in (m.alpha, m.sigma)
  )
