"""The times of diffusers' schedulers on rectified flow.

They are flow matching's own, and those of DPM-Solver, UniPC, DEIS and SA-Solver with `use_flow_sigmas`.
"""

from typing import Any

import numpy as np

from diffusion import processes
from diffusion.solvers.diffusers.levels import Levels, at_levels, betas_of, chosen, ends, spaced


def of_flow(c: dict[str, Any], sigma: np.ndarray, end: float, whole: bool) -> Levels:
  """Levels of rectified flow, sigma = t.

  With `whole` the network is handed the whole part of N t, of a number computed in float64 there too.
  """
  count = c["num_train_timesteps"]
  fed = count * sigma
  fed = np.trunc(fed) if whole else fed
  sigma = np.append(sigma, end)
  t = np.append(fed / count, end)
  return at_levels(processes.rectified_flow(), fed, t, 1 - sigma, sigma, sigma=sigma)


def dpm_flow_sigmas(c: dict[str, Any], n: int, shift: float) -> np.ndarray:
  """The flow times [n] of DPM-Solver, DEIS and SA-Solver, which start below 1."""
  return shifted(1 - np.linspace(1, 1 / c["num_train_timesteps"], n + 1), shift)[::-1][:-1]


def unipc_flow_sigmas(c: dict[str, Any], n: int, mu: float | None) -> np.ndarray:
  """The flow times [n] of UniPC."""
  count = c["num_train_timesteps"]
  if c["use_karras_sigmas"]:
    table = np.sqrt(1 / np.cumprod(1 - betas_of(c)) - 1)
    high, low = ends(c, table[-1], table[0])
    sigma = spaced("karras", high, low, n)
    return sigma / (sigma + 1)
  sigma = stretched(
    _moved(c, np.linspace(1, 1 / count, n + 1)[:-1], c["flow_shift"], mu), c["shift_terminal"]
  )
  sigma[0] -= 1e-6 * (abs(sigma[0] - 1) < 1e-6)
  return sigma


def flow_euler_sigmas(c: dict[str, Any], n: int, mu: float | None) -> np.ndarray:
  """The flow times [n] of flow matching's Euler and Heun.

  The shift is applied to both ends of the spacing, and again to all of it.
  """
  count, shift = c["num_train_timesteps"], c["shift"]
  first, last = 1.0, 1 / count
  if not c.get("use_dynamic_shifting"):
    first, last = shifted(first, shift), shifted(last, shift)
  sigma = stretched(_moved(c, np.linspace(first, last, n), shift, mu), c.get("shift_terminal"))
  kind = chosen(c)
  return spaced(kind, sigma[0], sigma[-1], n) if kind else sigma


def _moved(c, sigma, shift, mu):
  """Shifted by a constant, or by e^mu or mu where the shift depends on the number of tokens."""
  if not c.get("use_dynamic_shifting"):
    return shifted(sigma, shift)
  return shifted(sigma, np.exp(mu) if c["time_shift_type"] == "exponential" else mu)


def stretched(sigma: np.ndarray, terminal: float | None) -> np.ndarray:
  """1 - sigma stretched so that the last level is `terminal`, or sigma itself for None or 0."""
  if not terminal:
    return sigma
  if sigma[-1] == 1:
    raise ValueError(
      f"shift_terminal={terminal:g} stretches what lies between the first level and the last, and one step "
      "has one level, which gives NaN: take two steps or more, or leave it out"
    )
  return 1 - (1 - sigma) / ((1 - sigma[-1]) / (1 - terminal))


def shifted(sigma: Any, shift: float) -> Any:
  """s sigma / (1 + (s - 1) sigma) (arXiv:2403.03206, eq. 23)."""
  return shift * sigma / (1 + (shift - 1) * sigma)
