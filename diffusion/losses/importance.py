"""Times drawn in proportion to a weight, by a table of its integral."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from diffusion.losses import times


@struct.dataclass
class Tabulated(times.InverseCdf):
  """A piecewise linear density: nodes [K+1] in t, density and CDF at the nodes, all float64 on the host."""

  nodes: Any
  density: Any
  cdf: Any

  @property
  def t_min(self) -> Any:
    """Where the interval starts."""
    return self.nodes[0]

  @property
  def t_max(self) -> Any:
    """Where the interval ends."""
    return self.nodes[-1]

  def _tables(self, like):
    return tuple(jnp.asarray(table).astype(like.dtype) for table in (self.nodes, self.density, self.cdf))

  def quantile(self, u: jax.Array) -> jax.Array:
    """The times [B] up to which the probability is u [B]."""
    nodes, density, cdf = self._tables(u)
    k = jnp.clip(jnp.searchsorted(cdf, u, side="right") - 1, 0, nodes.size - 2)
    width = nodes[k + 1] - nodes[k]
    slope = (density[k + 1] - density[k]) / width
    rest = jnp.maximum(u - cdf[k], 0.0)
    # The root of density x + slope x^2 / 2 = rest in the form that does not cancel.
    root = jnp.sqrt(jnp.maximum(jnp.square(density[k]) + 2.0 * slope * rest, 0.0))
    step = 2.0 * rest / jnp.maximum(density[k] + root, jnp.finfo(u.dtype).tiny)
    return nodes[k] + jnp.clip(step, 0.0, width)

  def log_density(self, t: jax.Array) -> jax.Array:
    """Log of the density at times t [B]: [B], -inf outside of the interval."""
    nodes, density, _ = self._tables(t)
    return jnp.where((t >= nodes[0]) & (t <= nodes[-1]), jnp.log(jnp.interp(t, nodes, density)), -jnp.inf)


def importance(
  weight: Callable[[Any, Any], Any],
  process: Any = None,
  t_min: Any = None,
  t_max: Any = None,
  *,
  num_nodes: int = 1024,
) -> times.TimeSampler | times.Open:
  """Importance-sampled times, with density proportional to weight(process, t).

  Source: arXiv:2101.09258, section 4, for likelihood weighting.

  The table is built once on the host in float64, on nodes that are half uniform in t and half in log-SNR; the
  sampled density is the piecewise linear interpolant, normalised exactly, and `log_density` is that density,
  so reweighting by it has no bias. With `weight_by(weight)` and `at_times(..., reweight=True)` the two
  factors cancel to a constant: likelihood training without its variance.

  Raises ValueError where the weight is negative or not finite on the interval.

  >>> from diffusion import losses, processes
  >>> sampler = losses.importance(losses.likelihood(), processes.vp_linear())
  >>> bool(sampler.log_density(jnp.array([0.01]))[0] > sampler.log_density(jnp.array([0.9]))[0])
  True
  """
  if process is None:
    return times.Open(lambda process: importance(weight, process, t_min, t_max, num_nodes=num_nodes))
  low = float(process.t_min if t_min is None else t_min)
  high = float(process.t_max if t_max is None else t_max)
  if not low < high:
    raise ValueError(f"times run from t_min to a larger t_max, got [{low}, {high}]")
  ends = np.clip(process.log_snr(np.array([low, high])), -40.0, 40.0)
  in_log_snr = process.t_of_log_snr(np.linspace(ends[0], ends[1], num_nodes))
  nodes = np.unique(np.concatenate([np.linspace(low, high, num_nodes), np.clip(in_log_snr, low, high)]))
  nodes = nodes[np.concatenate([[True], np.diff(nodes) > 1e-6 * np.maximum(nodes[1:], 1e-30)])]
  nodes[-1] = high
  # Nodes are rounded to the precision of run time first, so that density and CDF belong to the nodes used.
  nodes = np.unique(nodes.astype(np.float32).astype(np.float64))
  with np.errstate(all="ignore"):
    values = np.broadcast_to(np.asarray(weight(process, np.clip(nodes, low, high)), np.float64), nodes.shape)
  if not np.all(np.isfinite(values)) or np.any(values < 0) or not np.any(values > 0):
    bad = nodes[~(np.isfinite(values) & (values >= 0))]
    where = f"at t = {bad[0]:.6g} it is not" if bad.size else "it is zero everywhere"
    raise ValueError(
      f"importance needs a weight that is finite and not negative on [{low}, {high}]; {where}: "
      "choose t_min and t_max inside of the process's ends"
    )
  mass = 0.5 * (values[1:] + values[:-1]) * np.diff(nodes)
  total = mass.sum()
  cdf = np.concatenate([[0.0], np.cumsum(mass) / total])
  return Tabulated(nodes, values / total, cdf / cdf[-1])
