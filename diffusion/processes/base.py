"""Gaussian processes x_t = alpha_t x_0 + sigma_t eps, described by one schedule of values and derivatives.

Everything about a linear SDE follows from alpha, sigma and their time derivatives (arXiv:2011.13456,
appendix B): the forward drift and diffusion, the log-SNR clock, the marginal and the prior. A schedule
states those numbers; `GaussianProcess` derives the rest, so there is one place for each formula.
"""

from typing import Any, ClassVar, Protocol, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.typing import ArrayLike

from diffusion.processes.contract import Rate
from diffusion.processes.spacing import vp_time
from diffusion.processes.views import GAUSSIAN_VIEWS, KINDS, VIEWS, check_kind, edm_views

AnyArray: TypeAlias = jax.Array | np.ndarray
"""Numbers on the device, or in float64 on the host."""

Number: TypeAlias = jax.Array | np.ndarray | float
"""One number, such as the end of an interval; a leaf that may be traced."""


def array_namespace(t: Any) -> Any:
  """`jax.numpy` for a JAX array, else NumPy: a schedule is float64 on the host, float32 on the device."""
  return jnp if isinstance(t, jax.Array) else np


def as_times(t: ArrayLike) -> AnyArray:
  """A JAX array as it is, anything else as a NumPy float64 array."""
  return t if isinstance(t, jax.Array) else np.asarray(t, np.float64)


def expand(coefficient: AnyArray, x: AnyArray) -> Any:
  """Reshapes one number a sample, [B] or [], to multiply x: [B, ...].

  >>> expand(jnp.ones(3), jnp.ones((3, 8, 8, 1))).shape
  (3, 1, 1, 1)
  """
  return coefficient.reshape(coefficient.shape + (1,) * (x.ndim - coefficient.ndim))


@struct.dataclass
class Marginal:
  """x_t = alpha x_0 + sigma eps at some times: each field is shaped like t.

  Attributes:
    alpha: signal scale.
    sigma: noise scale.
    d_alpha: time derivative of alpha.
    d_sigma: time derivative of sigma; infinite where sigma leaves zero like a square root.
    d_variance: time derivative of sigma^2, finite there too.
  """

  alpha: AnyArray
  sigma: AnyArray
  d_alpha: AnyArray
  d_sigma: AnyArray
  d_variance: AnyArray

  @property
  def log_snr(self) -> AnyArray:
    """log(alpha^2 / sigma^2): +inf without noise, -inf without signal."""
    xp = array_namespace(self.alpha)
    with np.errstate(divide="ignore"):
      return 2.0 * (xp.log(self.alpha) - xp.log(self.sigma))

  @property
  def noise_to_signal(self) -> AnyArray:
    """rho = sigma / alpha, the noise level of x_t / alpha (EDM's sigma)."""
    with np.errstate(divide="ignore"):
      return self.sigma / self.alpha


class Schedule(Protocol):
  """What a schedule offers; both functions keep the shape of their argument."""

  def __call__(self, t: AnyArray, /) -> Marginal:
    """alpha, sigma and their time derivatives at times t."""
    ...

  def t_of_log_snr(self, log_snr: AnyArray, /) -> AnyArray:
    """The time at which log(alpha^2/sigma^2) has this value, the exact inverse of the schedule."""
    ...


