"""Masking noise for whole numbers that have no order.

Each coordinate, on its own, is masked with some probability.
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from diffusion.processes.base import expand
from diffusion.processes.discrete import check_state_shape, each_value
from diffusion.processes.keep_or_draw import KeepOrDraw
from diffusion.processes.keeping import KeepSchedule, linear_keep


@struct.dataclass
class Masked(KeepOrDraw):
  """See `masked`. Logits and probabilities are over the K values, ratios and rates over these and the mask.

  Attributes:
    t_min, t_max: where training and sampling stop.
    schedule: times -> `Keep`, with its inverse.
    num_values: K; the mask is the value K.
    shape: of a state.
  """

  t_min: Any
  t_max: Any
  schedule: KeepSchedule
  num_values: int = struct.field(pytree_node=False)
  shape: tuple = struct.field(pytree_node=False)
  name: str = struct.field(pytree_node=False, default="masked")

  ends: ClassVar[tuple[str, str]] = ("data", "mask")

  @property
  def mask(self) -> int:
    """The value that stands for a masked coordinate: K."""
    return self.num_values

  def drawn(self, size: int | None = None) -> np.ndarray:
    """The mask: [K + 1] in float64."""
    del size
    return np.eye(self.num_states)[self.mask]

  def prior(self, keys: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """States that are all masks [B, *shape] int32. Raises ValueError for a shape of another state."""
    check_state_shape(self, shape)
    return jnp.full((keys.shape[0], *self.shape), self.mask, jnp.int32)

  def noise(self, keys: jax.Array, x0: jax.Array) -> jax.Array:
    """Uniform numbers in [0, 1) like x0: [B, ...], row i from keys[i] alone."""
    return jax.vmap(lambda key: jax.random.uniform(key, x0.shape[1:], jnp.float32))(keys)

  def corrupt(self, x0: jax.Array, noise: jax.Array, t: jax.Array, x1: None = None) -> jax.Array:
    """The masked state x_t [B, ...] int: the mask where noise < 1 - alpha, else x_0.

    t is [B]. One noise masks more and more in t.
    """
    del x1
    hidden = noise < expand(self.clock(t).noised, x0).astype(noise.dtype)
    return jnp.where(hidden, jnp.asarray(self.mask, x0.dtype), x0)

  def targets(self, x0: jax.Array, noise: Any, t: jax.Array, x1: None = None) -> dict[str, jax.Array]:
    """'probabilities', the indicator of x_0 [B, ..., K], and 'rates' given x_0 [B, ..., K + 1].

    Their means given x_t are the exact views. Ratios have no such target: of a coordinate that is seen, they
    say nothing.
    """
    found = KeepOrDraw.targets(self, x0, noise, t, x1)
    return {"probabilities": found["probabilities"], "rates": found["rates"]}

  def sources(self, x: jax.Array) -> jax.Array:
    """Everything where x is the mask, else x itself: bool, [B, ..., K + 1]."""
    return (x == self.mask)[..., None] | jax.nn.one_hot(x, self.num_states, dtype=bool)

  def _known(self, log_p, x_t):
    """What is known put in, always (arXiv:2406.07524, section 3.2).

    The mask is no value of the data, so that its probability is zero; and a coordinate that is not masked
    keeps its value: its logits are 0 there and -inf elsewhere, whatever the network says.

    >>> process = masked(2, (2,))
    >>> found = process.convert("logits", jnp.zeros((1, 2, 2)), jnp.array([[2, 0]]), jnp.ones(1), ("logits",))
    >>> jnp.exp(found["logits"]).tolist()
    [[[0.5, 0.5], [1.0, 0.0]]]
    """
    log_p = jax.nn.log_softmax(log_p, axis=-1)
    known = jnp.where(each_value(self, x_t) == x_t[..., None], 0.0, -jnp.inf).astype(log_p.dtype)
    return jnp.where((x_t == self.mask)[..., None], log_p, known)


def masked(
  num_values: int,
  shape: tuple[int, ...],
  *,
  schedule: KeepSchedule | None = None,
  t_min: float = 1e-3,
  t_max: float = 1.0,
) -> Masked:
  """Masking noise: each coordinate keeps its value with probability alpha(t), else it is the mask.

  Sources: arXiv:2107.03006, appendix A.2.2; arXiv:2406.07524, eq. 4.

  Args:
    num_values: K, of each coordinate; the mask is the value K.
    shape: of a state.
    schedule: of alpha, such as `linear_keep()`, the default, or `cosine_keep()`.
    t_min: where training stops by default: below it next to nothing is masked, and the weight of the loss
      has no bound.
    t_max: where all is masked.

  Raises ValueError for fewer than two values, an empty shape, or times that are not increasing.

  >>> process = masked(3, (4,))
  >>> process.prior(jax.random.split(jax.random.key(0), 1), (4,)).tolist()
  [[3, 3, 3, 3]]
  >>> process.corrupt(jnp.array([[0, 1, 2, 0]]), jnp.array([[0.1, 0.6, 0.2, 0.9]]), jnp.full(1, 0.5)).tolist()
  [[3, 1, 3, 0]]
  """
  if num_values < 2 or not shape or min(shape) < 1:
    raise ValueError(
      f"masked takes two or more values a coordinate and the shape of a state, such as masked(16, (64,)), "
      f"got {num_values} values and shape {tuple(shape)}"
    )
  if not 0.0 <= t_min < t_max <= 1.0:
    raise ValueError(f"masked has times from t_min to a larger t_max within [0, 1], got [{t_min}, {t_max}]")
  schedule = linear_keep() if schedule is None else schedule
  return Masked(t_min, t_max, schedule, int(num_values), tuple(shape))
