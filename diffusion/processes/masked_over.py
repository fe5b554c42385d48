"""Masks over another noise of whole numbers."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from diffusion.processes.base import array_namespace, expand
from diffusion.processes.clocked import Clocked
from diffusion.processes.discrete import CoordinateNoise, check_state_shape, coordinates
from diffusion.processes.keeping import KeepSchedule


@struct.dataclass
class MaskedOver(Clocked):
  """Masks over another noise: a coordinate is masked by one clock, and until then moves as `inner` has it.

  The two clocks are independent, so that all is exact: q(x_t | x_s) is that of `inner` times
  alpha_t / alpha_s for values, and the mask stays (the law of x_t given x_0 is that of arXiv:2503.04482,
  section 3, with masks and uniform draws).

  Attributes:
    schedule: alpha, of not being masked.
    inner: a process of the values, without a mask.
  """

  schedule: KeepSchedule
  inner: Any
  name: str = struct.field(pytree_node=False, default="masked_over")

  ends: ClassVar[tuple[str, str]] = ("data", "all masked")

  @property
  def follows(self) -> dict[str, tuple[str, ...]]:
    """Kind of output -> the views that follow; from rates what follows from those of `inner`."""
    return CoordinateNoise.follows | {"rates": self.inner.follows["rates"]}

  @property
  def t_min(self) -> Any:
    """Of `inner`."""
    return self.inner.t_min

  @property
  def t_max(self) -> Any:
    """Of `inner`."""
    return self.inner.t_max

  @property
  def num_values(self) -> int:
    """K."""
    return self.inner.num_values

  @property
  def shape(self) -> tuple[int, ...]:
    """Of a state."""
    return self.inner.shape

  @property
  def mask(self) -> int:
    """The state of a masked coordinate: K."""
    return self.num_values

  def value_counts(self) -> tuple[int, ...]:
    """The number of values of each coordinate, flattened."""
    return self.inner.value_counts()

  def rates(self, t: Any) -> dict[str, Any]:
    """alpha and 1 - alpha of the mask with their time derivatives, and the numbers of `inner`."""
    return Clocked.rates(self, t) | {f"inner {name}": rate for name, rate in self.inner.rates(t).items()}

  def transition(self, s: Any, t: Any, size: int | None = None) -> Any:
    """q(x_t = j | x_s = i) of one coordinate: [..., K + 1, K + 1], rows i sum to one.

    s <= t broadcast to [...]; s is None for the data. `size` values, K for None; values beyond it stay.
    """
    kept, drawn = (value[..., None, None] for value in self.between(s, t))
    size = self.num_values if size is None else size
    own = self.inner.transition(s, t, size)
    xp = array_namespace(own + kept)
    masked = xp.asarray(_row(np.arange(self.num_values) < size, kept), own.dtype)
    own = xp.where(masked > 0, kept * own, own)
    return _bordered(xp, own, drawn * masked, 1.0)

  def generator(self, t: Any, size: int | None = None) -> Any:
    """The jump rates of one coordinate from i to j: [..., K + 1, K + 1], rows i sum to zero."""
    keep = self.clock(t)
    size = self.num_values if size is None else size
    own = self.inner.generator(t, size)
    xp = array_namespace(own)
    with np.errstate(divide="ignore"):
      rate = (-keep.d_alpha / keep.alpha)[..., None, None]
    masked = xp.where(xp.asarray(_row(np.arange(self.num_values) < size, rate)), rate, 0.0)
    eye = xp.asarray(np.eye(self.num_values).reshape((1,) * (own.ndim - 2) + own.shape[-2:]), bool)
    return _bordered(xp, xp.where(eye, own - masked, own), masked, 0.0)

  def likelihood(self, x: jax.Array, s: jax.Array | None, t: jax.Array) -> jax.Array:
    """q(x_t = x | x_s = k) of each coordinate for every state k: [B, ..., K + 1].

    s and t are [B]; s is None for the data.
    """
    kept, drawn = (coordinates(value, x) for value in self.between(s, t))
    hidden = (x == self.mask)[..., None]
    own = self.inner.likelihood(jnp.where(x == self.mask, 0, x), s, t)
    exists = self.inner.sources(jnp.zeros_like(x))
    values = jnp.where(hidden, jnp.where(exists, drawn, 0.0), kept * own)
    return jnp.concatenate([values, hidden.astype(values.dtype)], axis=-1)

  def forward(self, weights: jax.Array, s: jax.Array | None, t: jax.Array) -> jax.Array:
    """Laws of x_s, or any weights [B, ..., K + 1], carried forward to t; s, t [B], s None for the data."""
    kept, drawn = (expand(value, weights).astype(weights.dtype) for value in self.between(s, t))
    values, hidden = weights[..., :-1], weights[..., -1:]
    total = jnp.sum(values, axis=-1, keepdims=True)
    return jnp.concatenate([kept * self.inner.forward(values, s, t), hidden + drawn * total], axis=-1)

  def inflow(self, x: jax.Array, t: jax.Array) -> jax.Array:
    """The rates of jumps from every other state k to x, 0 at x itself: [B, ..., K + 1]; t [B]."""
    keep = self.clock(t)
    hidden, rate = (x == self.mask)[..., None], coordinates(-keep.d_alpha / keep.alpha, x)
    own = self.inner.inflow(jnp.where(x == self.mask, 0, x), t)
    exists = self.inner.sources(jnp.zeros_like(x))
    return _with_mask(jnp.where(hidden, jnp.where(exists, rate.astype(own.dtype), 0.0), own))

  def outflow(self, x: jax.Array, t: jax.Array) -> jax.Array:
    """The rates of jumps from x to every other state k, 0 at x itself: [B, ..., K + 1]; t [B]."""
    keep, hidden = self.clock(t), (x == self.mask)[..., None]
    own = jnp.where(hidden, 0.0, self.inner.outflow(jnp.where(x == self.mask, 0, x), t))
    rate = jnp.broadcast_to(coordinates(-keep.d_alpha / keep.alpha, x).astype(own.dtype), hidden.shape)
    return jnp.concatenate([own, jnp.where(hidden, 0.0, rate)], axis=-1)

  def sources(self, x: jax.Array) -> jax.Array:
    """Everything where x is the mask, else the values that lead to x: bool, [B, ..., K + 1]."""
    hidden = (x == self.mask)[..., None]
    own = self.inner.sources(jnp.where(x == self.mask, 0, x))
    exists = self.inner.sources(jnp.zeros_like(x))
    return jnp.concatenate([jnp.where(hidden, exists, own), hidden], axis=-1)

  def posterior_rates(self, probabilities: jax.Array, x_t: jax.Array, t: jax.Array) -> jax.Array:
    """The reverse jump rates from x_t [B, ..., K + 1] from p(x_0 = j | x_t) [B, ..., K]; t [B].

    A mask jumps to k at the rate -alpha' times the weights carried forward by `inner`, finite at alpha = 0.
    """
    keep, hidden = self.clock(t), (x_t == self.mask)[..., None]
    weights = self._weights(probabilities, x_t, t)[..., :-1]
    carried = self.inner.forward(weights, None, t)
    seen = jnp.where(x_t == self.mask, 0, x_t)
    own = coordinates(keep.alpha, x_t).astype(carried.dtype) * self.inner.inflow(seen, t) * carried
    return _with_mask(jnp.where(hidden, coordinates(-keep.d_alpha, x_t).astype(carried.dtype) * carried, own))

  def undone(self, ratios: jax.Array, t: jax.Array) -> jax.Array:
    """Weights w [B, ..., K + 1], up to a factor, that noise carries forward to these ratios; t [B]."""
    return _with_mask(self.inner.undone(ratios[..., :-1], t))

  def prior(self, keys: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """States that are all masks [B, *shape] int32. Raises ValueError for a shape of another state."""
    check_state_shape(self, shape)
    return jnp.full((keys.shape[0], *self.shape), self.mask, jnp.int32)

  def prior_law(self, dtype: Any) -> jax.Array:
    """The mask: [1, ..., K + 1], to fit [B, ..., K + 1]."""
    law = jax.nn.one_hot(self.mask, self.num_states, dtype=dtype)
    return law.reshape((1,) * (len(self.shape) + 1) + (-1,))

  def noise(self, keys: jax.Array, x0: jax.Array) -> dict[str, Any]:
    """{'hide': uniform numbers [B, ...], 'inner': the noise of `inner`}, row i from keys[i] alone."""
    own = jax.vmap(jax.random.split)(keys)
    hide = jax.vmap(lambda key: jax.random.uniform(key, x0.shape[1:], jnp.float32))(own[:, 0])
    return {"hide": hide, "inner": self.inner.noise(own[:, 1], x0)}

  def corrupt(self, x0: jax.Array, noise: dict[str, Any], t: jax.Array, x1: None = None) -> jax.Array:
    """x_t [B, ...] int: the mask where noise < 1 - alpha, else what `inner` makes of x_0; t [B]."""
    del x1
    hidden = noise["hide"] < expand(self.clock(t).noised, x0).astype(noise["hide"].dtype)
    moved = self.inner.corrupt(x0, noise["inner"], t)
    return jnp.where(hidden, jnp.asarray(self.mask, x0.dtype), moved)


def _row(exists, like):
  """[K, 1] to fit [..., K, K] with as many axes as `like`."""
  return exists.reshape((1,) * (like.ndim - 2) + (-1, 1))


def _with_mask(values):
  """Values [..., K] with 0 for the mask: [..., K + 1]."""
  return jnp.concatenate([values, jnp.zeros_like(values[..., :1])], axis=-1)


def _bordered(xp, own, column, corner):
  """A matrix of values [..., K, K] with the column of the mask [..., K, 1], and its row: 0 and the corner."""
  column = xp.broadcast_to(column, (*own.shape[:-1], 1))
  row = xp.concatenate([xp.zeros_like(own[..., :1, :]), xp.full_like(own[..., :1, :1], corner)], axis=-1)
  return xp.concatenate([xp.concatenate([own, column], axis=-1), row], axis=-2)
