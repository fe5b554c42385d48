"""One update as a pure function, the same for a training run and for a loop in memory."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import jax
import optax

from diffusion.training import ema
from diffusion.training.state import TrainState


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
  loss: ClosedLoss, state: TrainState, key: jax.Array, batch: Any, roles: Callable[[Any], Any]
) -> tuple[Any, Any, dict[str, jax.Array]]:
  """(gradient with respect to the parameters, the loss's next state, metrics) of one batch.

  Args:
    loss: a closed loss, such as `losses.at_times` makes.
    state: of the training; its `params`, `loss_state` and `step` are what the loss sees.
    key: of the whole run; the loss folds the step into it.
    batch: what the loss takes, arrays [B, ...].
    roles: the trained parameters -> what the loss is given, such as the same beside a teacher's.
  """

  def of(params):
    return loss(roles(params), state.loss_state, state.step, key, batch)

  found, (loss_state, metrics) = jax.grad(of, has_aux=True)(state.params)
  return found, loss_state, metrics


def advance(
  state: TrainState,
  gradient: Any,
  loss_state: Any,
  transform: optax.GradientTransformation,
  rate: jax.Array,
  shares: Mapping[str, jax.Array],
) -> TrainState:
  """The state after one update: gradient -> optax -> parameters -> averages.

  Args:
    state: before it.
    gradient: as `state.params`.
    loss_state: the loss's next state.
    transform: optax's; `rate` times what it returns is taken off the parameters.
    rate: [] the learning rate, or -1 for a transformation that has its own rate and sign in it.
    shares: {name of an average: [] share of the new parameters in it}.
  """
  updates, opt_state = transform.update(gradient, state.opt_state, state.params)
  params = jax.tree.map(
    lambda old, update: old - rate.astype(old.dtype) * update.astype(old.dtype), state.params, updates
  )
  emas = {name: ema.update(state.emas[name], params["model"], share) for name, share in shares.items()}
  return TrainState(state.step + 1, params, opt_state, emas, loss_state)
