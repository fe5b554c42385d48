"""Exponential Runge-Kutta methods: several evaluations inside each step, none remembered from the last."""

from collections.abc import Callable
from typing import Any

import numpy as np

from diffusion.solvers.about import About
from diffusion.solvers.grid_nodes import nodes
from diffusion.solvers.table import Table, build


def exponential_runge_kutta(
  process: Any,
  grid: Any,
  fractions: Any,
  tableau: Callable[..., Any],
  prediction: str,
  about: About,
  view: str = "x0",
  dtype: Any = np.float32,
) -> Table:
  """An explicit exponential Runge-Kutta method on the data or the noise prediction.

  It solves d(x/sigma) = e^lambda D d lambda or d(x/alpha) = -e^-lambda eps d lambda. Stage i is evaluated at
  lambda + c_i h, at x_i = r_i x + k_i h sum_j a_ij(z) E_j, with r_i = sigma_i/sigma, k_i = alpha_i and z = -h
  for E = D; with r_i = alpha_i/alpha, k_i = -sigma_i and z = h for E = eps. Likewise the end of the step with
  b_j(z).

  Args:
    process: the Gaussian process.
    grid: [n+1] or [B, n+1] decreasing times, not traced. Infinitely long steps, from alpha = 0 or to sigma =
      0, are DDIM's, of one evaluation.
    fractions: c_2, ..., c_s in (0, 1].
    tableau: (z [..., n], c: list of [..., n] with c_1 = 0) -> (a, b), a a list of s - 1 lists and b of s
      entries, [..., n]. The times of stages are rounded as nodes are, and c is what they are after that.
    prediction: 'x0' or 'eps', what is held in E.
    about: name, order and process.
    view: 'x0' or 'eps', what the network is asked for.
    dtype: precision at run time.

  Returns:
    A table of s rows a step. Slots: the step's start and its first s - 1 evaluations.
  """
  n = nodes(process, grid, dtype)
  if n.from_noise is None:
    raise ValueError(
      f"the ends of a grid decide the number of {about.name}'s rows: give it a grid that is not traced"
    )
  if view not in ("x0", "eps"):
    raise ValueError(f"the network can be asked for 'x0' or 'eps', got view={view!r}")
  if view == "eps" and n.from_noise:
    raise ValueError(
      "the grid starts where there is no signal (alpha = 0), where eps says nothing of the data: start the "
      "grid"
      " at an earlier time, or use view='x0'"
    )
  stages, zero = len(fractions) + 1, np.zeros_like(n.s)
  # Masked where a step is infinitely long; such a step has one row, without these numbers.
  h, a, s1 = (np.where(n.long, 1.0, leaf) for leaf in (n.h, n.a, n.s1))
  clock = np.log(a) - np.log(n.s)
  # Where each stage is evaluated: its time and marginal and how far through the step it is.
  times, alphas, sigmas, c = [n.t[..., :-1]], [n.a], [n.s], [zero]
  for fraction in fractions:
    t = n.t[..., 1:]
    if fraction < 1:
      t = np.where(
        n.long, t, process.t_of_log_snr(2 * (clock + fraction * h)).astype(dtype).astype(np.float64)
      )
    m = process.marginal(t)
    inside = [np.where(n.long, 1.0, leaf) for leaf in (m.alpha, m.sigma)]
    times.append(t)
    alphas.append(inside[0])
    sigmas.append(inside[1])
    c.append(np.where(n.long, fraction, (np.log(inside[0]) - np.log(inside[1]) - clock) / h))
  of_data = prediction == "x0"
  inner, outer = tableau(-h if of_data else h, c)
  ratios = [(s / n.s if of_data else m / a) for m, s in zip([*alphas[1:], n.a1], [*sigmas[1:], s1])]
  scales = [(m if of_data else -s) * h for m, s in zip([*alphas[1:], n.a1], [*sigmas[1:], s1])]
  # One row a stage. A long step keeps its first, which is DDIM's on what the network returns.
  direct = (n.s1 / n.s, n.a1 - n.a * n.s1 / n.s) if view == "x0" else (n.a1 / a, n.s1 - n.s * n.a1 / a)
  rows = {name: [] for name in ("t", "g", "h", "A", "B", "w", "hook")}
  for i in range(stages):
    last = i == stages - 1
    g_row, h_row = _conversion(prediction, view, alphas[i], sigmas[i])
    single = n.long & (i == 0)
    rows["t"].append(times[i])
    rows["g"].append(np.where(single, 0.0, g_row))
    rows["h"].append(np.where(single, 1.0, h_row))
    point = [1.0] if i == 0 else [ratios[i - 1], *(scales[i - 1] * weight for weight in inner[i - 1])]
    rows["w"].append(point + [0.0] * (stages - len(point)))
    A, B = np.zeros((stages, stages) + n.s.shape), np.zeros((stages,) + n.s.shape)
    if last:
      A[0] = np.stack(np.broadcast_arrays(ratios[-1], *(scales[-1] * weight for weight in outer[:-1])))
      B[0] = scales[-1] * outer[-1]
    else:
      A[np.arange(i + 1), np.arange(i + 1)] = 1.0
      B[i + 1] = 1.0
    A[0, 0], B[0] = np.where(single, direct[0], A[0, 0]), np.where(single, direct[1], B[0])
    rows["A"].append(A)
    rows["B"].append(B)
    rows["hook"].append(np.where(single, 1.0, float(last)))
  first = stages * np.arange(n.s.shape[-1])
  some = n.long.reshape(-1, n.long.shape[-1])[0]
  kept = np.sort(np.concatenate([first, *(first[~some] + i for i in range(1, stages))]))
  along = lambda parts: np.stack(np.broadcast_arrays(zero, *parts)[1:], axis=-1).reshape(
    n.s.shape[:-1] + (-1,)
  )[..., kept]
  end = lambda leaf, value: np.concatenate([leaf, np.broadcast_to(value, leaf[..., :1].shape)], axis=-1)
  slots = range(stages)
  return build(
    end(along(rows["t"]), n.t[..., -1:]),
    A=[[along([A[k, j] for A in rows["A"]]) for j in slots] for k in slots],
    B=[along([B[k] for B in rows["B"]]) for k in slots],
    g=along(rows["g"]),
    h=along(rows["h"]),
    w=[end(along([w[k] for w in rows["w"]]), float(k == 0)) for k in slots],
    hook=[along(rows["hook"])] + [0.0] * (stages - 1),
    view=view,
    about=about,
    dtype=dtype,
  )


def _conversion(prediction, view, a, s):
  """(g, h) of E = g u + h (what the network returns)."""
  if prediction == view:
    return 0.0, 1.0
  a = np.where(a > 0, a, 1.0)
  return (1 / s, -a / s) if prediction == "eps" else (1 / a, -s / a)
