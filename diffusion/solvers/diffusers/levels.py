"""The times and noise levels of diffusers' schedulers for so many steps, in float64.

diffusers counts timesteps k = 0, ..., N - 1 over a table of betas and spaces either k or sigma = sqrt((1 -
abar)/abar). Here k is the time t = (k + 1)/N of `processes.vp_ladder`. A scheduler that spaces sigma hands
the network the nearest, the next smaller, or the interpolated k, and steps with sigma itself: both are kept.
"""

import dataclasses
from typing import Any

import numpy as np

from diffusion import processes


@dataclasses.dataclass(frozen=True)
class Levels:
  """Times and levels of n rows.

  Attributes:
    process: the process whose times they are.
    fed: [n] what diffusers hands the network, its `timesteps`.
    t: [n+1] the same as times of the process, and where the last row ends.
    sigma: [n+1] noise to signal of diffusers' steps, its `sigmas`; for flow processes the time itself.
    a, s: [n+1] signal and noise scale where a row starts, and where the last one ends.
    a1, s1: [n] the same where it ends, which need not be where the next one starts.
    start: factor of a draw from the process's prior.
  """

  process: Any
  fed: np.ndarray
  t: np.ndarray
  sigma: np.ndarray
  a: np.ndarray
  s: np.ndarray
  a1: np.ndarray
  s1: np.ndarray
  start: float = 1.0


def at_levels(
  process: Any,
  fed: np.ndarray,
  t: np.ndarray,
  a: np.ndarray,
  s: np.ndarray,
  *,
  sigma: np.ndarray | None = None,
  ends: tuple[np.ndarray, np.ndarray] | None = None,
  start: float = 1.0,
) -> Levels:
  """`Levels` from signal and noise scales a, s.

  a, s are [n+1], or [n] and `ends` (a1, s1), each [n]; sigma is s/a where it is not given.
  """
  a1, s1 = (a[1:], s[1:]) if ends is None else ends
  if ends is not None:
    a, s = np.append(a, a1[-1]), np.append(s, s1[-1])
  with np.errstate(divide="ignore"):
    return Levels(process, fed, t, s / a if sigma is None else sigma, a, s, a1, s1, float(start))


def betas_of(c: dict[str, Any]) -> np.ndarray:
  """The table of betas of a config: [N] float64, the last one 1 with `rescale_betas_zero_snr`.

  >>> config = dict(num_train_timesteps=3, beta_start=0.1, beta_end=0.3, beta_schedule="linear")
  >>> betas_of(config).round(3).tolist()
  [0.1, 0.2, 0.3]
  """
  count = c["num_train_timesteps"]
  if c.get("trained_betas") is not None:
    betas = np.asarray(c["trained_betas"], np.float64)
  elif c["beta_schedule"] == "linear":
    betas = np.linspace(c["beta_start"], c["beta_end"], count)
  elif c["beta_schedule"] == "scaled_linear":
    betas = np.linspace(c["beta_start"] ** 0.5, c["beta_end"] ** 0.5, count) ** 2
  else:
    betas = processes.cosine_betas(count)
  if not c.get("rescale_betas_zero_snr"):
    return betas
  # arXiv:2305.08891, algorithm 1: the roots of abar, moved and stretched so that the last is zero.
  root = np.sqrt(np.cumprod(1 - betas))
  root = (root - root[-1]) * root[0] / (root[0] - root[-1])
  return 1 - np.concatenate([root[:1] ** 2, (root[1:] / root[:-1]) ** 2])


def beta_table(c: dict[str, Any], floor: bool) -> tuple[Any, np.ndarray]:
  """The process of a config and its table of abar: (process, abar [N]).

  With `floor` an abar of zero is 2^-24, as Euler, DPM-Solver and UniPC have it.
  """
  betas = betas_of(c)
  abar = np.cumprod(1 - betas)
  if abar[-1] == 0 and floor:
    abar[-1] = 2.0**-24
    if abar[-2] <= abar[-1]:
      raise ValueError(
        f"rescale_betas_zero_snr floors abar of the last timestep at 2^-24 = {abar[-1]:.3g}, and the one "
        f"before has {abar[-2]:.3g}: noise would fall towards the end; use another table of betas, or "
        "DDIMScheduler"
      )
    betas = np.append(betas[:-1], 1 - abar[-1] / abar[-2])
  if abar[-1] == 0:
    return processes.zero_snr_ladder(betas), abar
  return processes.vp_ladder(betas), abar


