"""The ends of a time grid and its number of steps, checked."""

from typing import Any

from diffusion.solvers.grid_nodes import require_log_snr


def check_steps(n: int) -> None:
  """Raises ValueError unless n counts at least one step."""
  if int(n) != n or n < 1:
    raise ValueError(f"the number of steps must be a whole number of at least 1, got {n}")


def interval(process: Any, n: int, t_max: Any, t_min: Any, clean: bool) -> tuple[float, float, int]:
  """The interval of a grid of n steps: (t_max, t_min, number of nodes between them, both included).

  A t_max or t_min of None is the process's own.

  Raises:
    TypeError: a process without log-SNR.
    ValueError: no steps, ends that are not 0 <= t_min < t_max, or clean=True where there is no clean data to
    end in.
  """
  check_steps(n)
  require_log_snr(process)
  t_max = float(process.t_max if t_max is None else t_max)
  t_min = float(process.t_min if t_min is None else t_min)
  if not 0 <= t_min < t_max:
    raise ValueError(f"a grid needs 0 <= t_min < t_max, got t_min={t_min} and t_max={t_max}")
  if clean and t_min == 0:
    raise ValueError("the grid already ends at t = 0: leave out clean=True or give t_min > 0")
  if clean and float(process.marginal(0.0).sigma) != 0:
    raise ValueError(
      f"the process {process.name!r} still has noise {float(process.marginal(0.0).sigma)} at t = 0, so no "
      "grid"
      " ends in clean data: leave out clean=True"
    )
  return t_max, t_min, int(n) + (0 if clean else 1)
