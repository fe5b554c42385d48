"""The nodes of a time grid and their coefficients in float64, which every table builder starts from."""

from typing import Any, NamedTuple

import numpy as np
from jax.core import Tracer


class Nodes(NamedTuple):
  """Steps i = 0..n-1 from node i to node i + 1, as float64 arrays of the builder's namespace.

  Attributes:
    t: [..., n+1] times, rounded to the run-time precision.
    a, s: [..., n] alpha and sigma where the step starts.
    a1, s1: [..., n] alpha and sigma where it ends.
    h: [..., n] increase of log(alpha/sigma); inf where the step leaves pure noise or ends in clean data.
    long: [..., n] whether h is infinite: such a step has its first-order limit as its coefficients.
    from_noise: whether the first node has alpha = 0 (None if the grid is traced).
    to_data: whether the last node has sigma = 0 (None if the grid is traced).
    marginal: the process's `Marginal` on all nodes, [..., n+1].
  """

  t: Any
  a: Any
  s: Any
  a1: Any
  s1: Any
  h: Any
  long: Any
  from_noise: bool | None
  to_data: bool | None
  marginal: Any


def nodes(
  process: Any, grid: Any, dtype: Any = np.float32, xp: Any = np, at_least: int = 1, of: str = "a solver"
) -> Nodes:
  """Checks a grid, rounds it to the run-time precision and evaluates the process on it in float64.

  The network is handed the rounded times, so the coefficients belong to them and not to the times that
  were asked for.

  Args:
    process: the Gaussian process.
    grid: [n+1] times from noise to data, or [B, n+1], one grid a sample.
    dtype: precision at run time.
    xp: numpy, or jax.numpy under x64 where nodes are differentiated.
    at_least: steps that the solver needs: a multistep method combines so many evaluations and never has its
      order in fewer.
    of: the solver's name with its order, for the message.

  Raises:
    TypeError: a process without log-SNR.
    ValueError: too few steps, or a grid that does not strictly decrease, leaves [0, inf), or has a node
      without signal before its first or without noise before its last.

  >>> from diffusion import processes
  >>> nodes(processes.edm(), [2.0, 1.0, 0.0]).h
  array([0.69314718,        inf])
  """
  require_log_snr(process)
  traced = isinstance(grid, Tracer)
  t = xp.asarray(grid, dtype=np.float64)
  if t.ndim not in (1, 2) or t.shape[-1] < 2:
    raise ValueError(
      f"a grid is [n+1] or [B, n+1] times with n >= 1, got shape {t.shape}: see diffusion.solvers.grids"
    )
  if not traced:
    _check_times(np.asarray(t), np.asarray(t).astype(dtype))
  t = t.astype(dtype).astype(np.float64)
  m = process.marginal(t)
  from_noise = to_data = None
  if not traced:
    from_noise, to_data = _check_ends(process, np.asarray(m.alpha), np.asarray(m.sigma))
  if t.shape[-1] <= at_least:
    raise ValueError(
      f"{of} combines {at_least} evaluations and needs at least as many steps, got {t.shape[-1] - 1}: take "
      "more steps or a lower order"
    )
  # log(alpha/sigma) with the ends masked before the logarithm, so that gradients are finite as well.
  clock = xp.log(xp.where(m.alpha > 0, m.alpha, 1.0)) - xp.log(xp.where(m.sigma > 0, m.sigma, 1.0))
  long = (m.alpha[..., :-1] <= 0) | (m.sigma[..., 1:] <= 0)
  h = xp.where(long, np.inf, clock[..., 1:] - clock[..., :-1])
  ends = (m.alpha[..., :-1], m.sigma[..., :-1], m.alpha[..., 1:], m.sigma[..., 1:])
  return Nodes(t, *ends, h, long, from_noise, to_data, m)


def require_log_snr(process: Any) -> None:
  """Requires a process with alpha, sigma and log-SNR.

  All solver tables and adaptive steps are made of these. Raises TypeError for any other process.
  """
  missing = [name for name in ("marginal", "log_snr", "t_of_log_snr") if not hasattr(process, name)]
  if missing:
    raise TypeError(
      f"samplers need a process with log-SNR, and {type(process).__name__} has no {', '.join(missing)}: use "
      "a Gaussian process of"
      " diffusion.processes"
    )


def _check_times(asked, rounded):
  if not np.isfinite(asked).all() or asked.min() < 0:
    raise ValueError(
      f"grid times must be finite and not negative, got values from {asked.min()} to {asked.max()}"
    )
  for what, t in (("as given", asked), (f"rounded to {rounded.dtype}", rounded)):
    bad = np.argwhere(np.diff(t, axis=-1) >= 0)
    if bad.size:
      index = tuple(bad[0])
      after = index[:-1] + (index[-1] + 1,)
      raise ValueError(
        f"a grid runs from noise to data and must strictly decrease; {what}, node {index[-1]} is {t[index]} "
        "and"
        f" node {after[-1]} is {t[after]}: reverse it, or use fewer steps if two nodes have become equal"
      )


def _check_ends(process, alpha, sigma):
  if not (alpha[..., 1:] > 0).all() or not (sigma[..., :-1] > 0).all():
    raise ValueError(
      f"on the process {process.name!r} only the first node may have no signal (alpha = 0) and only the last "
      "no"
      f" noise (sigma = 0), got alpha {alpha.tolist()} and sigma {sigma.tolist()}: take out the other such "
      "nodes"
    )
  from_noise, to_data = alpha[..., 0] == 0, sigma[..., -1] == 0
  for what, flag in (("start without signal", from_noise), ("end without noise", to_data)):
    if flag.any() != flag.all():
      raise ValueError(
        f"some of the per-sample grids {what} and some do not, which would be different programs: make them "
        "alike"
      )
  return bool(from_noise.any()), bool(to_data.any())
