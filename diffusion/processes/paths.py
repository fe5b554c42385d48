"""Paths that join two ends, each data or a standard normal: x_t = a_t x_0 + b_t x_1 + sqrt(v_t) eps.

The density of x_t runs from p_0 at `t_min` to p_1 at `t_max`, and the ratio of a path is log p_1 - log p_0.
Diffusion is the path whose second end is noise: `from_process`. Everything that concerns the noise is kept as
a variance and its slope, which stay finite where a standard deviation leaves zero like a square root.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from diffusion.processes import path_views
from diffusion.processes.base import (
  AnyArray,
  GaussianProcess,
  Number,
  Schedule,
  array_namespace,
  as_times,
  expand,
)
from diffusion.processes.contract import Rate, check_steps
from diffusion.processes.views import check_kind

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


class PathSchedule(Protocol):
  """What a schedule of a path offers; both functions keep the shape of their argument."""

  def __call__(self, t: Any) -> Blend:
    """The factors of the ends and the variance, with their slopes, as if both ends were data."""
    ...

  def t_of_level(self, level: Any) -> Any:
    """The time at which sqrt(second^2 + variance) / first has this value: all that is not x_0, over x_0."""
    ...


@struct.dataclass
class Path:
  """A family of densities between two ends on [t_min, t_max].

  It is a process from one data set to another, or to noise.

  Functions of t compute on the device for a JAX array and in float64 on the host for anything else. Its
  views, with the parts that it has (`x0` and `x1` for ends that are data, `eps` where there is noise), are

  - velocity: E[dx_t/dt | x_t], whose flow carries one end to the other (arXiv:2303.08797, eq. 2.13;
    2209.03003);
  - x0, x1, eps: the posterior means of the parts;
  - score: the gradient of log p_t, which has a target, -eps / sqrt(variance), where there is noise;
  - time_score: the slope of log p_t(x) in t.

  Attributes:
    schedule: times -> `Blend` as if both ends were data, with its inverse.
    t_min, t_max: where it starts (p_0) and ends (p_1).
    ends: what is at t_min and at t_max, 'data' or 'normal' (a standard normal, drawn and not read from the
      batch).
    encode, decode: None, or an invertible map of single batches and its inverse: the ends are encoded,
      blended and decoded.
    name: what messages call it.
    noisy: whether there is noise between the ends or at one of them.
    starts: None, or [N, ...] rows of the second data set, for `prior` to draw from.

  >>> path = linear().replace(starts=jnp.array([[5.0], [6.0]]))
  >>> sorted(set(path.prior(jax.random.split(jax.random.key(0), 9), (1,))[:, 0].tolist()))
  [5.0, 6.0]
  """

  schedule: PathSchedule
  t_min: Any
  t_max: Any
  ends: tuple = struct.field(pytree_node=False, default=("data", "data"))
  encode: Any = struct.field(pytree_node=False, default=None)
  decode: Any = struct.field(pytree_node=False, default=None)
  name: str = struct.field(pytree_node=False, default="path")
  noisy: bool = struct.field(pytree_node=False, default=True)
  starts: Any = None

  kind: ClassVar[str] = "two_ended"

  @property
  def parts(self) -> tuple[str, ...]:
    """The parts of x_t that a model can be asked for: of x0, x1 and eps those that it has."""
    return path_views.parts_of(self.ends, self.noisy and self.decode is None)

  @property
  def views(self) -> tuple[str, ...]:
    """What may be asked of a denoiser of this path."""
    return ("velocity", *self.parts, "score", "time_score")

  def blend(self, t: Any) -> Blend:
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
    root = jnp.sqrt(jnp.maximum(blend.variance, 0.0)) if self.noisy else jnp.zeros_like(t)
    total = expand(root, noise) * noise
    for factor, end in ((blend.first, x0), (blend.second, x1)):
      if end is not None:
        end = end if self.encode is None else self.encode(end)
        total = total + end * expand(factor, end)
    return total if self.decode is None else self.decode(total)

  def targets(
    self, x0: jax.Array | None, noise: jax.Array, t: jax.Array, x1: jax.Array | None = None
  ) -> dict[str, jax.Array]:
    """What views regress on, {view: [B, ...]}: velocity, the parts, and the score where there is noise.

    Through a map the velocity is that of the decoded point, and the score has no target.

    >>> found = linear().targets(jnp.ones((1, 1)), jnp.zeros((1, 1)), jnp.full(1, 0.5), jnp.full((1, 1), 3.0))
    >>> {view: float(value[0, 0]) for view, value in found.items()}
    {'velocity': 2.0, 'x0': 1.0, 'x1': 3.0}
    """
    ends = {"x0": x0, "x1": x1, "eps": noise}
    inner = {
      part: end if self.encode is None or part == "eps" else self.encode(end)
      for part, end in ends.items()
      if end is not None
    }
    every = path_views.factors(self.blend(t), path_views.parts_of(self.ends, self.noisy))
    weighted = lambda which: sum(
      expand(pair[which], inner[part]).astype(inner[part].dtype) * inner[part] for part, pair in every.items()
    )
    velocity: Any = weighted(1)
    if self.decode is not None:
      velocity = jax.jvp(self.decode, (weighted(0),), (velocity,))[1]
    found = {"velocity": velocity} | {part: ends[part] for part in self.parts}
    if "eps" in found:
      found["score"] = -noise / expand(every["eps"][0], noise).astype(noise.dtype)
    return found

  def views_of(self, kind: str) -> tuple[str, ...]:
    """The views that follow exactly from an output of one kind.

    On a path of two parts (two data sets without noise, or one and noise) all of them follow. On a path of
    three, or through a map, the output gives itself alone, but eps and score still give each other. Raises
    ValueError for a kind that is none of its views.
    """
    check_kind(self, kind, self.views)
    return (kind,) if self.decode is not None else path_views.follows(kind, self.parts)

  def convert(
    self,
    kind: str,
    output: jax.Array,
    x_t: jax.Array,
    t: jax.Array,
    views: tuple[str, ...],
    data_std: Any = 1.0,
  ) -> dict[str, jax.Array]:
    """Views of x_t from the raw output of a network, of those that `views_of` names; see `path_views`.

    Args:
      kind: what the output is, one of the views.
      output, x_t: [B, ...] of one dtype.
      t: [B] times.
      views: which to give.
      data_std: takes no part.

    Returns:
      {view: [B, ...]}.

    >>> here, slope = jnp.full((1, 1), 2.0), jnp.full((1, 1), 2.0)           # halfway from 1 to 3
    >>> found = linear().convert("velocity", slope, here, jnp.full(1, 0.5), ("x0", "x1"))
    >>> float(found["x0"][0, 0]), float(found["x1"][0, 0])
    (1.0, 3.0)
    """
    del data_std
    if set(views) == {kind}:
      return {kind: output}
    return path_views.convert(self.blend(t), self.parts, kind, output, x_t, views)

  def prior(self, keys: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """What sampling starts from at t_max, float32.

    It is noise there, or rows of the second data set drawn with replacement.

    Args:
      keys: [B] typed keys, one a sample.
      shape: of one sample.

    Returns:
      [B, *shape], row i from keys[i] alone.

    Raises:
      ValueError: the second end is data that the path does not hold, or holds in another shape.
    """
    shape = tuple(shape)
    if self.ends[1] == "normal":
      variance = self.blend(self.t_max).variance
      std = jnp.asarray(array_namespace(variance).sqrt(variance), jnp.float32)
      drawn = std * jax.vmap(lambda key: jax.random.normal(key, shape, jnp.float32))(keys)
      return drawn if self.decode is None else self.decode(drawn)
    if self.starts is None:
      raise ValueError(
        f"sampling on '{self.name}' starts from its second data set, which it does not hold: give it as "
        "path.replace(starts=array of shape [N, ...]), or start the solver from rows of it"
      )
    starts = jnp.asarray(self.starts)
    if starts.shape[1:] != shape:
      raise ValueError(
        f"'{self.name}' holds starts of shape {starts.shape[1:]} and was asked for samples of shape {shape}: "
        "ask for its own"
      )
    return starts[jax.vmap(lambda key: jax.random.randint(key, (), 0, starts.shape[0]))(keys)]

  def rates(self, t: Any) -> dict[str, Rate]:
    """The factors of the ends, their squares and the variance of the noise, with their time derivatives."""
    b = self.blend(t)
    return {
      "first": Rate(b.first, b.d_first),
      "second": Rate(b.second, b.d_second),
      "variance": Rate(b.variance, b.d_variance),
      "first^2": Rate(b.first**2, b.d_first_square),
      "second^2": Rate(b.second**2, b.d_second_square),
    }

  def level(self, t: Any) -> Any:
    """sqrt(second^2 + variance) / first at times t, increasing in t: all that is not x_0, over x_0.

    Where the second end is noise it is sigma/alpha.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
      b = self.schedule(as_times(t))
      return array_namespace(b.first).sqrt(b.second**2 + b.variance) / b.first

  def t_of_level(self, level: Any) -> Any:
    """The time at which the level has this value."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
      return self.schedule.t_of_level(as_times(level))

  def default_grid(self, n: int) -> np.ndarray:
    """n + 1 times in equal steps from t_max to t_min. Raises ValueError for n below 1.

    >>> linear().default_grid(4).tolist()
    [1.0, 0.75, 0.5, 0.25, 0.0]
    """
    check_steps(n)
    return np.linspace(float(self.t_max), float(self.t_min), n + 1)


@struct.dataclass
class Spherical:
  """a = sqrt(1 - t^2), b = t."""

  def __call__(self, t: Any) -> Blend:
    """See `PathSchedule`."""
    xp = array_namespace(t)
    square = (1.0 - t) * (1.0 + t)
    a = xp.sqrt(xp.maximum(square, 0.0))
    one, zero = xp.ones_like(t), xp.zeros_like(t)
    return Blend(a, 1.0 * t, zero, -t / a, one, zero, -2.0 * t, 2.0 * t)

  def t_of_level(self, level: Any) -> Any:
    """See `PathSchedule`."""
    # level = t / sqrt(1 - t^2), without overflow.
    return 1.0 / array_namespace(level).sqrt(1.0 + level**-2.0)


@struct.dataclass
class LogVariance:
  """a^2 = exp(-t), b^2 = 1 - exp(-t)."""

  def __call__(self, t: Any) -> Blend:
    """See `PathSchedule`."""
    xp = array_namespace(t)
    a2, b2 = xp.exp(-t), -xp.expm1(-t)
    a, b, zero = xp.exp(-0.5 * t), xp.sqrt(b2), xp.zeros_like(t)
    return Blend(a, b, zero, -0.5 * a, 0.5 * a2 / b, zero, -a2, 1.0 * a2)

  def t_of_level(self, level: Any) -> Any:
    """See `PathSchedule`."""
    return array_namespace(level).log1p(level**2)


@struct.dataclass
class Trigonometric:
  """a = cos(pi t / 2), b = sin(pi t / 2)."""

  def __call__(self, t: Any) -> Blend:
    """See `PathSchedule`."""
    xp = array_namespace(t)
    half = 0.5 * np.pi
    a, b, zero = xp.cos(half * t), xp.sin(half * t), xp.zeros_like(t)
    slope = 2.0 * half * a * b
    return Blend(a, b, zero, -half * b, half * a, zero, -slope, slope)

  def t_of_level(self, level: Any) -> Any:
    """See `PathSchedule`."""
    return 2.0 / np.pi * array_namespace(level).arctan(level)


@struct.dataclass
class Linear:
  """a = 1 - t, b = t, v = bridge t (1 - t)."""

  bridge: Number

  def __call__(self, t: Any) -> Blend:
    """See `PathSchedule`."""
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

  def t_of_level(self, level: Any) -> Any:
    """See `PathSchedule`."""
    # With r = t / (1 - t), level^2 = r^2 + bridge r.
    xp = array_namespace(level)
    share = self.bridge / xp.maximum(level, xp.finfo(level.dtype).tiny)
    r = 2.0 * level / (share + xp.sqrt(share**2 + 4.0))
    return 1.0 / (1.0 + 1.0 / r)


@struct.dataclass
class OfProcess:
  """a = alpha, v = sigma^2 of a Gaussian process."""

  schedule: Schedule

  def __call__(self, t: Any) -> Blend:
    """See `PathSchedule`."""
    m = self.schedule(t)
    zero = m.alpha * 0.0
    return Blend(m.alpha, zero, m.sigma**2, m.d_alpha, zero, m.d_variance, 2.0 * m.alpha * m.d_alpha, zero)

  def t_of_level(self, level: Any) -> Any:
    """See `PathSchedule`."""
    return self.schedule.t_of_log_snr(-2.0 * array_namespace(level).log(level))


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
  """The spherical path in the clock t = -log(a^2), from 0 to t_max.

  Equal steps divide the variance of x_0's share equally.

  Near the second end 1 - t^2 has no digits left in the clock of `spherical`; here it is exp(-t). p_1 is the
  second end blurred by a variance exp(-t_max): choose it far below the data's own smallest variance.

  >>> float(log_variance().blend(10.0).variance.round(9))
  4.54e-05
  """
  return _path(LogVariance(), 0.0, t_max, (first, second), "log_variance")


def trigonometric(first: str = "data", second: str = "data") -> Path:
  """The trigonometric path x_t = cos(pi t / 2) x_0 + sin(pi t / 2) x_1 on [0, 1].

  It is the spherical path in a clock that is smooth at both ends.

  >>> float(trigonometric().blend(0.5).first.round(6))
  0.707107
  """
  return _path(Trigonometric(), 0.0, 1.0, (first, second), "trigonometric")


def linear(first: str = "data", second: str = "data", bridge: float = 0.0) -> Path:
  """The linear path x_t = (1 - t) x_0 + t x_1 + sqrt(bridge t (1 - t)) eps on [0, 1].

  For bridge > 0 it has a Brownian bridge's variance. The noise keeps the densities between two data sets
  smooth where the sets themselves are not. Raises ValueError for a negative bridge.

  >>> float(linear(bridge=0.4).blend(0.5).variance)
  0.1
  """
  if bridge < 0:
    raise ValueError(f"bridge is a variance and not negative, got {bridge}")
  return _path(Linear(bridge), 0.0, 1.0, (first, second), "linear", noisy=bridge > 0)


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
    OfProcess(process.schedule),
    process.t_min,
    process.t_max,
    ("data", "normal"),
    name=process.name,
    noisy=True,
  )


def through(path: Path, encode: Callable[[Any], Any], decode: Callable[[Any], Any]) -> Path:
  """A path in the latent space of an invertible map, seen in data space.

  It is x_t = decode(a encode(x_0) + ...) (arXiv:2111.11010, 5.3).

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


def as_path(path: Any, who: str = "this") -> Path:
  """The path, or a Gaussian process as one.

  Raises ValueError for anything without a density at every time between.
  """
  if isinstance(path, Path):
    return path
  if isinstance(path, GaussianProcess):
    return from_process(path)
  raise ValueError(
    f"{who} needs densities that change smoothly in time: a path such as processes.linear() or a Gaussian "
    "process "
    f"such as processes.vp_linear(), got {type(path).__name__}"
  )


def _path(schedule, t_min, t_max, ends, name, noisy=False):
  for end in ends:
    if end not in ENDS:
      raise ValueError(f"an end of {name} is 'data' or 'normal', got {end!r}")
  if "data" not in ends:
    raise ValueError(f"both ends of {name} are standard normals, whose ratio is one: make one of them 'data'")
  if not t_min < t_max:
    raise ValueError(f"{name} runs from t_min to a larger t_max, got [{t_min}, {t_max}]")
  return Path(schedule, t_min, t_max, ends, name=name, noisy=noisy or "normal" in ends)
