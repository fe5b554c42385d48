"""The levels of diffusers' schedulers that look up whole timesteps of a table: DDIM, DDPM, LCM and PNDM."""

from typing import Any

import numpy as np

from diffusion.solvers.diffusers.levels import Levels, at_levels, beta_table, closed, times


def of_whole_timesteps(c: dict[str, Any], n: int) -> Levels:
  """DDIM's levels: every step goes N // n timesteps on, wherever the next timestep is."""
  k = _spaced(c, n)
  return _looked_up(c, k, k - c["num_train_timesteps"] // n)


def of_next_timestep(c: dict[str, Any], n: int) -> Levels:
  """DDPM's levels: every step ends at the next timestep, and the last without noise."""
  k = _spaced(c, n)
  return _looked_up(c, k, np.append(k[1:], -1))


def of_distilled_timesteps(c: dict[str, Any], n: int) -> Levels:
  """LCM's levels: n of the timesteps that it was distilled on, evenly from the last one down."""
  count, original = c["num_train_timesteps"], c["original_inference_steps"]
  if n > original or original > count:
    raise ValueError(
      f"LCMScheduler takes its {n} steps from original_inference_steps={original} of {count} timesteps: "
      f"take at most {min(original, count)}"
    )
  origin = (np.arange(1, original + 1) * (count // original) - 1)[::-1]
  k = origin[np.floor(np.linspace(0, original, n, endpoint=False)).astype(int)].astype(np.float64)
  return _looked_up(c | dict(set_alpha_to_one=True), k, np.append(k[1:], -1))


def of_pndm(c: dict[str, Any], n: int) -> tuple[Levels, int]:
  """(levels of all evaluations, how many of them are pseudo Runge-Kutta): each with where it starts and ends.

  A start is `fed` of the step, not of the evaluation: `a` and `s` are the scales there.
  """
  k, ratio = _spaced(c, n)[::-1], c["num_train_timesteps"] // n
  if c["skip_prk_steps"]:
    if n < 2:
      raise ValueError("PNDMScheduler evaluates the second timestep twice and needs two steps or more, got 1")
    rows = np.concatenate([k[:-1], k[-2:-1], k[-1:]])[::-1]
    start, end = rows.copy(), rows - ratio
    start[1], end[1] = rows[0], rows[0] - ratio
    return _looked_up(c, rows, end, start), 0
  if n < 4:
    raise ValueError(
      f"PNDMScheduler starts with three steps of four evaluations and needs four steps, got {n}"
    )
  pairs = k[-4:].repeat(2) + np.tile([0, ratio // 2], 4)
  first = pairs[:-1].repeat(2)[1:-1][::-1]
  rows = np.concatenate([first, k[:-3][::-1]])
  i = np.arange(len(first))
  end = np.concatenate([first - np.where(i % 2, 0, ratio // 2), rows[len(first) :] - ratio])
  start = np.concatenate([first[i // 4 * 4], rows[len(first) :]])
  return _looked_up(c, rows, end, start), len(first)


def _spaced(c, n):
  if n > c["num_train_timesteps"]:
    raise ValueError(
      f"the table has {c['num_train_timesteps']} timesteps, got {n} steps: take at most as many as it has"
    )
  return closed(c, n, whole=True)


def _looked_up(c, k, ends, starts=None):
  process, abar = beta_table(c, floor=False)
  t = np.append(times(k, len(abar)), np.maximum(ends[-1] + 1, 0) / len(abar))
  first = 1.0 if c.get("set_alpha_to_one", True) else abar[0]
  table = np.append(abar, first)  # which timestep -1 finds at the end
  scales = lambda k: table[np.where(k >= 0, k, len(abar)).astype(int)]
  here, there = scales(k if starts is None else starts), scales(ends)
  return at_levels(process, k, t, np.sqrt(here), np.sqrt(1 - here), ends=(np.sqrt(there), np.sqrt(1 - there)))
