"""Masking noise for whole numbers that have no order.

Each coordinate, on its own, is masked with some probability.
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from diffusion.math.precision import at_least_single
from diffusion.processes.base import as_times, expand
from diffusion.processes.contract import Rate, check_steps
from diffusion.processes.discrete import check_outputs, check_state_shape, each_value
from diffusion.processes.keeping import Keep, KeepSchedule, linear_keep
from diffusion.processes.views import check_kind

KINDS = ("logits", "probabilities")


@struct.dataclass
class Masked:
  """See `masked`. The views of x_t [B, ...] are over the K values, without the mask:

  - logits [B, ..., K]: log p(x_0 = k | x_t) of each coordinate, normalised;
  - probabilities [B, ..., K]: the same without the logarithm.

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

  kind: ClassVar[str] = "discrete"
  ends: ClassVar[tuple[str, str]] = ("data", "mask")
  views: ClassVar[tuple[str, ...]] = KINDS

  @property
  def mask(self) -> int:
    """The value that stands for a masked coordinate: K."""
    return self.num_values

  def clock(self, t: Any) -> Keep:
    """alpha, 1 - alpha (the probability of the mask) and the time derivative of alpha, each shaped like t."""
    return self.schedule(as_times(t))

  def rates(self, t: Any) -> dict[str, Rate]:
    """alpha and 1 - alpha with their time derivatives."""
    keep = self.clock(t)
    return {"alpha": Rate(keep.alpha, keep.d_alpha), "noised": Rate(keep.noised, -keep.d_alpha)}

  def level(self, t: Any) -> Any:
    """The probability 1 - alpha that a coordinate is masked, increasing in t."""
    return self.clock(t).noised

  def t_of_level(self, level: Any) -> Any:
    """The time at which 1 - alpha has this value."""
    return self.schedule.t_of_noised(as_times(level))

  def default_grid(self, n: int) -> np.ndarray:
    """n + 1 times in equal steps from t_max to the data at t = 0. Raises ValueError for n below 1."""
    check_steps(n)
    return np.linspace(float(self.t_max), 0.0, n + 1)

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
    """'probabilities', the indicator of x_0 [B, ..., K], whose mean given x_t is the exact view."""
    del noise, x1
    return {"probabilities": jax.nn.one_hot(x0, self.num_values, dtype=at_least_single(t.dtype))}

  def views_of(self, kind: str) -> tuple[str, ...]:
    """Logits and probabilities follow from each other. Raises ValueError for another kind."""
    check_kind(self, kind, KINDS)
    return KINDS

  def convert(
    self,
    kind: str,
    output: jax.Array,
    x_t: jax.Array,
    t: jax.Array,
    views: tuple[str, ...],
    data_std: Any = 1.0,
  ) -> dict[str, jax.Array]:
    """Views of x_t from the raw output of a network, with what is known put in, always.

    Source: arXiv:2406.07524, section 3.2.

    The mask is no value of the data, so that its probability is zero; and a coordinate that is not masked
    keeps its
    value: its logits are 0 there and -inf elsewhere, whatever the network says.

    Args:
      kind: 'logits' or 'probabilities', not necessarily normalised.
      output: [B, ..., K].
      x_t: [B, ...] int, K where masked.
      t: [B]; takes no part.
      views: which to give.
      data_std: takes no part.

    Returns:
      {view: [B, ..., K]}, in at least float32. Raises ValueError for an output over another number of values.

    >>> process = masked(2, (2,))
    >>> x_t = jnp.array([[2, 0]])
    >>> found = process.convert("logits", jnp.zeros((1, 2, 2)), x_t, jnp.ones(1), process.views)
    >>> found["probabilities"].tolist()
    [[[0.5, 0.5], [1.0, 0.0]]]
    """
    del t, data_std
    check_outputs(self, output, x_t)
    output = output.astype(at_least_single(output.dtype))
    log_p = jax.nn.log_softmax(output if kind == "logits" else jnp.log(output), axis=-1)
    known = jnp.where(each_value(self, x_t) == x_t[..., None], 0.0, -jnp.inf).astype(log_p.dtype)
    log_p = jnp.where((x_t == self.mask)[..., None], log_p, known)
    found = {"logits": log_p, "probabilities": jnp.exp(log_p)}
    return {view: found[view] for view in views}


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
