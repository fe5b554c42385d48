"""Temperature and nucleus: the law of each coordinate sharpened, or cut to its most probable values."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.core import Tracer

from diffusion.denoisers import Denoiser, Prediction, Wrapper, check_views
from diffusion.guidance.categorical import follow
from diffusion.processes.discrete import coordinates


class LogitsWrapper(Wrapper):
  """A wrapper that answers the views of a discrete process that follow from logits, which it changes.

  A subclass has `changed`: (log-probabilities [B, ..., K], x) -> those after the change, not necessarily
  normalised.
  """

  changed: Callable[..., jax.Array]

  @property
  def views(self) -> tuple[str, ...]:
    """Those that follow from the logits of the inner denoiser."""
    return tuple(self.inner.process.views_of("logits"))

  def __call__(
    self,
    x: Any,
    t: jax.Array,
    cond: Any = None,
    *,
    views: tuple[str, ...] = ("logits",),
    key: jax.Array | None = None,
    train: bool = False,
  ) -> Prediction:
    """As a denoiser; the logits are changed, and the other views follow from them."""
    check_views(views, self.views)
    prediction = self.inner(x, t, cond, views=("logits",), key=key, train=train)
    log_p = jax.nn.log_softmax(prediction.logits, axis=-1)
    return follow(self.inner, prediction.replace(logits=self.changed(log_p, x)), x, t, views)


@struct.dataclass
class Tempered(LogitsWrapper):
  """A denoiser of p^(1/temperature); see `temperature`."""

  inner: Any
  value: Any

  def changed(self, log_p: jax.Array, x: Any) -> jax.Array:
    """log p over the temperature."""
    value = jnp.broadcast_to(jnp.asarray(self.value, log_p.dtype), x.shape[:1])
    return log_p / coordinates(value, x)


@struct.dataclass
class Nucleus(LogitsWrapper):
  """A denoiser of the most probable values alone; see `nucleus`."""

  inner: Any
  top_p: Any
  top_k: int | None = struct.field(pytree_node=False, default=None)

  def changed(self, log_p: jax.Array, x: Any) -> jax.Array:
    """log p of the values that stay, -inf of the others."""
    descending = -jnp.sort(-log_p, axis=-1)
    # The probability of all values before each; the first that reaches top_p is the last that stays.
    reached = jnp.cumsum(jnp.exp(descending), axis=-1)
    before = jnp.concatenate([jnp.zeros_like(reached[..., :1]), reached[..., :-1]], axis=-1)
    top_p = jnp.broadcast_to(jnp.asarray(self.top_p, log_p.dtype), x.shape[:1])
    stays = before < coordinates(top_p, x)
    if self.top_k is not None:
      places = jnp.arange(log_p.shape[-1]).reshape((1,) * (log_p.ndim - 1) + (-1,))
      stays = stays & (places < self.top_k)
    least = jnp.min(jnp.where(stays, descending, jnp.inf), axis=-1, keepdims=True)
    return jnp.where(log_p >= least, log_p, -jnp.inf)


def temperature(value: Any) -> Callable[[Denoiser], Tempered]:
  """Temperature: p(x_0 = k | x_t)^(1/T) of each coordinate, normalised, on a discrete process.

  Below 1 the more probable values gain. Of several coordinates it is not the law of the data to that power,
  even where one is drawn at a time: each draw is, given those before it.

  Args:
    value: T above 0, a number or one a sample, [B]. Changing it does not recompile.

  Raises:
    ValueError: a temperature that is not positive, or a denoiser without logits.

  >>> from diffusion import guidance, oracles, processes
  >>> process = processes.masked(2, (1,))
  >>> oracle = oracles.masked_categorical(process, [[0.2, 0.8]])
  >>> colder = guidance.temperature(0.5)(oracle)              # 0.04 to 0.64
  >>> x, t = jnp.full((1, 1), process.mask), jnp.ones(1)
  >>> colder(x, t, views=("probabilities",)).probabilities.round(4).tolist()
  [[[0.058..., 0.941...]]]
  """
  if not isinstance(value, Tracer) and not np.all(np.asarray(value) > 0):
    raise ValueError(f"a temperature of guidance is above 0, got {value}: a solver's own may be 0")

  def apply(denoiser):
    _check_logits("temperature", denoiser)
    return Tempered(denoiser, value)

  return apply


def nucleus(top_p: Any = 1.0, top_k: int | None = None) -> Callable[[Denoiser], Nucleus]:
  """Nucleus sampling: of each coordinate, the most probable values alone (top-p, arXiv:1904.09751; top-k).

  Args:
    top_p: the values stay that are needed, the most probable first, to reach this probability; at least one,
      with any that are as probable as the last. A number in (0, 1] or one a sample, [B]. Changing it does not
      recompile.
    top_k: how many values stay at most, besides equally probable ones; None for all.

  Raises:
    ValueError: a top_p outside of (0, 1], a top_k below 1, or a denoiser without logits.

  >>> from diffusion import guidance, oracles, processes
  >>> process = processes.masked(3, (1,))
  >>> oracle = oracles.masked_categorical(process, [[0.5, 0.3, 0.2]])
  >>> cut = guidance.nucleus(0.7)(oracle)
  >>> x, t = jnp.full((1, 1), process.mask), jnp.ones(1)
  >>> cut(x, t, views=("probabilities",)).probabilities.round(4).tolist()
  [[[0.625, 0.375, 0.0]]]
  """
  if not isinstance(top_p, Tracer) and not np.all((np.asarray(top_p) > 0) & (np.asarray(top_p) <= 1)):
    raise ValueError(f"top_p is a probability above 0 and at most 1, got {top_p}")
  if top_k is not None and (int(top_k) != top_k or top_k < 1):
    raise ValueError(f"top_k is a whole number of at least 1, or None for all values, got {top_k}")

  def apply(denoiser):
    _check_logits("nucleus", denoiser)
    return Nucleus(denoiser, top_p, top_k)

  return apply


def _check_logits(name, denoiser):
  """Raises ValueError for a denoiser without logits on a discrete process."""
  process = denoiser.process
  if process is None or process.kind != "discrete" or "logits" not in denoiser.views:
    raise ValueError(
      f"{name} acts on logits of a discrete process, and the denoiser answers {', '.join(denoiser.views)}"
      f"{'' if process is None else f' on {process.name!r}'}: take a model that is trained with logits"
    )