@struct.dataclass
class GaussianProcess:
  """A Gaussian process on [0, t_max] with everything that follows from its schedule.

  Functions of t compute on the device for a JAX array and in float64 on the host for anything else,
  so that solver tables and training share the same formulas.

  Attributes:
    schedule: times -> `Marginal`, with its inverse `t_of_log_snr`.
    t_min: where training and sampling stop by default; the marginal is defined down to 0.
    t_max: where sampling starts.
    prior_std: standard deviation of the Gaussian that stands for the marginal at t_max.
    name: what messages call it.

  >>> from diffusion import processes
  >>> process = processes.vp_linear()
  >>> marginal = process.marginal(0.5)
  >>> float(abs(marginal.alpha**2 + marginal.sigma**2 - 1)) < 1e-12
  True
  """

  schedule: Schedule
  t_min: Number
  t_max: Number
  prior_std: Number
  name: str = struct.field(pytree_node=False, default="")

  kind: ClassVar[str] = "gaussian"
  ends: ClassVar[tuple[str, str]] = ("data", "normal")
  views: ClassVar[tuple[str, ...]] = GAUSSIAN_VIEWS

  def marginal(self, t: ArrayLike) -> Marginal:
    """alpha, sigma and their time derivatives, each shaped like t."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
      return self.schedule(as_times(t))

  def log_snr(self, t: ArrayLike) -> AnyArray:
    """log(alpha^2 / sigma^2) at times t, decreasing in t."""
    return self.marginal(t).log_snr

  def t_of_log_snr(self, log_snr: ArrayLike) -> AnyArray:
    """The inverse of `log_snr`."""
    with np.errstate(divide="ignore", over="ignore"):
      return self.schedule.t_of_log_snr(as_times(log_snr))

  def drift_diffusion(self, t: ArrayLike) -> tuple[AnyArray, AnyArray]:
    """Coefficients (f, g2) of the forward SDE dx = f x dt + sqrt(g2) dw, each shaped like t.

    f = d log alpha / dt and g2 = d sigma^2/dt - 2 f sigma^2 (arXiv:2107.00630, eq. 3 and appendix).
    """
    m = self.marginal(t)
    f = m.d_alpha / m.alpha
    return f, m.d_variance - 2.0 * f * m.sigma**2

  def noise(self, keys: jax.Array, x0: jax.Array) -> jax.Array:
    """Standard normal noise like x0: [B, ...], row i from keys[i] alone."""
    return jax.vmap(lambda key: jax.random.normal(key, x0.shape[1:], x0.dtype))(keys)

  def corrupt(self, x0: jax.Array, noise: jax.Array, t: jax.Array, x1: None = None) -> jax.Array:
    """x_t = alpha x_0 + sigma eps.

    Args:
      x0: [B, ...] clean data.
      noise: [B, ...] standard normal noise eps.
      t: [B] times.
      x1: None: there is no second end.

    Returns:
      [B, ...]
    """
    del x1
    m = self.marginal(t)
    return expand(m.alpha, x0) * x0 + expand(m.sigma, noise) * noise

  def targets(self, x0: jax.Array, noise: jax.Array, t: jax.Array, x1: None = None) -> dict[str, jax.Array]:
    """What a denoiser's views regress on, {view: [B, ...]}: their posterior means are the exact views.

    >>> from diffusion import processes
    >>> found = processes.edm().targets(jnp.ones((1, 1)), jnp.full((1, 1), 2.0), jnp.full(1, 0.5))
    >>> {view: float(found[view][0, 0]) for view in ("x0", "eps", "score", "velocity")}
    {'x0': 1.0, 'eps': 2.0, 'score': -4.0, 'velocity': 2.0}
    """
    del x1
    m = jax.tree.map(lambda value: expand(value, x0), self.marginal(t))
    return {
      "x0": x0,
      "eps": noise,
      "score": -noise / m.sigma,
      "v": m.alpha * noise - m.sigma * x0,
      "velocity": m.d_alpha * x0 + m.d_sigma * noise,
    }

  def views_of(self, kind: str) -> tuple[str, ...]:
    """The views that follow from a network's output of one kind: all, for each of `KINDS`.

    Raises ValueError for a kind that the table does not have.
    """
    check_kind(self, kind, KINDS)
    return GAUSSIAN_VIEWS

  def convert(
    self,
    kind: str,
    output: jax.Array,
    x_t: jax.Array,
    t: jax.Array,
    views: tuple[str, ...],
    data_std: Any = 1.0,
  ) -> dict[str, jax.Array]:
    """Views of x_t from the raw output of a network, each straight from it by the table in `views.py`.

    Args:
      kind: what the output is, one of `KINDS`.
      output, x_t: [B, ...] of one dtype.
      t: [B] times.
      views: which to give.
      data_std: of the data, for kind 'edm' alone.

    Returns:
      {view: [B, ...]}.
    """
    m = self.marginal(t)
    table = edm_views(data_std) if kind == "edm" else VIEWS[kind]
    found = {}
    for view in views:
      if view == kind:
        found[view] = output
        continue
      of_x, of_output = table[view](m.alpha, m.sigma, m.d_alpha, m.d_sigma, m.d_variance)
      found[view] = expand(of_x, x_t) * x_t + expand(of_output, x_t) * output
    return found

  def rates(self, t: Any) -> dict[str, Rate]:
    """alpha, sigma and sigma^2 with their time derivatives."""
    m = self.marginal(t)
    return {
      "alpha": Rate(m.alpha, m.d_alpha),
      "sigma": Rate(m.sigma, m.d_sigma),
      "sigma^2": Rate(m.sigma**2, m.d_variance),
    }

  def level(self, t: Any) -> Any:
    """The noise level sigma/alpha at times t, increasing in t."""
    return self.marginal(t).noise_to_signal

  def t_of_level(self, level: Any) -> Any:
    """The time at which sigma/alpha has this value: the inverse of `level`."""
    level = as_times(level)
    with np.errstate(divide="ignore"):
      return self.t_of_log_snr(-2.0 * array_namespace(level).log(level))

  def default_grid(self, n: int) -> np.ndarray:
    """n + 1 times from t_max to t_min, at noise levels that suit few steps: see `spacing.vp_time`.

    Raises ValueError for n below 1.

    >>> from diffusion import processes
    >>> processes.vp_linear(t_min=0.04).default_grid(4).round(4).tolist()          # even in the root of t
    [1.0, 0.64, 0.36, 0.16, 0.04]
    """
    smallest, largest = (float(self.level(float(t))) for t in (self.t_min, self.t_max))
    t = np.asarray(self.t_of_level(vp_time(largest, smallest, n)), np.float64).copy()
    t[0], t[-1] = float(self.t_max), float(self.t_min)
    return t

  def prior(self, keys: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Noise to start sampling from at t_max: N(0, prior_std^2 I), float32.

    Args:
      keys: [B] typed keys, one a sample.
      shape: of one sample.

    Returns:
      [B, *shape], row i from keys[i] alone.

    >>> from diffusion import processes
    >>> processes.edm().prior(jax.random.split(jax.random.key(0), 3), (8, 8, 1)).shape
    (3, 8, 8, 1)
    """
    std = jnp.asarray(self.prior_std, jnp.float32)
    return std * jax.vmap(lambda key: jax.random.normal(key, tuple(shape), jnp.float32))(keys)

  def prior_log_prob(self, x: jax.Array) -> jax.Array:
    """Log-density in nats of N(0, prior_std^2 I), summed over all but the first axis: [B, ...] -> [B]."""
    size = int(np.prod(x.shape[1:]))
    square = jnp.sum((x / self.prior_std) ** 2, axis=tuple(range(1, x.ndim)))
    return -0.5 * square - size * (
      jnp.log(jnp.asarray(self.prior_std, x.dtype)) + 0.5 * np.log(2 * np.pi).item()
    )
