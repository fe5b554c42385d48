"""One update as a pure function, the same for a training run and for a loop in memory."""

from collections.abc import Callable
from typing import Any, Protocol

import jax
import optax


class ClosedLoss(Protocol):
  """What is minimised: `losses.Loss`, or anything around one."""

  def init(self, key: jax.Array, /) -> tuple[Any, Any]:
    """(the loss's own parameters, its state)."""
    ...

  def __call__(
    self, params: Any, state: Any, step: jax.Array, key: jax.Array, batch: Any, /
  ) -> tuple[jax.Array, tuple[Any, dict[str, jax.Array]]]:
    """([] value, (the next state, metrics of which 'loss' is the value))."""
    ...


def gradient(
  loss: ClosedLoss,
  params: Any,
  loss_state: Any,
  step: jax.Array,
  key: jax.Array,
  batch: Any,
  roles: Callable[[Any], Any],
) -> tuple[Any, Any, dict[str, jax.Array]]:
  """(gradient with respect to the parameters, the loss's next state, metrics) of one batch.

  Args:
    loss: a closed loss, such as `losses.at_times` makes.
    params: what is trained.
    loss_state, step: of the loss, and the updates done.
    key: of the whole run; the loss folds the step into it.
    batch: what the loss takes, arrays [B, ...].
    roles: the trained parameters -> what the loss is given, such as the same beside a teacher's.
  """

  def of(params):
    return loss(roles(params), loss_state, step, key, batch)

  found, (loss_state, metrics) = jax.grad(of, has_aux=True)(params)
  return found, loss_state, metrics


def descend(
  params: Any, gradient: Any, opt_state: Any, transform: optax.GradientTransformation, rate: jax.Array
) -> tuple[Any, Any]:
  """(parameters, state of the optimiser) after one update.

  Args:
    params, gradient: pytrees alike.
    opt_state: of `transform`.
    transform: optax's; `rate` times what it returns is taken off the parameters.
    rate: [] the learning rate, or -1 for a transformation that has its own rate and sign in it.
  """
  updates, opt_state = transform.update(gradient, opt_state, params)
  take = lambda old, update: old - rate.astype(old.dtype) * update.astype(old.dtype)
  return jax.tree.map(take, params, updates), opt_state
