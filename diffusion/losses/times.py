"""Time samplers: where on the interval a loss looks.

Each is a density on [t_min, t_max] and its inverse CDF.
"""

from collections.abc import Callable
from typing import Any, ClassVar, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.scipy.special import ndtr, ndtri

from diffusion.losses.base import Objective
from diffusion.losses.weights import bounded_log_snr, likelihood
from diffusion.processes.recovery import recovery_levels


class TimeSampler(Protocol):
  """sample(key, n) -> [n]; log_density(t [B]) -> [B], -inf outside of [t_min, t_max]."""

  t_min: Any
  t_max: Any

  def sample(self, key: jax.Array, n: int, dtype: Any = jnp.float32) -> jax.Array:
    """Times [n]."""
    ...

  def log_density(self, t: jax.Array) -> jax.Array:
    """Log of the density of one time with respect to dt (of the mass, for a ladder)."""
    ...


class InverseCdf:
  """The `sample` of every sampler that has a `quantile`."""

  def sample(self: Any, key: jax.Array, n: int, dtype: Any = jnp.float32) -> jax.Array:
    """Times [n], independent."""
    return self.quantile(jax.random.uniform(key, (n,), dtype))


def inside(sampler: Any, t: jax.Array, log_density: jax.Array) -> jax.Array:
  """log_density [B] on the sampler's interval, -inf outside."""
  return jnp.where((t >= sampler.t_min) & (t <= sampler.t_max), log_density, -jnp.inf)


@struct.dataclass
class Uniform(InverseCdf):
  """Uniform on [t_min, t_max]: see `uniform_times`."""

  t_min: Any
  t_max: Any

  def quantile(self, u: jax.Array) -> jax.Array:
    """The times [B] up to which the probability is u [B]."""
    return self.t_min + (self.t_max - self.t_min) * u

  def log_density(self, t: jax.Array) -> jax.Array:
    """Log of the density at times t [B]: [B], -inf outside of the interval."""
    return inside(self, t, -jnp.log(jnp.full_like(t, self.t_max - self.t_min)))


@struct.dataclass
class LowDiscrepancy:
  """Equally spaced quantiles of another sampler: see `low_discrepancy`."""

  base: Any

  @property
  def t_min(self) -> Any:
    """Where the interval starts."""
    return self.base.t_min

  @property
  def t_max(self) -> Any:
    """Where the interval ends."""
    return self.base.t_max

  @property
  def discrete(self) -> bool:
    """Whether the times are those of a ladder."""
    return getattr(self.base, "discrete", False)

  def sample(self, key: jax.Array, n: int, dtype: Any = jnp.float32) -> jax.Array:
    """Times [n]."""
    start = jax.random.uniform(key, (), dtype)
    u = jnp.mod(start + jnp.arange(n, dtype=dtype) / n, 1.0)
    return self.base.quantile(u)

  def log_density(self, t: jax.Array) -> jax.Array:
    """Log of the density at times t [B]: [B], -inf outside of the interval."""
    return self.base.log_density(t)


@struct.dataclass
class LogNormalSigma(InverseCdf):
  """log(sigma/alpha) normal, cut to [t_min, t_max]: see `log_normal_sigma`."""

  mean: Any
  std: Any
  process: Any
  t_min: Any
  t_max: Any

  def _standard(self, t):
    """(log(sigma/alpha) - mean) / std, decreasing SNR so increasing in t."""
    return (-0.5 * bounded_log_snr(self.process, t) - self.mean) / self.std

  def _ends(self, like):
    low, high = (self._standard(jnp.full((1,), end, like.dtype))[0] for end in (self.t_min, self.t_max))
    return low, high, ndtr(low), ndtr(high)

  def quantile(self, u: jax.Array) -> jax.Array:
    """The times [B] up to which the probability is u [B]."""
    low, high, below, above = self._ends(u)
    z = jnp.clip(ndtri(below + u * (above - below)), low, high)
    t = self.process.t_of_log_snr(-2.0 * (self.mean + self.std * z))
    return jnp.clip(t, self.t_min, self.t_max)

  def log_density(self, t: jax.Array) -> jax.Array:
    """Log of the density at times t [B]: [B], -inf outside of the interval."""
    _, _, below, above = self._ends(t)
    slope = 0.5 * likelihood()(self.process, t)  # d log(sigma/alpha) / dt
    z = self._standard(t)
    normal = -0.5 * jnp.square(z) - jnp.log(self.std * jnp.full_like(t, np.sqrt(2.0 * np.pi)))
    return inside(self, t, normal + jnp.log(slope) - jnp.log(above - below))


