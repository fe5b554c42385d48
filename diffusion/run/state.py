"""The whole of a training run at one step, as one pytree."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Self

import jax
import jax.numpy as jnp
import optax
from flax import struct


@struct.dataclass
class TrainState:
  """Everything the next step depends on, but for the batch and the seed.

  Attributes:
    step: [] int32, steps done.
    params: {role: parameters} of the roles that are trained, and 'loss': {player: parameters of its loss},
      float32.
    opt_state: {player: state of its optax chain}.
    emas: {half-life in images or relative length, as text: averaged parameters of the model} and {role:
      parameters} of roles that are averages.
    loss_state: {'objective': {player: state of its objective}, 'collections': {role: mutable collections of
      its network}, 'fixed': {role: parameters} of the roles that nothing changes, so that a resumed run needs
      no other folder than its own}.

  Random keys are not kept: they are derived from the seed and the step, see `step.run_key`.
  """

  step: jax.Array
  params: Any
  opt_state: Any
  emas: dict[str, Any]
  loss_state: Any

  if TYPE_CHECKING:  # of struct.dataclass

    def replace(self, **changes: Any) -> Self: ...


def create(
  params: dict[str, Any],
  loss_state: dict[str, Any],
  transform: optax.GradientTransformation,
  averages: Iterable[str],
) -> TrainState:
  """The state of one player, 'model', before the first step: every average starts at the parameters.

  Args:
    params: {'model': parameters, 'loss': those of its loss}.
    loss_state: {'objective': ..., 'collections': ...} as the loss's init gives it; {} of what is not there.
    transform: the optax chain.
    averages: names of the model's averages.
  """
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params={"model": params["model"], "loss": {"model": params["loss"]}},
    opt_state={"model": transform.init(params)},
    emas={name: jax.tree.map(jnp.copy, params["model"]) for name in averages},
    loss_state={
      "objective": {"model": loss_state.get("objective", {})},
      "collections": loss_state.get("collections", {}),
      "fixed": {},
    },
  )


FORMAT = 2
"""Of the train state in a checkpoint; 1, without a number, was before there were players."""


def upgraded(state: TrainState) -> TrainState:
  """A state that was saved before there were players in the form of today, with one player, 'model'.

  >>> old = TrainState(1, dict(model=2, loss={}), 3, {}, dict(objective=4, collections={}))
  >>> upgraded(old).opt_state, upgraded(old).params["loss"], before_players(upgraded(old)) == old
  ({'model': 3}, {'model': {}}, True)
  """
  loss_state = {"fixed": {}, **state.loss_state, "objective": {"model": state.loss_state["objective"]}}
  params = {**state.params, "loss": {"model": state.params["loss"]}}
  return state.replace(params=params, opt_state={"model": state.opt_state}, loss_state=loss_state)


def before_players(state: TrainState) -> TrainState:
  """A state (or its shapes) of one player as it was before there were players: inverts `upgraded`."""
  loss_state = {**state.loss_state, "objective": state.loss_state["objective"]["model"]}
  if not loss_state["fixed"]:
    del loss_state["fixed"]
  params = {**state.params, "loss": state.params["loss"]["model"]}
  return state.replace(params=params, opt_state=state.opt_state["model"], loss_state=loss_state)


def count_parameters(params: Any) -> int:
  """Numbers in a pytree of parameters.

  >>> import jax.numpy as jnp
  >>> count_parameters({'a': jnp.zeros((2, 3)), 'b': jnp.zeros(4)})
  10
  """
  return sum(leaf.size for leaf in jax.tree.leaves(params))
