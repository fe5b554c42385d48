"""Noise for whole numbers that draws from a law of one's own: the mixture path of discrete flow matching."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from diffusion.processes.base import expand
from diffusion.processes.discrete import check_state_shape
from diffusion.processes.keep_or_draw import KeepOrDraw
from diffusion.processes.keeping import KeepSchedule, linear_keep
from diffusion.processes.resample import check_interval


@struct.dataclass
class MixturePath(KeepOrDraw):
  """See `mixture_path`.

  Attributes:
    t_min, t_max: where training and sampling stop.
    schedule: times -> `Keep`, with its inverse: kappa of the path.
    law: [S] probabilities of the source, which sum to one.
    num_values: K.
    shape: of a state.
    masks: whether the last state of the source is a mask.
  """

  t_min: Any
  t_max: Any
  schedule: KeepSchedule
  law: Any
  num_values: int = struct.field(pytree_node=False)
  shape: tuple[int, ...] = struct.field(pytree_node=False)
  masks: bool = struct.field(pytree_node=False, default=False)
  name: str = struct.field(pytree_node=False, default="mixture_path")

  ends: ClassVar[tuple[str, str]] = ("data", "source")

  @property
  def mask(self) -> int | None:
    """The state K where the source may draw a mask, else None."""
    return self.num_values if self.masks else None

  def drawn(self, size: int | None = None) -> Any:
    """The law of the source: [S]."""
    del size
    return self.law

  def prior(self, keys: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Draws of the source [B, *shape] int32, row i from keys[i] alone.

    Raises ValueError for a shape of another state.
    """
    check_state_shape(self, shape)
    return self._draws(keys, jnp.int32)

  def noise(self, keys: jax.Array, x0: jax.Array) -> dict[str, jax.Array]:
    """{'uniform': in [0, 1), 'value': a draw of the source}, each [B, ...], row i from keys[i] alone."""
    own = jax.vmap(jax.random.split)(keys)
    uniform = jax.vmap(lambda key: jax.random.uniform(key, x0.shape[1:], jnp.float32))(own[:, 0])
    return {"uniform": uniform, "value": self._draws(own[:, 1], x0.dtype)}

  def corrupt(self, x0: jax.Array, noise: dict[str, jax.Array], t: jax.Array, x1: None = None) -> jax.Array:
    """x_t [B, ...] int: the draw of the source where noise < 1 - alpha, else x_0; t [B]."""
    del x1
    again = noise["uniform"] < expand(self.clock(t).noised, x0).astype(noise["uniform"].dtype)
    return jnp.where(again, noise["value"], x0)

  def _draws(self, keys, dtype):
    logits = jnp.log(jnp.asarray(self.law, jnp.float32))
    draw = lambda key: jax.random.categorical(key, logits, shape=self.shape, mode="high")
    return jax.vmap(draw)(keys).astype(dtype)


def mixture_path(
  num_values: int,
  shape: tuple[int, ...],
  source: Any,
  *,
  schedule: KeepSchedule | None = None,
  t_min: float = 0.01,
  t_max: float = 1.0,
) -> MixturePath:
  """The mixture path of discrete flow matching: x_t is x_0 with probability alpha(t), else a draw of a law.

  Source: arXiv:2407.15595, eq. 9, whose time s is 1 - t and whose scheduler kappa_s is alpha. The path whose
  source is a mask is `masked`, the one whose source is uniform is `uniform_resample`, with the same views;
  its velocity back to the data is the view 'rates' (eq. 14).

  Args:
    num_values: K, of each coordinate.
    shape: of a state.
    source: [K] probabilities, or [K + 1] where the last is that of a mask, which may be drawn anew.
    schedule: of alpha, such as `linear_keep()`, the default, or `polynomial_keep(3)`.
    t_min, t_max: the interval of times; at alpha = 0 nothing is left of the data.

  Raises ValueError for a source that is no law of so many values, or times that are not increasing.

  >>> path = mixture_path(3, (2,), [0.5, 0.25, 0.25])
  >>> path.transition(0.0, 0.5).round(3).tolist()
  [[0.75, 0.125, 0.125], [0.25, 0.625, 0.125], [0.25, 0.125, 0.625]]
  """
  law = np.asarray(source, np.float64)
  if law.shape not in ((num_values,), (num_values + 1,)) or not np.all(law >= 0) or not law.sum() > 0:
    raise ValueError(
      f"the source of {num_values} values is {num_values} probabilities, or {num_values + 1} with a mask, "
      f"got shape {law.shape} with the smallest {law.min(initial=np.inf):g}"
    )
  if num_values < 2 or not shape or min(shape) < 1:
    raise ValueError(
      f"mixture_path takes two or more values and the shape of a state, got {num_values} and {tuple(shape)}"
    )
  check_interval(t_min, t_max, "mixture_path")
  schedule = linear_keep() if schedule is None else schedule
  masks = len(law) > num_values
  return MixturePath(t_min, t_max, schedule, law / law.sum(), int(num_values), tuple(shape), masks)