def closed(c: dict[str, Any], n: int, whole: bool) -> np.ndarray:
  """Timesteps [n] of the schedulers whose 'linspace' includes 0.

  They are DDIM, DDPM, PNDM (whole numbers), Euler, Heun, LMS.

  >>> closed(dict(num_train_timesteps=1000, timestep_spacing="leading", steps_offset=1), 4, True).tolist()
  [751.0, 501.0, 251.0, 1.0]
  """
  count, spacing = c["num_train_timesteps"], c["timestep_spacing"]
  if spacing == "linspace":
    k = np.linspace(0, count - 1, n)[::-1]
    return k.round() if whole else k
  if spacing == "leading":
    return (np.arange(n) * (count // n))[::-1].astype(np.float64) + c["steps_offset"]
  return _trailing(count, count / n, n)


def opened(c: dict[str, Any], n: int, last: int) -> np.ndarray:
  """Timesteps [n] of the schedulers that leave out the end of 'linspace'.

  They are DPM-Solver, UniPC, DEIS and SA-Solver. `last` is the first timestep that is clipped, N without
  clipping.
  """
  spacing = c.get("timestep_spacing", "linspace")
  if spacing == "linspace":
    return np.linspace(0, last - 1, n + 1).round()[::-1][:-1]
  if spacing == "leading":
    return (np.arange(n + 1) * (last // (n + 1)))[::-1][:-1].astype(np.float64) + c["steps_offset"]
  return _trailing(last, c["num_train_timesteps"] / n, n)


def _trailing(start: int, step: float, n: int) -> np.ndarray:
  """Timesteps by 'trailing' spacing: start, start - step, ... less one, in whole numbers.

  diffusers has one too many for some n, by rounding.
  """
  k = np.round(np.arange(start, 0, -step))[:n] - 1
  return k[k >= 0]


def spaced(kind: str, high: float, low: float, n: int, rho: float = 7.0) -> np.ndarray:
  """n falling noise levels from `high` to `low`, by a spacing of this kind.

  The kinds are 'karras' (arXiv:2206.00364, eq. 5), 'exponential', and 'beta', quantiles of Beta(0.6, 0.6)
  (arXiv:2407.12173, in sigma).
  """
  ramp = np.linspace(0, 1, n)
  if kind == "karras":
    return (high ** (1 / rho) + ramp * (low ** (1 / rho) - high ** (1 / rho))) ** rho
  if kind == "exponential":
    return np.exp(np.linspace(np.log(high), np.log(low), n))
  from scipy.special import betaincinv  # a fifth of a second to import, and this spacing alone needs it

  return low + betaincinv(0.6, 0.6, 1 - ramp) * (high - low)


def timestep_of(sigma: np.ndarray, table: np.ndarray) -> np.ndarray:
  """The timestep whose log sigma is that of a level.

  It is linear between entries of the table and clipped to it.
  """
  return np.interp(np.log(sigma), np.log(table), np.arange(len(table)))


def chosen(c: dict[str, Any]) -> str | None:
  """Which spacing of sigmas a config asks for."""
  for kind in ("karras", "exponential", "beta"):
    if c.get(f"use_{kind}_sigmas"):
      return kind
  return "lu" if c.get("use_lu_lambdas") else None


def of_euler(c: dict[str, Any], n: int) -> Levels:
  """Levels of Euler, Heun and LMS: fractional timesteps, and noise scaled to the largest sigma."""
  process, abar = beta_table(c, floor=True)
  table, count = np.sqrt((1 - abar) / abar), len(abar)
  k, kind = closed(c, n, whole=False), chosen(c)
  sigma = np.interp(k, np.arange(count), table)
  end = table[0] if c.get("final_sigmas_type") == "sigma_min" else 0.0
  if c.get("interpolation_type") == "log_linear":
    *sigma, last = np.exp(np.linspace(np.log(table[-1]), np.log(table[0]), n + 1))
    # With log_linear there is one level more than steps, and what final_sigmas_type appends is not reached.
    sigma, end = np.array([*sigma, last] if kind else sigma), end if kind else last
  if kind:
    high, low = ends(c, sigma[0], sigma[-1])
    sigma = spaced(kind, high, low, n)
    k = timestep_of(sigma, table)
  largest = sigma.max()
  start = largest if c["timestep_spacing"] != "leading" else np.sqrt(largest**2 + 1)
  return _levels(process, table, k, np.append(sigma, end), start / np.sqrt(sigma[0] ** 2 + 1))


def of_dpm(c: dict[str, Any], n: int, *, rounds: bool = True, end: str | None = None) -> Levels:
  """Levels of DPM-Solver, UniPC, DEIS and SA-Solver: whole timesteps beside sigmas of any spacing.

  Args:
    c: the options.
    n: number of steps.
    rounds: whether the timesteps of Karras's sigmas are rounded on every table; else they are cut off on the
      cosine table.
    end: where the run ends with `final_sigmas_type` 'sigma_min': None for the table's smallest sigma, 'last'
      for that of the spacing once more.
  """
  process, abar = beta_table(c, floor=True)
  table, count = np.sqrt((1 - abar) / abar), len(abar)
  clip, kind = c.get("lambda_min_clipped", -np.inf), chosen(c)
  clipped = int(np.searchsorted(-np.log(table)[::-1], clip))
  k = opened(c, n, count - clipped)
  sigma, last = np.interp(k, np.arange(count), table), table[0]
  if kind:
    high, low = ends(c, table[-1], table[0])
    sigma = spaced("exponential" if kind == "lu" else kind, high, low, n)
    k = timestep_of(sigma, table)
    k = (
      k.round()
      if kind in ("karras", "lu") and (rounds or c["beta_schedule"] != "squaredcos_cap_v2")
      else _cut(k)
    )
    last = sigma[-1] if end == "last" else table[0]
  return _levels(process, table, k, np.append(sigma, 0.0 if c["final_sigmas_type"] == "zero" else last), 1.0)


def ends(c: dict[str, Any], high: float, low: float) -> tuple[float, float]:
  """The ends (high, low) of a spacing of sigmas: the config's own where it has them."""
  given = lambda key, value: value if c.get(key) is None else c[key]
  return given("sigma_max", high), given("sigma_min", low)


def _cut(k):
  """The whole part, as diffusers' cast to integers.

  What is a whole number but for rounding stays that number.
  """
  return np.floor(k + 1e-6)


def _levels(process, table, k, sigma, start):
  a = 1 / np.sqrt(sigma**2 + 1)
  last = 0.0 if sigma[-1] == 0 else times(timestep_of(sigma[-1:], table), len(table))
  t = np.append(times(k, len(table)), last)
  return at_levels(process, k, t, a, sigma * a, sigma=sigma, start=start)


def times(k: np.ndarray, count: int) -> np.ndarray:
  """The times (k + 1)/N of timesteps.

  Raises:
    ValueError: a timestep that is not in the table.
  """
  if k.max() > count - 1 or k.min() < 0:
    raise ValueError(
      f"the timesteps run from {k.max():g} to {k.min():g} and the table has 0 to {count - 1}: use a smaller "
      "steps_offset or another number of steps"
    )
  return (k + 1) / count


def of_edm(c: dict[str, Any], n: int) -> Levels:
  """EDM's levels, at which the network is handed log(sigma)/4."""
  kind = c["sigma_schedule"]
  sigma = spaced(kind, c["sigma_max"], c["sigma_min"], n, c["rho"])
  sigma = np.append(sigma, 0.0 if c["final_sigmas_type"] == "zero" else c["sigma_min"])
  start = np.sqrt(c["sigma_max"] ** 2 + 1) / c["sigma_max"]
  process = processes.edm(c["sigma_min"], c["sigma_max"])
  return at_levels(process, np.log(sigma[:-1]) / 4, sigma, np.ones_like(sigma), sigma, start=start)


def of_consistency(c: dict[str, Any], n: int) -> Levels:
  """Every so many of the consistency scheduler's Karras levels; the network is handed 250 log(sigma)."""
  count = c["num_train_timesteps"]
  if n > count:
    raise ValueError(f"the consistency scheduler has {count} levels, got {n} steps: take at most as many")
  ramp, rho = np.arange(n) * (count // n) / (count - 1), c["rho"]
  high, low = c["sigma_max"] ** (1 / rho), c["sigma_min"] ** (1 / rho)
  sigma = np.append((high + ramp * (low - high)) ** rho, c["sigma_min"])
  process = processes.edm(c["sigma_min"], c["sigma_max"])
  return at_levels(process, 250 * np.log(sigma[:-1]), sigma, np.ones_like(sigma), sigma)


def of_ipndm(n: int) -> Levels:
  """iPNDM's levels sin(pi u / 2)^2 for equal steps in u, which are times of the cosine process."""
  s = np.append(np.sin(np.linspace(1, 0, n + 1)[:-1] * np.pi / 2) ** 2, 0.0)
  a = np.sqrt(1 - s**2)
  t = np.arctan2(s, a) / np.pi * 2
  return at_levels(processes.vp_cosine(), t[:-1], t, a, s)
