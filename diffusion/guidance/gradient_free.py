"""Classifier guidance without gradients: away from the class that the classifier confuses with the target."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from diffusion.denoisers import Denoiser, Prediction, Wrapper
from diffusion.guidance.interval import active_weight, check_interval, extrapolated
from diffusion.guidance.shift import with_view


@struct.dataclass
class GradientFree(Wrapper):
  """A denoiser that moves away from the most probable wrong class; see `gradient_free`."""

  inner: Any
  classify_params: Any
  weight: Any
  low: Any
  high: Any
  classify: Callable[..., Any] = struct.field(pytree_node=False)

  # Network evaluations for one call; the classifier's forward pass is not among them.
  @property
  def cost(self) -> int:
    """Network evaluations of one call: the inner denoiser's, twice."""
    return 2 * self.inner.cost

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
    """As a denoiser; needs cond={'label': [B]}."""
    if not cond or set(cond) != {"label"}:
      raise ValueError(
        "gradient-free classifier guidance needs the target class and nothing else: pass cond={'label': "
        "labels}"
      )
    target = jnp.asarray(cond["label"])
    conditional = self.inner(x, t, cond, views=with_view(views, "x0"), key=key, train=train)
    log_prob = jax.nn.log_softmax(self.classify(self.classify_params, conditional.x0), axis=1)
    rows = jnp.arange(t.shape[0])
    probability = jnp.exp(log_prob[rows, target])
    reference = jnp.argmax(log_prob.at[rows, target].set(-jnp.inf), axis=1).astype(target.dtype)
    conditional = conditional.only(views)
    away = self.inner(x, t, {"label": reference}, views=views, key=key, train=train)
    weight = active_weight(self.process, t, self.weight, self.low, self.high)
    return extrapolated(conditional, away, weight * (1.0 - probability).astype(weight.dtype))


def gradient_free(
  classify: Callable[..., jax.Array],
  weight: Any,
  params: Any = None,
  interval: tuple[float, float] | None = None,
) -> Callable[[Denoiser], GradientFree]:
  """Gradient-free classifier guidance, GFCG (arXiv:2411.15393).

  It is conditional + w (1 - p) (conditional - reference), with a classifier of clean data run forward only.

  p is the probability of the target class at the predicted x0, and the reference the most probable other
  class. The paper's own schedule of the weight was not available; that it fades as p goes to 1 is ours.

  Args:
    classify: pure function (params, x0 [B, ...]) -> logits [B, classes]. Build it once.
    weight: w, a number or one a sample, [B].
    params: the classifier's parameters, a leaf.
    interval: (low, high) noise levels sigma/alpha between which to guide, or None for all.

  Raises:
    TypeError: a classifier that can not be called. ValueError: an empty interval.

  >>> from diffusion import guidance, oracles, processes
  >>> two = oracles.gaussian_mixture(processes.edm(), None, [[-1.0], [1.0]], 0.1, labels=[0, 1])
  >>> logits = lambda params, x0: jnp.concatenate([-8.0 * x0, 8.0 * x0], axis=1)
  >>> guided = guidance.gradient_free(logits, 2.0)(two)
  >>> bool(guided(jnp.zeros((1, 1)), jnp.ones(1), {"label": jnp.array([1])}).x0[0, 0] > 0.9)
  True
  """
  if not callable(classify):
    raise TypeError(
      f"classify is a function (params, x0) -> logits [B, classes], got {type(classify).__name__}"
    )
  low, high = check_interval(interval)
  return lambda denoiser: GradientFree(denoiser, params, weight, low, high, classify)
