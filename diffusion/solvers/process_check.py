"""Whether a solver's coefficients belong to a process: by its name, and by a few of its numbers, which no
name tells."""

from typing import Any

import numpy as np

from diffusion.processes.comparison import numbers, readable


def name_of(process: Any) -> str:
  """The name of a process, '' for None."""
  return "" if process is None else process.name


def levels(process: Any) -> dict[str, tuple[float, ...]]:
  """Numbers of `process.rates`, each where the process ends, in the middle and where it starts, with those
  times as 't'; {} where its numbers are traced, and for None.

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
