"""Several conditions at once: all of them, none of some (negative weights), or any of them."""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from diffusion.denoisers import Denoiser, Prediction, Wrapper, check_views, null_condition
from diffusion.guidance.categorical import asks, follow
from diffusion.guidance.interval import difference
from diffusion.guidance.rows import as_rows
from diffusion.guidance.shift import GaussianWrapper
from diffusion.processes.base import expand
from diffusion.processes.views import VARIANCE_FRACTION


@struct.dataclass
class Conjunction(Wrapper):
  """A denoiser of p(x) prod_i (p(x | c_i) / p(x))^w_i at each noise level; see `conjunction`."""

  inner: Any
  conditions: tuple
  weights: tuple

  @property
  def needs_unconditional(self) -> bool:
    """Yes: every condition is compared with none."""
    return True

  @property
  def cost(self) -> int:
    """Network evaluations of one call: the inner denoiser's, once a condition and once without."""
    return (len(self.conditions) + 1) * self.inner.cost

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
    """As a denoiser; `cond` is not used, the conditions are the transform's own."""
    del cond
    rows = [as_rows(one, t.shape[0]) for one in self.conditions]
    asked = asks(self.inner, views)
    call = lambda cond: self.inner(x, t, cond, views=asked, key=key, train=train)
    nothing = call(null_condition(rows[0]))
    total = nothing
    for condition, weight in zip(rows, self.weights):
      w = jnp.broadcast_to(jnp.asarray(weight, t.dtype), t.shape)
      add = lambda sum_, one, none, w=w: sum_ + expand(w, one).astype(one.dtype) * difference(one, none)
      total = total.replace(**jax.tree.map(add, total.views, call(condition).views, nothing.views))
    kept = {name: view for name, view in nothing.views.items() if name == VARIANCE_FRACTION}
    return follow(self.inner, total.replace(**kept), x, t, views)  # a learned variance is no sum


def conjunction(
  conditions: Iterable[Any], weights: Iterable[Any] | None = None
) -> Callable[[Denoiser], Conjunction]:
  """Several conditions at once: AND with weights, and NOT.

  The guided prediction is unconditional + sum_i w_i (conditional_i - unconditional) (arXiv:2206.01714, eqs.
  11 and 13). On a discrete process it is of log-probabilities, normalised.

  This is the sum of the scores of the noised factors, which is not the score of the noised product: a flow or
  an ancestral sampler alone ends elsewhere, too narrow for w_i > 0. Correctors at each level, as of
  `solvers.predictor_corrector`, make the product right (arXiv:2302.11552).

  A condition that the result is called with is for what is put around it, such as a classifier, and does not
  reach the network: classifier-free guidance around it changes nothing, inside it guides each factor.

  Args:
    conditions: a sequence of conditions, such as {'label': 3}; each of one number for all or [B] of them.
    weights: w_i, one a condition, each a number or [B]; 1 by default. A negative one steers away: NOT.

  Raises:
    ValueError: no conditions, or as many weights as there are not conditions.

  >>> from diffusion import guidance, oracles, processes
  >>> two = oracles.gaussian_mixture(processes.edm(), None, [[-1.0], [1.0]], 1.0, labels=[0, 1])
  >>> both = guidance.conjunction([{"label": 0}, {"label": 1}])(two)
  >>> float(both(jnp.zeros((1, 1)), jnp.ones(1), views=("score",)).score[0, 0])
  0.0
  """
  conditions = tuple(conditions)
  weights = (1.0,) * len(conditions) if weights is None else tuple(weights)
  if not conditions or len(weights) != len(conditions):
    raise ValueError(
      f"conjunction got {len(conditions)} conditions and {len(weights)} weights: give at least one "
      "condition, and a weight for each"
    )
  return lambda denoiser: Conjunction(denoiser, conditions, weights)


@struct.dataclass
class Disjunction(GaussianWrapper):
  """A denoiser of the mixture of p(x | c_i) at each noise level; see `disjunction`."""

  inner: Any
  conditions: tuple
  weight_params: Any
  log_weights: Callable[..., Any] = struct.field(pytree_node=False)

  @property
  def cost(self) -> int:
    """Network evaluations of one call: the inner denoiser's, once a condition; not those of the weights."""
    return len(self.conditions) * self.inner.cost

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
    """As a denoiser; `cond` goes to the weights alone."""
    check_views(views, self.views)
    logits = self.log_weights(self.weight_params, x, t, cond)
    if jnp.shape(logits) != (t.shape[0], len(self.conditions)):
      raise ValueError(
        f"log_weights returned shape {jnp.shape(logits)}: it is one number a row and condition, "
        f"{(t.shape[0], len(self.conditions))}"
      )
    weights = jax.nn.softmax(logits, axis=1)
    parts = [
      self.inner(x, t, as_rows(one, t.shape[0]), views=views, key=key, train=train) for one in self.conditions
    ]
    return jax.tree.map(
      lambda *views: sum(expand(w, view).astype(view.dtype) * view for w, view in zip(weights.T, views)),
      *parts,
    )


def disjunction(
  conditions: Iterable[Any], log_weights: Callable[..., jax.Array], params: Any = None
) -> Callable[[Denoiser], Disjunction]:
  """Any of several conditions: OR.

  The conditional predictions are weighted by the posterior of their conditions at x_t, which is exact for a
  mixture.

  A score alone can not tell how probable a condition is at x_t, so this needs log pi_i + log p_t(x | c_i), up
  to a number that is the same for all i: from densities, from energies, or as the logits of a
  noise-conditional classifier.

  Args:
    conditions: a sequence of conditions, such as {'label': 3}.
    log_weights: pure function (params, x [B, ...], t [B], cond) -> [B, number of conditions]. Build it once.
    params: its first argument, a leaf.

  Raises:
    ValueError: no conditions. TypeError: log_weights that can not be called.

  >>> from diffusion import guidance, oracles, processes
  >>> three = oracles.gaussian_mixture(processes.edm(), None, [[-1.0], [1.0], [9.0]], 0.1, labels=[0, 1, 2])
  >>> logits = lambda oracle, x, t, cond: jnp.log(oracle.responsibilities(x, t)[:, :2])
  >>> either = guidance.disjunction([{"label": 0}, {"label": 1}], logits, three)(three)
  >>> x, t = jnp.zeros((1, 1)), jnp.ones(1)
  >>> float(either(x, t).x0[0, 0])
  0.0
  """
  conditions = tuple(conditions)
  if not conditions:
    raise ValueError("disjunction needs at least one condition, such as {'label': 3}")
  if not callable(log_weights):
    raise TypeError(
      f"log_weights is a function (params, x, t, cond) -> [B, conditions], got {type(log_weights).__name__}"
    )
  return lambda denoiser: Disjunction(denoiser, conditions, params, log_weights)
