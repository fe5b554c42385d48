"""Classifier guidance: the gradient of a noise-conditional log-probability added to the score."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from diffusion.denoisers import Denoiser, Prediction, Wrapper, check_views
from diffusion.guidance.shift import GaussianWrapper, shifted
from diffusion.processes.base import expand
from diffusion.processes.discrete import coordinates


@struct.dataclass
class Classifier(GaussianWrapper):
  """A denoiser of p_t(x) p(y | x, t)^scale: see `classifier`.

  Attributes:
    inner: the denoiser, conditional or not.
    log_prob_params: first argument of log_prob.
    scale: factor of the gradient; a scalar or one a sample, [B].
    log_prob: (params, x, t, cond) -> [B].
  """

  inner: Any
  log_prob_params: Any
  scale: Any
  log_prob: Callable[..., Any] = struct.field(pytree_node=False)

  @property
  def needs_signal(self) -> bool:
    """Yes: it changes the score, of which x0 knows nothing where there is no signal."""
    return True

  def __call__(
    self,
    x: Any,
    t: jax.Array,
    cond: Any = None,
    *,
    views: tuple[str, ...] = ("x0", "eps"),
    key: jax.Array | None = None,
    train: bool = False,
  ) -> Prediction:
    """As a denoiser; the condition goes to the classifier and to the denoiser."""
    check_views(views, self.views)
    prediction = self.inner(x, t, cond, views=views, key=key, train=train)

    def total(x):
      value = self.log_prob(self.log_prob_params, x, t, cond)
      if jnp.shape(value) != t.shape:
        raise ValueError(
          f"log_prob returned shape {jnp.shape(value)} for {t.shape[0]} rows: it is one number per example"
        )
      return jnp.sum(value)

    scale = expand(jnp.broadcast_to(jnp.asarray(self.scale, x.dtype), t.shape), x)
    return shifted(self.process, prediction, t, "score", scale * jax.grad(total)(x))


@struct.dataclass
class DiscreteClassifier(Wrapper):
  """A denoiser of p_t(x) p(y | x, t)^scale on a discrete process: see `classifier`.

  The attributes are those of `Classifier`.
  """

  inner: Any
  log_prob_params: Any
  scale: Any
  log_prob: Callable[..., Any] = struct.field(pytree_node=False)

  @property
  def kind(self) -> str:
    """The view that guidance acts on: logits of masks, else ratios."""
    return "ratios" if self.process.mask is None else "logits"

  @property
  def views(self) -> tuple[str, ...]:
    """Those that follow from the view that guidance acts on."""
    return tuple(self.process.views_of(self.kind))

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
    """As a denoiser; the condition goes to the classifier and to the denoiser."""
    check_views(views, self.views)
    prediction = self.inner(x, t, cond, views=(self.kind,), key=key, train=train)
    value = prediction[self.kind]
    evidence = self._evidence(x, t, cond, value.shape[-1]).astype(value.dtype)
    scale = coordinates(jnp.broadcast_to(jnp.asarray(self.scale, value.dtype), t.shape), x)
    if self.kind == "ratios":
      own = jnp.take_along_axis(evidence, x[..., None].astype(jnp.int32), axis=-1)
      guided = value * jnp.exp(scale * (evidence - own))
    else:
      guided = value + scale * evidence
    found = self.process.convert(self.kind, guided, x, t, views)
    return Prediction(collections=prediction.collections, **found)

  def _evidence(self, x, t, cond, values):
    """log_prob with each coordinate at each value: [B, ..., values]."""
    rows = x.shape[0]
    flat = x.reshape(rows, -1)
    again = lambda leaf: jnp.repeat(leaf, values, axis=0)
    times, conditions = again(t), jax.tree.map(again, cond)
    every = jnp.tile(jnp.arange(values, dtype=x.dtype), rows)

    def one(place):
      changed = again(flat).at[:, place].set(every).reshape(rows * values, *x.shape[1:])
      found = self.log_prob(self.log_prob_params, changed, times, conditions)
      if jnp.shape(found) != times.shape:
        raise ValueError(
          f"log_prob returned shape {jnp.shape(found)} for {times.shape[0]} rows: it is one number per "
          "example"
        )
      return found.reshape(rows, values)

    return jnp.moveaxis(jax.lax.map(one, jnp.arange(flat.shape[1])), 0, 1).reshape(*x.shape, values)


def classifier(
  log_prob: Callable[..., jax.Array], params: Any = None, scale: Any = 1.0
) -> Callable[[Denoiser], Classifier | DiscreteClassifier]:
  """Classifier guidance: score + scale grad_x log p(y | x_t, t), and all other views with it.

  The score is that of arXiv:2011.13456, eq. 14; the scale is that of arXiv:2105.05233.

  With an unconditional denoiser and the exact log-probability, scale 1 gives the conditional denoiser. A
  classifier that was not trained on noised data says little at high noise levels.

  On a discrete process there is no gradient, and Bayes' rule takes its place (arXiv:2406.01572, eq. 3). The
  probability that a masked coordinate is k is multiplied by p(y | x_t with k there)^scale and normalised. Of
  a process without masks the ratios are multiplied by it, over p(y | x_t)^scale. One call then asks the
  classifier about every value of every coordinate, D K of them for each sample.

  Args:
    log_prob: pure function (params, x [B, ...], t [B], cond) -> [B], the log-probability of what is asked
      for, in nats; `cond` is what the sampler passes. Build it once: a new function object recompiles.
    params: the classifier's parameters, a leaf.
    scale: a number or one a sample, [B]. Changing it does not recompile.

  Raises:
    TypeError: a log_prob that can not be called.

  >>> from diffusion import guidance, oracles, processes
  >>> prior = oracles.gaussian(processes.edm(), [0.0], [1.0])
  >>> evidence = lambda params, x, t, cond: -0.5 * jnp.sum((x - params) ** 2, axis=1)
  >>> guided = guidance.classifier(evidence, jnp.float32(2.0))(prior)
  >>> x, t = jnp.zeros((1, 1)), jnp.ones(1)
  >>> float((guided(x, t, views=("score",)).score - prior.score(x, t))[0, 0])
  2.0
  """
  if not callable(log_prob):
    raise TypeError(f"log_prob is a function (params, x, t, cond) -> [B], got {type(log_prob).__name__}")

  def apply(denoiser):
    discrete = denoiser.process is not None and denoiser.process.kind == "discrete"
    return (DiscreteClassifier if discrete else Classifier)(denoiser, params, scale, log_prob)

  return apply
