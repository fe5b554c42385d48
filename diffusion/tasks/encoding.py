"""From data to noise with any solver: a process whose data and noise have changed places.

x_t = alpha x0 + sigma eps is the same statement with (alpha, x0) and (sigma, eps) swapped. Read backwards in
time it is a Gaussian process with 'data' eps and 'noise' x0, a denoiser of the one is a denoiser of the
other, and the probability flow is the same curve. So every deterministic solver that leads from noise to
data, adaptive ones included, leads from data to noise on the swapped process.
"""

from typing import Any, cast, overload

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from flax import struct
from jax.core import Tracer

from diffusion import solvers
from diffusion.denoisers import Prediction, Wrapper, check_views
from diffusion.processes.base import (
  AnyArray,
  GaussianProcess,
  Marginal,
  Number,
  Schedule,
  array_namespace,
  expand,
)

SUFFIX = ", from data to noise"


@struct.dataclass
class SwappedSchedule:
  """The times s = low high / t of a schedule read backwards.

  low and high change places, and relative rounding stays what it was.
  """

  schedule: Schedule
  low: Number
  high: Number

  def original(self, s: AnyArray) -> AnyArray:
    """The original time t, cut to [low, high]."""
    number = lambda value: jnp.asarray(value, s.dtype) if isinstance(s, jax.Array) else value
    with np.errstate(divide="ignore"):
      return array_namespace(s).clip(number(self.low * self.high) / s, number(self.low), number(self.high))

  def __call__(self, s: AnyArray) -> Marginal:
    t = self.original(s)
    m = self.schedule(t)
    slope = -t / s  # dt/ds of t = low high / s
    return Marginal(
      m.sigma + 0.0 * t,
      m.alpha + 0.0 * t,
      m.d_sigma * slope,
      m.d_alpha * slope,
      2.0 * m.alpha * m.d_alpha * slope,
    )

  def t_of_log_snr(self, log_snr: AnyArray) -> AnyArray:
    t = self.schedule.t_of_log_snr(-log_snr)
    return (
      jnp.asarray(self.low * self.high, t.dtype) if isinstance(t, jax.Array) else self.low * self.high
    ) / t


@struct.dataclass
class Swapped(Wrapper):
  """A denoiser whose x0 is the other's eps, on the swapped process; see `swapped`."""

  inner: Any

  @property
  def process(self) -> GaussianProcess:
    """The swapped process."""
    return swapped(self.inner.process)

  @property
  def views(self) -> tuple[str, ...]:
    """Those of a Gaussian process."""
    return tuple(OTHER)

  def __call__(
    self,
    x: Any,
    t: jax.Array,
    cond: Any = None,
    *,
    views: tuple[str, ...] = ("x0", "eps"),
    key: jax.Array | None = None,
    train: bool = False,
  ) -> Prediction:
    """As a denoiser, at times of the swapped process."""
    check_views(views, self.views)
    process = self.process
    schedule = cast(SwappedSchedule, process.schedule)
    found = self.inner(
      x, schedule.original(t), cond, views=tuple(OTHER[view] for view in views), key=key, train=train
    )
    m = process.marginal(t)
    seen = dict(
      x0=lambda: found.eps,
      eps=lambda: found.x0,
      v=lambda: -found.v,
      score=lambda: -found.x0 / expand(m.sigma, x).astype(x.dtype),
      velocity=lambda: found.velocity * expand(-schedule.original(t) / t, x).astype(x.dtype),
    )
    return Prediction(**{view: seen[view]() for view in views}, collections=found.collections)


OTHER = {"x0": "eps", "eps": "x0", "score": "x0", "v": "v", "velocity": "velocity"}
"""The view that a view of the swapped denoiser is computed from."""


@overload
def swapped(model: GaussianProcess) -> GaussianProcess: ...


@overload
def swapped(model: Any) -> Any: ...


def swapped(model: Any) -> Any:
  """A process, or a denoiser, with data and noise in each other's place.

  Args:
    model: a `GaussianProcess`, or a denoiser on one. At its t_min there is noise.

  Returns:
    The same, at times s = t_min t_max / t: s runs from t_max, where the data are, down to t_min, where the
    noise is.

  Raises:
    ValueError: a process without noise at its t_min, where the noise in x_t is not defined.

  >>> from diffusion import oracles, processes
  >>> oracle = oracles.gaussian(processes.edm(), [0.0], [1.0])
  >>> other = swapped(oracle)
  >>> x = jnp.ones((1, 1))
  >>> bool(other(x, jnp.full(1, 0.002 * 80 / 2.0)).x0 == oracle(x, jnp.full(1, 2.0)).eps)
  True
  """
  if not isinstance(model, GaussianProcess):
    return Swapped(model)
  traced = any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(model))
  if not traced and not float(model.marginal(float(model.t_min)).sigma) > 0:
    raise ValueError(
      f"the process '{model.name}' has no noise at t_min = {float(model.t_min):g}, where an encoder has to "
      "start: give it a t_min above that"
    )
  return GaussianProcess(
    SwappedSchedule(model.schedule, model.t_min, model.t_max),
    model.t_min,
    model.t_max,
    np.nan,
    model.name + SUFFIX,
  )


def encoder(
  name: str,
  process: GaussianProcess,
  grid: npt.ArrayLike | None = None,
  *,
  tolerance: float | None = None,
  **options: Any,
) -> Any:
  """A solver by name that leads from data to noise, for `translate`.

  Args:
    name: of a deterministic solver, a key of `solvers.SOLVERS` or `solvers.ADAPTIVE`.
    process: that both models live on.
    grid: [n + 1] times of the process in either direction, from where the data have noise to t_max; None for
      an adaptive solver.
    tolerance: of an adaptive solver.
    **options: of its builder. An adaptive solver does not denoise at its end, unlike on the way to data: a
    decoder that is to undo
      it has denoise=False as well.

  Raises:
    ValueError: a solver that draws noise, or a grid outside of the process.

  >>> from diffusion import processes
  >>> there = encoder("heun", processes.edm(), [0.01, 0.1, 1.0, 10.0])
  >>> there.cost, there.order
  (6, 2)
  """
  process = swapped(process)
  if name in solvers.ADAPTIVE:
    options = dict(denoise=False) | options
  if grid is not None:
    times = np.asarray(grid, np.float64)
    low, high = float(process.t_min), float(process.t_max)
    if times.min() < low * (1 - 1e-6) or times.max() > high * (1 + 1e-6):
      raise ValueError(
        f"an encoder's times are those of the process, from {low:g} to {high:g}, got {times.min():g} to "
        f"{times.max():g}"
      )
    grid = np.sort(low * high / times, axis=-1)[..., ::-1]
  solver = solvers.build(
    name, process, None if grid is None else grid.shape[-1] - 1, grid=grid, tolerance=tolerance, **options
  )
  if solver.stochastic:
    raise ValueError(
      f"{name} draws noise, so its latents can not be decoded: choose a solver of the probability flow, such "
      "as heun or dpm_solver_adaptive"
    )
  return solver
