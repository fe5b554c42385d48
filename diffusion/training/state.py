"""The whole of a training run at one step, as one pytree."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct


@struct.dataclass
class TrainState:
  """Everything the next step depends on, but for the batch and the seed.

  Attributes:
    step: [] int32, updates done.
    params: {'model': network parameters, 'loss': the loss's own parameters}, float32.
    opt_state: of the optax chain.
    emas: {half-life in images, as text: network parameters}.
    loss_state: {'objective': state of the objective, 'collections': the networks' mutable collections by
      role} and, in a run that has a teacher, 'fixed': {role: parameters} of the roles that learn nothing, so
      that a resumed run needs no other folder than its own.

  Random keys are not kept: they are derived from the seed and the step, see `run_key`.
  """

  step: jax.Array
  params: Any
  opt_state: Any
  emas: dict[str, Any]
  loss_state: Any


def create(params, loss_state, transform: optax.GradientTransformation, ema_names) -> TrainState:
  """The state before the first step: every average starts at the parameters."""
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    opt_state=transform.init(params),
    emas={name: jax.tree.map(jnp.copy, params["model"]) for name in ema_names},
    loss_state=loss_state,
  )


def run_key(seed: int) -> jax.Array:
  """The key of a run's training randomness; the loss folds the step into it, and each example its index.

  >>> run_key(0).shape
  ()
  """
  return jax.random.fold_in(jax.random.key(seed), 0x7261696E)


def count_parameters(params) -> int:
  """Numbers in a pytree of parameters.

  >>> count_parameters({'a': jnp.zeros((2, 3)), 'b': jnp.zeros(4)})
  10
  """
  return sum(leaf.size for leaf in jax.tree.leaves(params))
