"""Weights of time score matching, and their correction by the history of the loss.

The by-parts objective contains the weight and its time derivative, so a weight here is a differentiable
function (path, t [B]) -> [B], and the squared error of the time score is what it multiplies
(arXiv:2111.11010, section 4).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from diffusion.processes.paths import as_path


def noise_variance() -> Callable[[Any, Any], Any]:
  """The variance of the noise in x_t: the default of the paper, zero where a path ends in data without noise.

  >>> from diffusion import processes
  >>> float(noise_variance()(processes.spherical(), np.array(0.6)).round(12))
  0.64
  """
  return lambda path, t: as_path(path).blend(t).variance


def diffusion_coefficient() -> Callable[[Any, Any], Any]:
  """g(t)^2 of a diffusion, the "likelihood weighting" of density ratios (arXiv:2111.11010, appendix).

  g^2 = dv/dt - 2 v d log a/dt; of a path from noise to data the same with time reversed.

  >>> from diffusion import processes
  >>> found = diffusion_coefficient()(processes.vp_linear(), np.array(0.5))
  >>> bool(abs(found - (0.1 + 0.5 * 19.9)) < 1e-9)  # beta(t)
  True
  """

  def weight(path, t):
    path = as_path(path)
    if path.ends.count("normal") != 1:
      raise ValueError(
        f"{path.name} joins two data ends and has no diffusion coefficient: use both_ends() or "
        "noise_variance()"
      )
    blend = path.blend(t)
    if path.ends[1] == "normal":
      return blend.d_variance - 2.0 * blend.variance * blend.d_first / blend.first
    return 2.0 * blend.variance * blend.d_second / blend.second - blend.d_variance

  return weight


def both_ends() -> Callable[[Any, Any], Any]:
  """The weight 4 s (1 - s), with s the place of t in the path's interval.

  It is zero at both ends, so the objective has no boundary terms.

  >>> from diffusion import processes
  >>> both_ends()(processes.linear(), np.array([0.0, 0.5, 1.0])).tolist()
  [0.0, 1.0, 0.0]
  """

  def weight(path, t):
    s = (t - path.t_min) / (path.t_max - path.t_min)
    return 4.0 * s * (1.0 - s)

  return weight


@struct.dataclass
class History:
  """The state of an importance weight: the last losses of each slot of time.

  losses: [slots, length], root-mean-square loss of the slot in its last batches; count: [slots], how many are
  there.
  """

  losses: Any
  count: Any


@struct.dataclass
class LossHistory:
  """Importance weights by loss history; see `loss_history`."""

  slots: int = struct.field(pytree_node=False)
  length: int = struct.field(pytree_node=False)
  fit: str = struct.field(pytree_node=False)

  def init(self) -> History:
    """The history before the first loss."""
    return History(jnp.zeros((self.slots, self.length)), jnp.zeros(self.slots, jnp.int32))

  def at_slots(self, history: History) -> jax.Array:
    """Weights [slots] of the history, at most one.

    Each is the sqrt of the mean square, mixed with a share 1/slots of the uniform one.
    """
    root = jnp.sqrt(jnp.mean(jnp.square(history.losses), axis=1))
    share = root / jnp.maximum(jnp.sum(root), jnp.finfo(root.dtype).tiny)
    mixed = share * (1.0 - 1.0 / self.slots) + 1.0 / self.slots**2
    full = jnp.all(history.count >= self.length)
    return jnp.where(full, mixed / jnp.max(mixed), 1.0)

  def __call__(self, history: History, place: jax.Array) -> jax.Array:
    """The weight at places [B] of the interval, from 0 to 1.

    It is continuous and piecewise differentiable in the places.
    """
    values = jax.lax.stop_gradient(self.at_slots(history)).astype(place.dtype)
    centres = (jnp.arange(self.slots, dtype=place.dtype) + 0.5) / self.slots
    if self.fit == "linear":
      return jnp.interp(place, centres, values)
    powers = lambda u: jnp.stack([jnp.ones_like(u), u, u * u, u**3, u**4], axis=1)
    features = powers(centres)
    gram = features.T @ features + 1e-3 * jnp.eye(5, dtype=place.dtype)
    return jnp.abs(powers(place) @ jnp.linalg.solve(gram, features.T @ values))

  def update(self, history: History, place: jax.Array, losses: jax.Array) -> History:
    """The history with the losses [B] of a batch at places [B].

    A slot that the batch missed keeps what it had.
    """
    slot = jnp.clip(jnp.floor(place * self.slots).astype(jnp.int32), 0, self.slots - 1)
    kept = losses.astype(history.losses.dtype)
    total = jnp.zeros(self.slots, kept.dtype).at[slot].add(jnp.square(kept))
    number = jnp.zeros(self.slots, kept.dtype).at[slot].add(1.0)
    newest = jnp.sqrt(total / jnp.maximum(number, 1.0))
    shifted = jnp.concatenate([history.losses[:, 1:], newest[:, None]], axis=1)
    seen = number > 0
    return History(jnp.where(seen[:, None], shifted, history.losses), history.count + seen.astype(jnp.int32))


def loss_history(slots: int = 64, length: int = 10, fit: str = "linear") -> LossHistory:
  """Importance weights from the last losses at each time.

  Source: arXiv:2111.11010, appendix, with the official code's constants.

  The interval is divided in slots; each keeps the loss of its last `length` batches, and the weight is the
  root of their mean square plus a share of the uniform weight, at most one, and one everywhere until every
  slot is full. Between slots it is interpolated ('linear') or fitted by a ridge polynomial of degree four
  ('polynomial'), and its derivative enters the objective with it: so at every state the minimiser stays the
  time score. (The official code multiplies the losses by the slots' weights alone, leaving the boundary
  terms, which moves it.)

  Raises ValueError for fewer than two slots, an empty history or another fit.
  """
  if slots < 2 or length < 1:
    raise ValueError(
      f"a loss history has at least two slots and one loss in each, got slots={slots}, length={length}"
    )
  if fit not in ("linear", "polynomial"):
    raise ValueError(f"fit is 'linear' or 'polynomial', got {fit!r}")
  return LossHistory(slots, length, fit)


@struct.dataclass
class Weighting:
  """The factor of the squared error at each time.

  It is the weight on a path's interval times that of the history, if any.
  """

  path: Any
  weight: Callable = struct.field(pytree_node=False)
  history: Any = None

  def place(self, t: jax.Array) -> jax.Array:
    """Where times are in the interval, from 0 to 1."""
    return (t - self.path.t_min) / (self.path.t_max - self.path.t_min)

  def base(self, t: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(weight, d weight / dt) without the history, both [B]."""
    return jax.jvp(lambda t: self.weight(self.path, t), (t,), (jnp.ones_like(t),))

  def __call__(self, t: jax.Array, state: Any) -> tuple[jax.Array, jax.Array]:
    """(weight, d weight / dt), both [B]."""
    return jax.jvp(lambda t: self._full(t, state), (t,), (jnp.ones_like(t),))

  def at_end(self, end: Any, like: jax.Array, state: Any) -> jax.Array | None:
    """The weight at t_min or t_max: [B], or None where it is zero for any history."""
    try:
      with np.errstate(all="ignore"):
        value = float(self.weight(self.path, np.asarray([end], np.float64))[0])
    except Exception:  # a weight written for JAX alone, or an end that is traced
      value = float("nan")
    if value == 0.0:
      return None
    return self._full(jnp.full_like(like, end), state)

  def _full(self, t, state):
    value = self.weight(self.path, t)
    return value if self.history is None else value * self.history(state, self.place(t))
