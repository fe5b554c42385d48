"""Noise for whole numbers under which a coordinate keeps its state or is drawn anew from one law.

Masking draws the mask, uniform resampling any value: with alpha(t) the probability to be kept and pi the law
of what is drawn, q(x_t | x_s) = alpha_t / alpha_s [x_t = x_s] + (1 - alpha_t / alpha_s) pi(x_t), for
alpha falls by jumps at the rate -alpha'/alpha to draws of pi. This is the mixture path of discrete flow
matching too, kappa = alpha (arXiv:2407.15595, eq. 9).
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from diffusion.processes.base import array_namespace, as_times, expand
from diffusion.processes.contract import Rate
from diffusion.processes.discrete import MARKOV_VIEWS, CoordinateNoise, coordinates
from diffusion.processes.keeping import Keep, KeepSchedule


class KeepOrDraw(CoordinateNoise):
  """The base of such processes. What it does costs numbers of the order of S a coordinate, never S^2.

  A subclass has `schedule` and `drawn`.
  """

  schedule: KeepSchedule
  follows: ClassVar[dict[str, tuple[str, ...]]] = dict.fromkeys(MARKOV_VIEWS, MARKOV_VIEWS)

  def drawn(self, size: int | None = None) -> np.ndarray:
    """pi, the law of what a coordinate of `size` values (K for None) is drawn from: [S] in float64."""
    raise TypeError(f"{type(self).__name__} does not say what is drawn: write `drawn`")

  def clock(self, t: Any) -> Keep:
    """alpha, 1 - alpha and the time derivative of alpha, each shaped like t."""
    return self.schedule(as_times(t))

  def rates(self, t: Any) -> dict[str, Rate]:
    """alpha and 1 - alpha with their time derivatives."""
    keep = self.clock(t)
    return {"alpha": Rate(keep.alpha, keep.d_alpha), "noised": Rate(keep.noised, -keep.d_alpha)}

  def level(self, t: Any) -> Any:
    """The probability 1 - alpha that a coordinate was drawn anew, increasing in t."""
    return self.clock(t).noised

  def t_of_level(self, level: Any) -> Any:
    """The time at which 1 - alpha has this value."""
    return self.schedule.t_of_noised(as_times(level))

  def between(self, s: Any, t: Any) -> tuple[Any, Any]:
    """(kept, drawn anew) between s and t: alpha_t / alpha_s and 1 less it, shaped as s and t together.

    s is None for the data. The second keeps its digits where it is small.
    """
    later = self.clock(t)
    if s is None:
      return later.alpha, later.noised
    earlier = self.clock(s)
    xp = array_namespace(later.alpha + earlier.alpha)
    some = earlier.alpha > 0
    divisor = xp.where(some, earlier.alpha, 1.0)
    return (
      xp.where(some, later.alpha / divisor, 1.0),
      xp.where(some, (later.noised - earlier.noised) / divisor, 0.0),
    )

  def transition(self, s: Any, t: Any, size: int | None = None) -> Any:
    """q(x_t = j | x_s = i) of one coordinate: [..., S, S], rows i sum to one.

    Args:
      s, t: times s <= t that broadcast to [...]; s is None for the data.
      size: number of values of the coordinate, K for None; states beyond it stay.

    >>> from diffusion import processes
    >>> processes.masked(2, (1,)).transition(0.0, 0.25).tolist()
    [[0.75, 0.0, 0.25], [0.0, 0.75, 0.25], [0.0, 0.0, 1.0]]
    """
    kept, drawn = self.between(s, t)
    pattern, stays = self._patterns(size, kept)
    return kept[..., None, None] * stays[0] + drawn[..., None, None] * pattern + stays[1]

  def generator(self, t: Any, size: int | None = None) -> Any:
    """The jump rates Q_t[i, j] of one coordinate from i to j at t: [..., S, S], rows i sum to zero.

    d/dt transition(0, t) = transition(0, t) Q_t. Unbounded where alpha = 0. `size` is as in `transition`.
    """
    keep = self.clock(t)
    xp = array_namespace(keep.alpha)
    with np.errstate(divide="ignore", invalid="ignore"):
      rate = (-keep.d_alpha / keep.alpha)[..., None, None]
      pattern, stays = self._patterns(size, keep.alpha)
      jumps = pattern - stays[0]
      return xp.where(jumps == 0, 0.0, rate * jumps)

  def likelihood(self, x: jax.Array, s: jax.Array | None, t: jax.Array) -> jax.Array:
    """q(x_t = x | x_s = k) of each coordinate for every state k: [B, ..., S]; s, t [B], s None for data."""
    kept, drawn = (coordinates(value, x) for value in self.between(s, t))
    own = jax.nn.one_hot(x, self.num_states, dtype=kept.dtype)
    return kept * own + jnp.where(self._exists(), drawn * self._drawing(x, kept.dtype), 0.0)

  def forward(self, weights: jax.Array, s: jax.Array | None, t: jax.Array) -> jax.Array:
    """Laws of x_s, or any weights [B, ..., S], carried forward to t: [B, ..., S].

    s and t are [B]; s is None for the data.
    """
    kept, drawn = (expand(value, weights).astype(weights.dtype) for value in self.between(s, t))
    return kept * weights + drawn * jnp.sum(weights, axis=-1, keepdims=True) * self._law(weights.dtype)

  def inflow(self, x: jax.Array, t: jax.Array) -> jax.Array:
    """The rates Q_t[k, x] of jumps from every other state k to x, 0 at x itself: [B, ..., S]; t [B]."""
    keep = self.clock(t)
    rate = coordinates(-keep.d_alpha / keep.alpha, x)
    own = jax.nn.one_hot(x, self.num_states, dtype=bool)
    drawing = jnp.where(self._exists(), self._drawing(x, rate.dtype), 0.0)
    return jnp.where(own | (drawing == 0), 0.0, rate * drawing)

  def sources(self, x: jax.Array) -> jax.Array:
    """x itself, and everything where x may be drawn: bool, [B, ..., S]."""
    own = jax.nn.one_hot(x, self.num_states, dtype=bool)
    return own | ((self._drawing(x, jnp.float32) > 0) & self._exists())

  def posterior_rates(self, probabilities: jax.Array, x_t: jax.Array, t: jax.Array) -> jax.Array:
    """The reverse jump rates from x_t [B, ..., S] from p(x_0 = j | x_t) [B, ..., K]; t [B].

    -alpha' pi(x_t) (w_k + (1 - alpha) / alpha W pi(k)), with w_j = p(x_0 = j | x_t) / q(x_t | x_0 = j) and W
    their sum: finite at alpha = 0 for states k that are never drawn, as the values are under masking.
    """
    keep, weights = self.clock(t), self._weights(probabilities, x_t, t)
    law, drawing = self._law(weights.dtype), self._drawing(x_t, weights.dtype)
    odds = coordinates(keep.noised / keep.alpha, x_t).astype(weights.dtype)
    total = jnp.sum(weights, axis=-1, keepdims=True)
    weights = weights + jnp.where(law > 0, odds * total * law, 0.0)
    rates = coordinates(-keep.d_alpha, x_t).astype(weights.dtype) * drawing * weights
    own = jax.nn.one_hot(x_t, self.num_states, dtype=bool)
    return jnp.where(own | (drawing == 0), 0.0, rates)

  def from_ratios(self, ratios: jax.Array, x_t: jax.Array, t: jax.Array) -> jax.Array:
    """p(x_0 = j | x_t) [B, ..., K], up to a factor, from ratios [B, ..., S]; t [B].

    alpha w = ratios - (1 - alpha) pi times the sum of the ratios (arXiv:2310.16834, section 4.2 and appendix
    on the two kernels), then times q(x_t | x_0 = j).
    """
    law = self._law(ratios.dtype)
    noised = coordinates(self.clock(t).noised, x_t).astype(ratios.dtype)
    total = jnp.sum(ratios, axis=-1, keepdims=True)
    return self._weighed(ratios - jnp.where(law > 0, noised * total * law, 0.0), x_t, t)

  def from_rates(self, rates: jax.Array, x_t: jax.Array, t: jax.Array) -> jax.Array:
    """p(x_0 = j | x_t) [B, ..., K], up to a factor, from reverse rates [B, ..., S]; t [B]."""
    keep, own = self.clock(t), jax.nn.one_hot(x_t, self.num_states, dtype=bool)
    drawing = self._drawing(x_t, rates.dtype)
    rate = coordinates(-keep.d_alpha / keep.alpha, x_t).astype(rates.dtype)
    jumped = jnp.where(drawing > 0, rates / jnp.where(drawing > 0, drawing, 1.0), 0.0)
    return self.from_ratios(jnp.where(own, rate, jumped), x_t, t)

  def _law(self, dtype):
    """pi of each coordinate, to multiply [B, ..., S]."""
    return jnp.asarray(self.drawn().reshape((1,) * (len(self.shape) + 1) + (-1,)), dtype)

  def _drawing(self, x, dtype):
    """pi(x) of each coordinate: [B, ..., 1]."""
    law = jnp.broadcast_to(self._law(dtype), (*x.shape, self.num_states))
    return jnp.take_along_axis(law, x[..., None].astype(jnp.int32), axis=-1)

  def _exists(self):
    """Which states a coordinate has, to mask [B, ..., S]."""
    return jnp.ones((1,) * (len(self.shape) + 2), bool)

  def _patterns(self, size, like):
    """(1 pi^T, (the identity of existing states, that of the others)): each [..., S, S] to fit like [...]."""
    xp, law = array_namespace(like), self.drawn(size)
    number = self.num_values if size is None else size
    exists = (np.arange(len(law)) < number) | (np.arange(len(law)) == self.mask)
    eye = np.eye(len(law))
    parts = (np.outer(exists, law), eye * exists[:, None], eye * ~exists[:, None])
    shape = (1,) * np.ndim(like) + eye.shape
    pattern, kept, absent = (xp.asarray(part.reshape(shape), like.dtype) for part in parts)
    return pattern, (kept, absent)
