"""Mixtures of noises for whole numbers: each coordinate jumps at the sum of their rates."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from diffusion.processes.keeping import slowed_keep
from diffusion.processes.masked_over import MaskedOver
from diffusion.processes.rate_matrix import rate_matrix


def mixture(components: Sequence[Any], weights: Sequence[float]) -> Any:
  """A mixture of noises: each coordinate jumps at the weighted sum of the rates of several processes.

  Such is D3PM's mixture of masks and uniform draws (arXiv:2107.03006, appendix A.2.6) and the hybrid noise of
  GIDD (arXiv:2503.04482). A mask, once drawn, stays.

  What is exact: masks by any clock over one process of any clock; and any number of processes without masks
  that share one schedule, whose rate matrices add up. Others have no closed form and are refused.

  Args:
    components: processes of the same values and shape: `masked`, `uniform_resample`, `mixture_path`
      without masks, `rate_matrix`.
    weights: of their rates, above 0.

  Raises ValueError for components that differ in values, shape or times, or whose mixture is not exact.

  >>> from diffusion import processes
  >>> parts = [processes.masked(2, (3,)), processes.uniform_resample(2, (3,), t_min=1e-3)]
  >>> mixture(parts, [0.5, 0.5]).transition(0.0, 0.75).tolist()
  [[0.375, 0.125, 0.5], [0.125, 0.375, 0.5], [0.0, 0.0, 1.0]]
  """
  shares = np.asarray(weights, np.float64)
  if not components or shares.shape != (len(components),) or not np.all(shares > 0):
    raise ValueError(
      f"a mixture takes one weight above 0 for each of its processes, got {len(components)} processes and "
      f"weights {shares.tolist()}"
    )
  first = components[0]
  for other in components[1:]:
    if other.value_counts() != first.value_counts() or (other.t_min, other.t_max) != (
      first.t_min,
      first.t_max,
    ):
      raise ValueError(
        f"the processes of a mixture have the same values, shape, t_min and t_max, and '{first.name}' and "
        f"'{other.name}' differ: build them alike"
      )
  if not all(one.jumps for one in components):
    raise ValueError(
      "a mixture adds jump rates, and "
      f"'{next(one.name for one in components if not one.jumps)}' has none: leave it out"
    )
  hiding = [pair for pair in zip(components, shares.tolist()) if pair[0].mask is not None]
  moving = [pair for pair in zip(components, shares.tolist()) if pair[0].mask is None]
  if not all(one.ends[1] == "mask" for one, _ in hiding):
    raise ValueError(
      "a mixture has masks from processes.masked alone, which keeps them: give the others without masks"
    )
  inner = _together(moving) if moving else None
  if not hiding:
    return inner
  hidden = hiding[0][0]
  _check_one_clock([one for one, _ in hiding])
  schedule = slowed_keep(hidden.schedule, float(sum(weight for _, weight in hiding)))
  return hidden.replace(schedule=schedule) if inner is None else MaskedOver(schedule, inner)


def _together(parts):
  """One process of the summed rates of processes without masks."""
  (first, weight), rest = parts[0], parts[1:]
  if not rest:
    return first.replace(schedule=slowed_keep(first.schedule, float(weight)))
  _check_one_clock([one for one, _ in parts])
  if len(set(first.value_counts())) > 1:
    raise ValueError(
      "a mixture of several noises of the values takes coordinates of one size, got "
      f"{first.value_counts()[:8]}: give each its own process"
    )
  rates = sum(own * one.structure() for one, own in parts)
  return rate_matrix(rates, first.shape, schedule=first.schedule, t_min=first.t_min, t_max=first.t_max)


def _check_one_clock(parts):
  """Raises ValueError unless the schedules are one."""
  times = np.linspace(float(parts[0].t_min), float(parts[0].t_max), 33)[:-1]
  alphas = [np.asarray(one.clock(times).alpha) for one in parts]
  if any(np.abs(own - alphas[0]).max() > 1e-9 for own in alphas[1:]):
    raise ValueError(
      "noises of one mixture that do not commute share one schedule, and those of "
      f"{', '.join(one.name for one in parts)} differ: give them the same"
    )