@struct.dataclass
class LogitNormal(InverseCdf):
  """logit of the place in [t_min, t_max] normal: see `logit_normal`."""

  mean: Any
  std: Any
  t_min: Any
  t_max: Any

  def quantile(self, u: jax.Array) -> jax.Array:
    """The times [B] up to which the probability is u [B]."""
    tiny = jnp.finfo(u.dtype).tiny
    s = jax.nn.sigmoid(self.mean + self.std * ndtri(jnp.clip(u, tiny, 1.0)))
    return self.t_min + (self.t_max - self.t_min) * s

  def log_density(self, t: jax.Array) -> jax.Array:
    """Log of the density at times t [B]: [B], -inf outside of the interval."""
    width = jnp.full_like(t, self.t_max - self.t_min)
    s = (t - self.t_min) / width
    z = (jnp.log(s) - jnp.log1p(-s) - self.mean) / self.std
    normal = -0.5 * jnp.square(z) - jnp.log(self.std * jnp.full_like(t, np.sqrt(2.0 * np.pi)))
    return jnp.where((s > 0) & (s < 1), normal - jnp.log(s) - jnp.log1p(-s) - jnp.log(width), -jnp.inf)


@struct.dataclass
class Ladder(InverseCdf):
  """Uniform on the rungs t_max i / num_steps, i = 1..num_steps: see `ladder_times`."""

  num_steps: int = struct.field(pytree_node=False)
  t_max: Any
  discrete: bool = struct.field(pytree_node=False, default=True)

  @property
  def t_min(self) -> Any:
    """Where the interval starts."""
    return self.t_max / self.num_steps

  def quantile(self, u: jax.Array) -> jax.Array:
    """The times [B] up to which the probability is u [B]."""
    rung = jnp.minimum(jnp.floor(u * self.num_steps), self.num_steps - 1)
    return (rung + 1.0) / self.num_steps * self.t_max

  def log_density(self, t: jax.Array) -> jax.Array:
    """Log of the density at times t [B]: [B], -inf outside of the interval."""
    rung = t / self.t_max * self.num_steps
    on = (
      (jnp.abs(rung - jnp.round(rung)) < 1e-3) & (jnp.round(rung) >= 1) & (jnp.round(rung) <= self.num_steps)
    )
    return jnp.where(on, -jnp.log(jnp.full_like(t, self.num_steps)), -jnp.inf)


@struct.dataclass
class Listed(InverseCdf):
  """Uniform on listed times: see `level_times`."""

  times: Any  # [N] ascending
  discrete: bool = struct.field(pytree_node=False, default=True)

  @property
  def t_min(self) -> Any:
    """Where the interval starts."""
    return self.times[0]

  @property
  def t_max(self) -> Any:
    """Where the interval ends."""
    return self.times[-1]

  def quantile(self, u: jax.Array) -> jax.Array:
    """The times [B] up to which the probability is u [B]."""
    times = jnp.asarray(self.times, u.dtype)
    return times[jnp.minimum(jnp.floor(u * len(times)).astype(jnp.int32), len(times) - 1)]

  def log_density(self, t: jax.Array) -> jax.Array:
    """Log of the density at times t [B]: [B], -inf outside of the interval."""
    on = jnp.any(t[:, None] == jnp.asarray(self.times, t.dtype)[None, :], axis=1)
    return jnp.where(on, -jnp.log(jnp.full_like(t, len(self.times))), -jnp.inf)


@struct.dataclass
class Open:
  """A sampler that waits for the objective's process; `closed` gives it one."""

  close: Any = struct.field(pytree_node=False)

  def sample(self, key: jax.Array, n: int, dtype: Any = jnp.float32) -> Any:
    """Times [n]."""
    raise ValueError(
      "this sampler has no interval yet: at_times(...) takes it from the objective's process, "
      "or give t_min and t_max (or the process) to its factory"
    )

  log_density: ClassVar[Callable[..., Any]] = sample


def closed(sampler: Any, objective: Objective) -> TimeSampler:
  """The sampler with its interval taken from the objective's process where it was left open."""
  if not isinstance(sampler, Open):
    if not callable(getattr(sampler, "sample", None)):
      raise TypeError(f"at_times takes a time sampler such as uniform_times(), got {type(sampler).__name__}")
    return sampler
  process = objective.process
  if process is None:
    raise ValueError(
      f"{objective.name} has no process with t_min and t_max to take the interval of times from: "
      "give them to the sampler, for example uniform_times(0.0, 1.0)"
    )
  return sampler.close(process)


def _interval(t_min, t_max):
  if not t_min < t_max:
    raise ValueError(f"times run from t_min to a larger t_max, got [{t_min}, {t_max}]")
  return t_min, t_max


