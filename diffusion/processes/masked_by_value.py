"""Masking noise under which each value has its own schedule."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from diffusion.processes.base import array_namespace, as_times, expand
from diffusion.processes.contract import Rate
from diffusion.processes.discrete import CoordinateNoise, check_state_shape, coordinates
from diffusion.processes.keeping import Keep, KeepSchedule, linear_keep
from diffusion.processes.resample import check_interval


@struct.dataclass
class MaskedByValue(CoordinateNoise):
  """See `masked_by_value`.

  Attributes:
    t_min, t_max: where training and sampling stop.
    schedule: times -> `Keep` of a value of exponent 1.
    exponents: w, [K].
    shape: of a state.
  """

  t_min: Any
  t_max: Any
  schedule: KeepSchedule
  exponents: Any
  shape: tuple[int, ...] = struct.field(pytree_node=False)
  name: str = struct.field(pytree_node=False, default="masked_by_value")

  ends: ClassVar[tuple[str, str]] = ("data", "all masked")

  @property
  def num_values(self) -> int:
    """K."""
    return self.exponents.shape[0]

  @property
  def mask(self) -> int:
    """The state of a masked coordinate: K."""
    return self.num_values

  def clock(self, t: Any) -> Keep:
    """alpha, 1 - alpha and the time derivative of alpha of a value of exponent 1, each shaped like t."""
    return self.schedule(as_times(t))

  def rates(self, t: Any) -> dict[str, Rate]:
    """The probability 1 - alpha of the mask at exponent 1, with its time derivative."""
    keep = self.clock(t)
    return {"masked": Rate(keep.noised, -keep.d_alpha)}

  def level(self, t: Any) -> Any:
    """The probability of the mask at exponent 1, increasing in t."""
    return self.clock(t).noised

  def t_of_level(self, level: Any) -> Any:
    """The time at which it has this value."""
    return self.schedule.t_of_noised(as_times(level))

  def masked(self, t: Any) -> Any:
    """(1 - alpha(t))^w_k, the probability that a coordinate of each value is masked: [..., K] for t [...]."""
    noised = self.clock(t).noised
    return noised[..., None] ** self._exponents(noised)

  def transition(self, s: Any, t: Any, size: int | None = None) -> Any:
    """q(x_t = j | x_s = i) of one coordinate: [..., K + 1, K + 1], rows i sum to one.

    s <= t broadcast to [...]; s is None for the data. `size` values, K for None; values beyond it stay.

    >>> masked_by_value([1.0, 2.0], (1,)).transition(None, 0.5).tolist()
    [[0.5, 0.0, 0.5], [0.0, 0.75, 0.25], [0.0, 0.0, 1.0]]
    """
    later = self.masked(t)
    xp = array_namespace(later)
    earlier = xp.zeros_like(later) if s is None else self.masked(s)
    some = earlier < 1
    hidden = xp.where(some, (later - earlier) / xp.where(some, 1.0 - earlier, 1.0), 0.0)
    return self._matrix(xp, hidden, 1.0, size)

  def generator(self, t: Any, size: int | None = None) -> Any:
    """The jump rates of one coordinate from i to j: [..., K + 1, K + 1], rows i sum to zero.

    Unbounded where all is masked.
    """
    keep = self.clock(t)
    xp, w = array_namespace(keep.noised), self._exponents(keep.noised)
    slope = w * keep.noised[..., None] ** (w - 1.0) * -keep.d_alpha[..., None]
    with np.errstate(divide="ignore"):
      return self._matrix(xp, slope / (1.0 - self.masked(t)), 0.0, size)

  def sources(self, x: jax.Array) -> jax.Array:
    """Everything where x is the mask, else x itself: bool, [B, ..., K + 1]."""
    return (x == self.mask)[..., None] | jax.nn.one_hot(x, self.num_states, dtype=bool)

  def posterior_rates(self, probabilities: jax.Array, x_t: jax.Array, t: jax.Array) -> jax.Array:
    """The reverse jump rates from x_t [B, ..., K + 1] from p(x_0 = j | x_t) [B, ..., K]; t [B].

    A mask jumps to k at w_k (-alpha' / (1 - alpha)) p(x_0 = k | x_t) (arXiv:2406.04329, section 6).
    """
    keep = self.clock(t)
    rate = coordinates(-keep.d_alpha / keep.noised, x_t).astype(probabilities.dtype)
    w = jnp.asarray(self.exponents, probabilities.dtype).reshape((1,) * x_t.ndim + (-1,))
    rates = jnp.where((x_t == self.mask)[..., None], rate * w * probabilities, 0.0)
    return jnp.pad(rates, [(0, 0)] * x_t.ndim + [(0, 1)])

  def prior(self, keys: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """States that are all masks [B, *shape] int32. Raises ValueError for a shape of another state."""
    check_state_shape(self, shape)
    return jnp.full((keys.shape[0], *self.shape), self.mask, jnp.int32)

  def prior_law(self, dtype: Any) -> jax.Array:
    """The mask: [1, ..., K + 1], to fit [B, ..., K + 1]."""
    law = jax.nn.one_hot(self.mask, self.num_states, dtype=dtype)
    return law.reshape((1,) * (len(self.shape) + 1) + (-1,))

  def noise(self, keys: jax.Array, x0: jax.Array) -> jax.Array:
    """Uniform numbers in [0, 1) like x0: [B, ...], row i from keys[i] alone."""
    return jax.vmap(lambda key: jax.random.uniform(key, x0.shape[1:], jnp.float32))(keys)

  def corrupt(self, x0: jax.Array, noise: jax.Array, t: jax.Array, x1: None = None) -> jax.Array:
    """The masked state x_t [B, ...] int: the mask where noise < (1 - alpha)^w_x0, else x_0; t is [B]."""
    del x1
    w = jnp.asarray(self.exponents, noise.dtype)[x0]
    hidden = noise < expand(self.clock(t).noised, x0).astype(noise.dtype) ** w
    return jnp.where(hidden, jnp.asarray(self.mask, x0.dtype), x0)

  def _exponents(self, like):
    """w, to fit [..., K] for a number a time [...]."""
    w = array_namespace(like).asarray(self.exponents, like.dtype)
    return w.reshape((1,) * np.ndim(like) + (-1,))

  def _matrix(self, xp, hidden, end, size):
    """The matrix with `hidden` [..., K] of each existing value in the column of the mask; end: 1 or 0."""
    exists = np.arange(self.num_values) < (self.num_values if size is None else size)
    hidden = xp.where(xp.asarray(exists.reshape((1,) * (hidden.ndim - 1) + (-1,))), hidden, 0.0)
    eye = xp.asarray(np.eye(self.num_values).reshape((1,) * (hidden.ndim - 1) + (-1, self.num_values)))
    values = xp.where(eye > 0, (end - hidden)[..., None], 0.0)
    top = xp.concatenate([values, hidden[..., None]], axis=-1)
    last = xp.zeros_like(top[..., :1, :]) + xp.asarray(np.eye(self.num_states)[-1] * end, top.dtype).reshape(
      (1,) * (top.ndim - 1) + (-1,)
    )
    return xp.concatenate([top, last], axis=-2)


def masked_by_value(
  exponents: Any,
  shape: tuple[int, ...],
  *,
  schedule: KeepSchedule | None = None,
  t_min: float = 1e-3,
  t_max: float = 1.0,
) -> MaskedByValue:
  """Masking noise with an exponent for each value: value k is masked with probability (1 - alpha(t))^w_k.

  Values of small w_k are masked first, and filled in last (arXiv:2406.04329, section 6). It is the process of
  what `losses.generalised_masked_cross_entropy` learns, or of exponents of one's own;
  `losses.continuous_time_bound` is its exact bound. Given what is seen, what is masked depends on the time:
  give the model the time.

  Args:
    exponents: w, [K] positive; the mask is the value K.
    shape: of a state.
    schedule: of alpha, such as `linear_keep()`, the default.
    t_min, t_max: where training and sampling stop.

  Raises ValueError for exponents that are not positive or fewer than two, an empty shape, or times that are
  not increasing.

  >>> process = masked_by_value([0.5, 2.0], (2,))
  >>> process.corrupt(jnp.array([[0, 1]]), jnp.full((1, 2), 0.4), jnp.full(1, 0.5)).tolist()
  [[2, 1]]
  """
  w = np.asarray(exponents, np.float64)
  if w.ndim != 1 or len(w) < 2 or not np.all(w > 0) or not shape or min(shape) < 1:
    raise ValueError(
      f"masked_by_value takes a positive exponent for each of two or more values and the shape of a state, "
      f"such as masked_by_value([1.0, 2.0], (64,)), got {w.tolist()} and shape {tuple(shape)}"
    )
  check_interval(t_min, t_max, "masked_by_value")
  return MaskedByValue(t_min, t_max, linear_keep() if schedule is None else schedule, w, tuple(shape))
