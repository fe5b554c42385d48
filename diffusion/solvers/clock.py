"""The clock of samplers that choose their own steps: lambda = log(alpha / sigma).

It is computed where the state lives. The samplers' state is u = x / norm, norm = sqrt(alpha^2 + sigma^2), in
which every process with the same log-SNR follows the same path as the variance-preserving one
(arXiv:2107.00630, appendix on equivalence): a tolerance means the same on all of them, and is the published
one on VP.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from diffusion.processes import GaussianProcess
from diffusion.solvers.grid_nodes import require_log_snr
from diffusion.solvers.grids import LARGEST_RHO


@struct.dataclass
class Span:
  """From where to where a sampler runs.

  Attributes:
    process: the Gaussian process.
    t_max, t_min: times of its ends.
    start, end: lambda where steps begin and where they end.
    from_noise: whether t_max has no signal (alpha = 0); a first-order step leads from there to `start`.
  """

  process: GaussianProcess
  t_max: Any
  t_min: Any
  start: Any
  end: Any
  from_noise: bool = struct.field(pytree_node=False)


class Node(NamedTuple):
  """A place in the run, each field [B]: its time, norm, and alpha and sigma over the norm."""

  t: Any
  norm: Any
  a: Any
  s: Any


def span(process: Any, t_max: float | None = None, t_min: float | None = None) -> Span:
  """Checks the ends of a run on the host.

  Args:
    process: a Gaussian process.
    t_max, t_min: ends; the process's own by default.

  Raises:
    TypeError: a process without log-SNR.
    ValueError: ends that are not t_min < t_max, or no noise at t_min.

  >>> from diffusion import processes
  >>> s = span(processes.edm(), t_max=8.0, t_min=0.5)
  >>> bool(abs(s.end - s.start - np.log(16)) < 1e-6)
  True
  """
  require_log_snr(process)
  t_max = float(process.t_max if t_max is None else t_max)
  t_min = float(process.t_min if t_min is None else t_min)
  if not 0 <= t_min < t_max:
    raise ValueError(f"a run needs 0 <= t_min < t_max, got t_min={t_min} and t_max={t_max}")
  start, end = (float(process.log_snr(t)) / 2 for t in (t_max, t_min))
  if not np.isfinite(end):
    raise ValueError(
      f"there is no noise at t_min={t_min}, so log-SNR is infinite: end above it (denoise=True removes what "
      "noise is left)"
    )
  from_noise = not np.isfinite(start)
  return Span(process, t_max, t_min, -float(np.log(LARGEST_RHO)) if from_noise else start, end, from_noise)


def node(span: Span, clock: jax.Array) -> Node:
  """The place at lambda = clock: [B].

  Its numbers are those of the rounded time, which the network is handed.
  """
  t = jnp.clip(span.process.t_of_log_snr(2.0 * clock), span.t_min, span.t_max).astype(clock.dtype)
  m = span.process.marginal(t)
  norm = jnp.sqrt(m.alpha**2 + m.sigma**2)
  return Node(t, norm, m.alpha / norm, m.sigma / norm)


def rows(x: jax.Array, value: Any, dtype: Any = None) -> jax.Array:
  """[B] copies of a number, spread over devices as x: [B, ...] is.

  Inside a shard_map, plain constants are not spread so.
  """
  nothing = 0 * jnp.sum(jnp.isnan(x.reshape(x.shape[0], -1)), axis=-1)
  return jnp.asarray(value, dtype or x.dtype) + nothing.astype(dtype or x.dtype)