def _on(process, t_min, t_max):
  """The interval, with what is None taken from the process."""
  return _interval(process.t_min if t_min is None else t_min, process.t_max if t_max is None else t_max)


def uniform_times(t_min: Any = None, t_max: Any = None) -> TimeSampler | Open:
  """Uniform on [t_min, t_max]; an end that is None is taken from the objective's process.

  >>> float(uniform_times(0.0, 2.0).log_density(jnp.ones(1))[0])
  -0.6931...
  """
  if t_min is None or t_max is None:
    return Open(lambda process: Uniform(*_on(process, t_min, t_max)))
  return Uniform(*_interval(t_min, t_max))


def low_discrepancy(base: TimeSampler | Open | None = None) -> TimeSampler | Open:
  """Stratified times: (u_0 + i/n) mod 1 through the inverse CDF of `base` (arXiv:2107.00630, appendix I.1).

  Each time alone has the density of `base` (default: uniform), the n of a batch spread evenly over it.
  """
  base = uniform_times() if base is None else base
  if isinstance(base, Open):
    return Open(lambda process: low_discrepancy(base.close(process)))
  if not callable(getattr(base, "quantile", None)):
    raise TypeError(
      f"low_discrepancy pushes its points through quantile(u), which {type(base).__name__} lacks"
    )
  return LowDiscrepancy(base)


def log_normal_sigma(
  mean: float = -1.2, std: float = 1.2, process: Any = None, t_min: Any = None, t_max: Any = None
) -> TimeSampler | Open:
  """Times with log(sigma/alpha) normal, truncated to the noise levels of [t_min, t_max].

  The paper does not truncate it (arXiv:2206.00364, table 1). Mapped to t through the process's
  `t_of_log_snr`. Raises ValueError unless std > 0.
  """
  if not std > 0:
    raise ValueError(f"log_normal_sigma needs std > 0, got {std}")
  if process is None:
    return Open(lambda process: log_normal_sigma(mean, std, process, t_min, t_max))
  return LogNormalSigma(mean, std, process, *_on(process, t_min, t_max))


def logit_normal(
  mean: float = 0.0, std: float = 1.0, t_min: Any = None, t_max: Any = None
) -> TimeSampler | Open:
  """t = t_min + (t_max - t_min) sigmoid(mean + std z), z normal (arXiv:2403.03206, eq. 19; t = 1 is noise).

  Raises ValueError unless std > 0.
  """
  if not std > 0:
    raise ValueError(f"logit_normal needs std > 0, got {std}")
  if t_min is None or t_max is None:
    return Open(lambda process: LogitNormal(mean, std, *_on(process, t_min, t_max)))
  return LogitNormal(mean, std, *_interval(t_min, t_max))


def ladder_times(num_steps: int, t_max: Any = None) -> TimeSampler | Open:
  """Uniform on the discrete times t_max (i+1)/N, i = 0..N-1; `log_density` is the log of the mass, -log N.

  Raises ValueError unless num_steps >= 1.

  >>> ladder_times(4, 1.0).quantile(jnp.array([0.0, 0.3, 0.99])).tolist()
  [0.25, 0.5, 1.0]
  """
  if num_steps < 1:
    raise ValueError(f"a ladder has at least one step, got num_steps={num_steps}")
  if t_max is None:
    return Open(lambda process: Ladder(num_steps, process.t_max))
  return Ladder(num_steps, t_max)


def level_times(levels: Any = 10, process: Any = None) -> TimeSampler | Open:
  """Uniform on the levels that `recovery_likelihood` recovers: all but the noisiest; `levels` as there.

  >>> from diffusion import processes
  >>> level_times([0.1, 0.5, 1.0], processes.vp_linear()).quantile(jnp.array([0.0, 0.4, 0.6])).tolist()
  [0.10000000149011612, 0.10000000149011612, 0.5]
  """
  if process is None:
    return Open(lambda process: level_times(levels, process))
  return Listed(recovery_levels(process, levels).t[:-1])


def step_times(grid: Any) -> TimeSampler | Open:
  """Uniform on the times at which a sampler with this grid calls its denoiser: all nodes but the last.

  Args:
    grid: [n+1] decreasing times, or the `StudentSteps` of a student, which may be traced.

  >>> step_times([1.0, 0.5, 0.0]).quantile(jnp.array([0.0, 0.7])).tolist()
  [0.5, 1.0]
  """
  if hasattr(grid, "middle"):
    return Listed(grid.t[::-1])
  return Listed(np.asarray(grid, np.float64)[-2::-1])
