"""A fine solution of the probability flow, and its own error.

Samplers with few steps are fitted to it and judged by it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffusion.solvers.deis import lms
from diffusion.solvers.executor import sample
from diffusion.solvers.fit_coordinates import clock, noise_to_signal


class Reference(NamedTuple):
  """A fine solution from common starts.

  Attributes:
    end: [n, ...] where the flow takes the starts.
    error: root mean square difference between `end` and the same with half as many steps; NaN if it was not
      computed.
    clocks: [M] even values of `fit_coordinates.clock`, increasing, or None.
    data: [M, n, ...] the denoiser's x0 along the flow at those, or None.
  """

  end: Any
  error: float = float("nan")
  clocks: Any = None
  data: Any = None


def fine_grid(process: Any, n: int, first: Any, last: Any) -> np.ndarray:
  """Times of n steps that are even in `fit_coordinates.clock`: [n+1].

  They are logarithmic in sigma/alpha at high noise and linear near the data.
  """
  ends = process.marginal(np.array([first, last], np.float64))
  start, stop = clock(ends.alpha, ends.sigma)
  rho = noise_to_signal(np.linspace(start, stop, n + 1))[1:-1]
  return np.concatenate([[first], process.t_of_log_snr(-2 * np.log(rho)), [last]])


def reference(
  denoiser: Any,
  x: Any,
  *,
  first: Any = None,
  last: Any = None,
  cond: Any = None,
  steps: int = 400,
  kept: int = 80,
  batch: int = 256,
  place: Callable[..., Any] | None = None,
) -> Reference:
  """Solves the probability flow by Adams-Bashforth of order 4 in sigma/alpha.

  It takes `steps` evaluations, and solves again with half as many.

  Args:
    denoiser: a denoiser, guided or not.
    x: [n, ...] starts at `first`.
    first, last: the times to solve from and to; by default the process's t_max and 0.
    cond: None or a dict of arrays with leading axis n.
    steps: evaluations of the finer solution.
    kept: how many of its points are kept with their prediction of the data, or 0.
    batch: how many starts at a time; the last call is filled up.
    place: puts a [batch, ...] array on the devices.

  Returns:
    A `Reference` on the host.

  Raises:
    ValueError: steps that are not an even multiple of kept.

  >>> from diffusion import oracles, processes
  >>> process = processes.vp_linear()
  >>> x = jax.random.normal(jax.random.key(0), (4, 1))
  >>> found = reference(oracles.gaussian(process, jnp.zeros(1), 0.25 * jnp.eye(1)), x, steps=160)
  >>> bool(np.abs(found.end - 0.5 * x).max() < 1e-4), found.error < 1e-3     # N(0, 1/4) from N(0, 1)
  (True, True)
  """
  process = jax.tree.map(np.asarray, denoiser.process)
  if steps % 2 or (kept and steps % kept):
    raise ValueError(f"steps must be even and a multiple of kept, got {steps} and {kept}")
  first, last = float(process.t_max if first is None else first), float(0.0 if last is None else last)
  dtype = jnp.asarray(x).dtype
  fine, coarse = (lms(process, fine_grid(process, n, first, last), dtype=dtype) for n in (steps, steps // 2))
  at = np.arange(0, steps + 1, steps // kept) if kept else None
  ends, rough, data = [], [], []
  place, batch = place or (lambda array: array), min(batch, len(x))
  for rows in split(len(x), batch):
    index, count = (rows.start + np.arange(batch)) % len(x), rows.stop - rows.start
    part, labels = jax.tree.map(lambda leaf, index=index: place(jnp.asarray(leaf)[index]), (x, cond))
    rough.append(np.asarray(sample(denoiser, coarse, part, cond=labels))[:count])
    if not kept:
      ends.append(np.asarray(sample(denoiser, fine, part, cond=labels))[:count])
      continue
    states = sample(denoiser, fine, part, cond=labels, trajectory=True)
    ends.append(np.asarray(states[0])[:count])
    data.append(
      np.asarray(_predict(denoiser, jnp.asarray(fine.t[at], dtype), states[1][at], labels))[:, :count]
    )
  end = np.concatenate(ends)
  error = rms(end - np.concatenate(rough))
  if not kept:
    return Reference(end, error)
  m = process.marginal(np.asarray(fine.t, np.float64)[at])
  data = np.concatenate(data, axis=1)
  if m.sigma[-1] == 0:
    data[-1] = end / m.alpha[-1]
  return Reference(end, error, clock(m.alpha, m.sigma), data)


def split(count: int, batch: int) -> list[slice]:
  """Slices of at most `batch` rows."""
  return [slice(begin, min(begin + batch, count)) for begin in range(0, count, batch)]


def rms(difference: Any) -> float:
  """Root mean square of all entries, inf where something is not finite."""
  value = float(np.sqrt(np.mean(np.asarray(difference, np.float64) ** 2)))
  return value if np.isfinite(value) else float("inf")


@jax.jit
def _predict(denoiser, times, states, cond):
  """x0 at each of some states: [M, B, ...]."""
  at = lambda pair: denoiser(pair[1], jnp.broadcast_to(pair[0], pair[1].shape[:1]), cond, views=("x0",)).x0
  return jax.lax.map(at, (times, states))
