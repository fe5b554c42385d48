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

from diffusion.processes.base import array_namespace, expand
from diffusion.processes.clocked import Clocked
from diffusion.processes.discrete import MARKOV_VIEWS, coordinates


class KeepOrDraw(Clocked):
  """The base of such processes. What it does costs numbers of the order of S a coordinate, never S^2.

  A subclass has `schedule` and `drawn`, which may be a leaf.
  """

  mixes: ClassVar[bool] = True
  follows: ClassVar[dict[str, tuple[str, ...]]] = dict.fromkeys(MARKOV_VIEWS, MARKOV_VIEWS)

  def drawn(self, size: int | None = None) -> Any:
    """pi, the law of what a coordinate of `size` values (K for None) is drawn from: [S] in float64."""
    raise TypeError(f"{type(self).__name__} does not say what is drawn: write `drawn`")

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

  def outflow(self, x: jax.Array, t: jax.Array) -> jax.Array:
    """The rates Q_t[x, k] of jumps from x to every other state k, 0 at x itself: [B, ..., S]; t [B]."""
    keep = self.clock(t)
    rate = coordinates(-keep.d_alpha / keep.alpha, x)
    own, law = jax.nn.one_hot(x, self.num_states, dtype=bool), self._law(rate.dtype)
    return jnp.where(own | (law == 0), 0.0, rate * law)

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

  def undone(self, ratios: jax.Array, t: jax.Array) -> jax.Array:
    """Weights w [B, ..., S], up to a factor, whose w q(. | x_0) are these ratios [B, ..., S]; t [B].

    alpha w = ratios - (1 - alpha) pi times the sum of the ratios (arXiv:2310.16834, appendix on the two
    kernels).
    """
    law = self._law(ratios.dtype)
    noised = expand(self.clock(t).noised, ratios).astype(ratios.dtype)
    total = jnp.sum(ratios, axis=-1, keepdims=True)
    return ratios - jnp.where(law > 0, noised * total * law, 0.0)

  def from_rates(self, rates: jax.Array, x_t: jax.Array, t: jax.Array) -> jax.Array:
    """p(x_0 = j | x_t) [B, ..., K], up to a factor, from reverse rates [B, ..., S]; t [B]."""
    keep, own = self.clock(t), jax.nn.one_hot(x_t, self.num_states, dtype=bool)
    drawing = self._drawing(x_t, rates.dtype)
    rate = coordinates(-keep.d_alpha / keep.alpha, x_t).astype(rates.dtype)
    jumped = jnp.where(drawing > 0, rates / jnp.where(drawing > 0, drawing, 1.0), 0.0)
    return self.from_ratios(jnp.where(own, rate, jumped), x_t, t)

  def prior_law(self, dtype: Any) -> jax.Array:
    """pi, the law of each coordinate of what sampling starts from: [1, ..., S], to fit [B, ..., S]."""
    return self._law(dtype)

  def structure(self, size: int | None = None) -> np.ndarray:
    """1 pi^T - I, the jump rates for a unit of -log alpha: [S, S] in float64 on the host."""
    law = np.asarray(self.drawn(size), np.float64)
    return np.broadcast_to(law, (len(law), len(law))) - np.eye(len(law))

  def _law(self, dtype):
    """pi of each coordinate, to multiply [B, ..., S]."""
    return jnp.asarray(self.drawn(), dtype).reshape((1,) * (len(self.shape) + 1) + (-1,))

  def _drawing(self, x, dtype):
    """pi(x) of each coordinate: [B, ..., 1]."""
    law = jnp.broadcast_to(self._law(dtype), (*x.shape, self.num_states))
    return jnp.take_along_axis(law, x[..., None].astype(jnp.int32), axis=-1)

  def _exists(self):
    """Which states a coordinate has, to mask [B, ..., S]."""
    return jnp.ones((1,) * (len(self.shape) + 2), bool)

  def _patterns(self, size, like):
    """(1 pi^T, (the identity of existing states, that of the others)): each [..., S, S] to fit like [...]."""
    xp = array_namespace(like)
    law, number = xp.asarray(self.drawn(size), like.dtype), self.num_values if size is None else size
    state = np.arange(self.num_states)
    exists, eye = (state < number) | (state == self.mask), np.eye(self.num_states)
    shape = (1,) * np.ndim(like) + eye.shape
    fit = lambda part: xp.asarray(part, like.dtype).reshape(shape)
    kept, absent = fit(eye * exists[:, None]), fit(eye * ~exists[:, None])
    return fit(xp.asarray(exists, like.dtype)[:, None] * law[None, :]), (kept, absent)
