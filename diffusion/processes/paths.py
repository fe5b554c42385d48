"""Paths that join two ends, each data or a standard normal: x_t = a_t x_0 + b_t x_1 + sqrt(v_t) eps.

The density of x_t runs from p_0 at `t_min` to p_1 at `t_max`, and the ratio of a path is log p_1 - log p_0.
Diffusion is the path whose second end is noise: `from_process`. Everything that concerns the noise is kept as
a variance and its slope, which stay finite where a standard deviation leaves zero like a square root.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.typing import ArrayLike

from diffusion.processes.base import (
  AnyArray,
  GaussianProcess,
  Number,
  Schedule,
  array_namespace,
  as_times,
  expand,
)

ENDS = ("data", "normal")


@struct.dataclass
class Blend:
  """x_t = first x_0 + second x_1 + sqrt(variance) eps at some times: each field is shaped like t.

  first, second: factors of the two ends, zero for an end that is a standard normal: its share is in
  `variance`, the whole of the noise. d_first, d_second, d_variance: time derivatives. d_first_square,
  d_second_square: those of the squares, finite where a factor leaves zero like a square root.
  """

  first: AnyArray
  second: AnyArray
  variance: AnyArray
  d_first: AnyArray
  d_second: AnyArray
  d_variance: AnyArray
  d_first_square: AnyArray
  d_second_square: AnyArray


@struct.dataclass
class Path:
  """A family of densities between two ends on [t_min, t_max].

  Functions of t compute on the device for a JAX array and in float64 on the host for anything else.

  Attributes:
    schedule: times -> `Blend` as if both ends were data.
    t_min, t_max: where it starts (p_0) and ends (p_1).
    ends: what is at t_min and at t_max, 'data' or 'normal' (a standard normal, drawn and not read from the
      batch).
    encode, decode: None, or an invertible map of single batches and its inverse: the ends are encoded,
      blended and decoded.
    name: what messages call it.
  """

  schedule: Callable[[AnyArray], Blend]
  t_min: Number
  t_max: Number
  ends: tuple[str, str] = struct.field(pytree_node=False, default=("data", "data"))
  encode: Callable[[jax.Array], jax.Array] | None = struct.field(pytree_node=False, default=None)
  decode: Callable[[jax.Array], jax.Array] | None = struct.field(pytree_node=False, default=None)
  name: str = struct.field(pytree_node=False, default="path")

  kind = "two_ended"
  views = ("score", "time_score")

  def blend(self, t: ArrayLike) -> Blend:
    """The factors of the ends and the variance of the noise, with their slopes."""
    with np.errstate(divide="ignore", invalid="ignore"):
      blend = self.schedule(as_times(t))
    zero = blend.variance * 0.0
    if self.ends[0] == "normal":
      blend = dataclasses.replace(
        blend,
        variance=blend.variance + blend.first**2,
        d_variance=blend.d_variance + blend.d_first_square,
        first=zero,
        d_first=zero,
        d_first_square=zero,
      )
    if self.ends[1] == "normal":
      blend = dataclasses.replace(
        blend,
        variance=blend.variance + blend.second**2,
        d_variance=blend.d_variance + blend.d_second_square,
        second=zero,
        d_second=zero,
        d_second_square=zero,
      )
    return blend

  def noise(self, keys: jax.Array, x0: jax.Array) -> jax.Array:
    """Standard normal noise like an end: [B, ...], row i from keys[i] alone."""
    return jax.vmap(lambda key: jax.random.normal(key, x0.shape[1:], x0.dtype))(keys)

  def corrupt(
    self, x0: jax.Array | None, noise: jax.Array, t: jax.Array, x1: jax.Array | None = None
  ) -> jax.Array:
    """x_t between paired draws of the ends.

    Args:
      x0: [B, ...] at t_min, or None where that end is a standard normal.
      noise: [B, ...] standard normal.
      t: [B].
      x1: [B, ...] at t_max, or None likewise.

    Returns:
      [B, ...]
    """
    blend = self.blend(t)
    total = expand(jnp.sqrt(jnp.maximum(blend.variance, 0.0)), noise) * noise
    for factor, end in ((blend.first, x0), (blend.second, x1)):
      if end is not None:
        end = end if self.encode is None else self.encode(end)
        total = total + end * expand(factor, end)
    return total if self.decode is None else self.decode(total)


@struct.dataclass
class Spherical:
  """a = sqrt(1 - t^2), b = t."""

  def __call__(self, t: AnyArray) -> Blend:
    xp = array_namespace(t)
    square = (1.0 - t) * (1.0 + t)
    a = xp.sqrt(xp.maximum(square, 0.0))
    one, zero = xp.ones_like(t), xp.zeros_like(t)
    return Blend(a, 1.0 * t, zero, -t / a, one, zero, -2.0 * t, 2.0 * t)


@struct.dataclass
class LogVariance:
  """a^2 = exp(-t), b^2 = 1 - exp(-t)."""

  def __call__(self, t: AnyArray) -> Blend:
    xp = array_namespace(t)
    a2, b2 = xp.exp(-t), -xp.expm1(-t)
    a, b, zero = xp.exp(-0.5 * t), xp.sqrt(b2), xp.zeros_like(t)
    return Blend(a, b, zero, -0.5 * a, 0.5 * a2 / b, zero, -a2, 1.0 * a2)


@struct.dataclass
class Trigonometric:
  """a = cos(pi t / 2), b = sin(pi t / 2)."""

  def __call__(self, t: AnyArray) -> Blend:
    xp = array_namespace(t)
    half = 0.5 * np.pi
    a, b, zero = xp.cos(half * t), xp.sin(half * t), xp.zeros_like(t)
    slope = 2.0 * half * a * b
    return Blend(a, b, zero, -half * b, half * a, zero, -slope, slope)


@struct.dataclass
class Linear:
  """a = 1 - t, b = t, v = bridge t (1 - t)."""

  bridge: Number

  def __call__(self, t: AnyArray) -> Blend:
    xp = array_namespace(t)
    one = xp.ones_like(t)
    return Blend(
      1.0 - t,
      1.0 * t,
      self.bridge * t * (1.0 - t),
      -one,
      one,
      self.bridge * (1.0 - 2.0 * t),
      -2.0 * (1.0 - t),
      2.0 * t,
    )


@struct.dataclass
class OfProcess:
  """a = alpha, v = sigma^2 of a Gaussian process."""

  schedule: Schedule

  def __call__(self, t: AnyArray) -> Blend:
    m = self.schedule(t)
    zero = m.alpha * 0.0
    return Blend(m.alpha, zero, m.sigma**2, m.d_alpha, zero, m.d_variance, 2.0 * m.alpha * m.d_alpha, zero)


def spherical(first: str = "normal", second: str = "data", t_min: float = 0.0, t_max: float = 1.0) -> Path:
  """x_t = sqrt(1 - t^2) x_0 + t x_1 (arXiv:2111.11010, the toy path of its section 5).

  Args:
    first, second: 'data' or 'normal', what is at t = 0 and at t = 1.

  Raises:
    ValueError: two standard normals, another name for an end, or an empty interval.

  >>> path = spherical()
  >>> float(path.blend(0.6).variance.round(12)), float(path.blend(0.6).second)
  (0.64, 0.6)
  """
  return _path(Spherical(), t_min, t_max, (first, second), "spherical")


def log_variance(first: str = "normal", second: str = "data", t_max: float = 20.0) -> Path:
  """The spherical path in the clock t = -log(a^2), from 0 to t_max: equal steps divide the variance of x_0's
  share equally.

  Near the second end 1 - t^2 has no digits left in the clock of `spherical`; here it is exp(-t). p_1 is the
  second end blurred by a variance exp(-t_max): choose it far below the data's own smallest variance.

  >>> float(log_variance().blend(10.0).variance.round(9))
  4.54e-05
  """
  return _path(LogVariance(), 0.0, t_max, (first, second), "log_variance")


def trigonometric(first: str = "data", second: str = "data") -> Path:
  """x_t = cos(pi t / 2) x_0 + sin(pi t / 2) x_1 on [0, 1]: the spherical path in a clock that is smooth at
  both ends.

  >>> float(trigonometric().blend(0.5).first.round(6))
  0.707107
  """
  return _path(Trigonometric(), 0.0, 1.0, (first, second), "trigonometric")


def linear(first: str = "data", second: str = "data", bridge: float = 0.0) -> Path:
  """x_t = (1 - t) x_0 + t x_1 + sqrt(bridge t (1 - t)) eps on [0, 1] (a Brownian bridge's variance for bridge
  > 0).

  The noise keeps the densities between two data sets smooth where the sets themselves are not.
  Raises ValueError for a negative bridge.

  >>> float(linear(bridge=0.4).blend(0.5).variance)
  0.1
  """
  if bridge < 0:
    raise ValueError(f"bridge is a variance and not negative, got {bridge}")
  return _path(Linear(bridge), 0.0, 1.0, (first, second), "linear")


def from_process(process: GaussianProcess) -> Path:
  """A diffusion as a path: p_0 is the data at process.t_min, p_1 the marginal at process.t_max.

  >>> from diffusion import processes
  >>> from_process(processes.vp_linear()).ends
  ('data', 'normal')
  """
  if not isinstance(process, GaussianProcess):
    raise ValueError(
      f"from_process takes a Gaussian process such as processes.vp_linear(), got {type(process).__name__}"
    )
  return Path(
    OfProcess(process.schedule), process.t_min, process.t_max, ("data", "normal"), name=process.name
  )


def through(
  path: Path, encode: Callable[[jax.Array], jax.Array], decode: Callable[[jax.Array], jax.Array]
) -> Path:
  """A path in the latent space of an invertible map, seen in data space: x_t = decode(a encode(x_0) + ...)
  (arXiv:2111.11010, 5.3).

  Args:
    path: the path of the encoded points; a 'normal' end becomes the law of decoded normals, such as a flow's
      own model.
    encode, decode: functions [B, ...] -> [B, ...], inverse to each other.

  The time score at x is that of the path at encode(x): the Jacobian of the map does not depend on time, and
  cancels in the ratio.

  >>> path = through(spherical(), jnp.log, jnp.exp)
  >>> path.corrupt(None, jnp.zeros((1, 2)), jnp.ones(1), jnp.ones((1, 2))).tolist()
  [[1.0, 1.0]]
  """
  if not callable(encode) or not callable(decode):
    raise ValueError("through takes two functions, encode and decode, inverse to each other")
  if path.encode is not None:
    raise ValueError(f"{path.name} already goes through a map: compose the maps first")
  return dataclasses.replace(path, encode=encode, decode=decode, name=f"through({path.name})")


def as_path(path: Path | GaussianProcess, who: str = "this") -> Path:
  """The path, or a Gaussian process as one. Raises ValueError for anything without a density at every time
  between."""
  if isinstance(path, Path):
    return path
  if isinstance(path, GaussianProcess):
    return from_process(path)
  raise ValueError(
    f"{who} needs densities that change smoothly in time: a path such as processes.linear() or a Gaussian "
    "process "
    f"such as processes.vp_linear(), got {type(path).__name__}"
  )


def _path(schedule, t_min, t_max, ends, name):
  for end in ends:
    if end not in ENDS:
      raise ValueError(f"an end of {name} is 'data' or 'normal', got {end!r}")
  if "data" not in ends:
    raise ValueError(f"both ends of {name} are standard normals, whose ratio is one: make one of them 'data'")
  if not t_min < t_max:
    raise ValueError(f"{name} runs from t_min to a larger t_max, got [{t_min}, {t_max}]")
  return Path(schedule, t_min, t_max, ends, name=name)
